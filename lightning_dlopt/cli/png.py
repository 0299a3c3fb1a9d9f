"""Pictures that the command writes."""

from pathlib import Path
from typing import Any

from lightning_dlopt.cli.mistakes import UsageError
from lightning_dlopt.core.errors import one_line

DPI = 110


def check_png(output: Path) -> None:
    """Raise a UsageError if ``output`` isn't the name of a PNG."""
    if output.suffix != ".png":
        raise UsageError(f"--output {output} must be a file that ends in .png")


def write_png(figure: Any, output: Path) -> None:
    """Write a matplotlib figure; its folder is made if it isn't there."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(output, dpi=DPI, format="png")
    except OSError as error:
        raise UsageError(f"--output {output} can't be written: {one_line(error)}") from error
