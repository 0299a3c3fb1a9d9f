"""What a study says, written for its readers."""

from pathlib import Path

from lightning_dlopt.evidence.analysis import analyze
from lightning_dlopt.evidence.runs import Study


def write_report(study: Study, folder: Path) -> list[Path]:
    """Write the report of a study and return its files."""
    (folder / "report.md").write_text(str(analyze(study)))
    return [folder / "report.md"]
