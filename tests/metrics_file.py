"""What a CSVLogger wrote."""

import csv
from pathlib import Path


def logged(folder: Path, name: str) -> list[dict[str, float]]:
    """Return the rows of the metrics file under ``folder`` that hold ``name``."""
    (path,) = folder.rglob("metrics.csv")
    with path.open() as file:
        rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    return [row for row in rows if name in row]
