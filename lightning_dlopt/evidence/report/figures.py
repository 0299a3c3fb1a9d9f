"""The report's pictures, as PNGs."""

import io
import warnings
from typing import Any

from lightning_dlopt.evidence.analysis import Analysis
from lightning_dlopt.evidence.report.curves_figure import draw_curves
from lightning_dlopt.evidence.report.effects_figure import draw_effects
from lightning_dlopt.evidence.report.theme import LIGHT, Theme
from lightning_dlopt.evidence.report.time_figure import draw_time
from lightning_dlopt.evidence.runs import Study

#: Pixels of an inch: of a picture that is a file, and of one on a page (two for each of its own).
DPI = 160
#: Names of the pictures, in the order of the report, and what draws them.
DRAWINGS = {"effects": draw_effects, "time": draw_time, "curves": draw_curves}


def to_png(figure: Any) -> bytes:
    """Return a matplotlib figure as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    FigureCanvasAgg(figure)
    data = io.BytesIO()
    with warnings.catch_warnings():
        # a name may have letters that the font hasn't: a box stands in their place
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(data, dpi=DPI, format="png", metadata={"Software": None})
    # few colors are used, so a palette of them takes a third of the space
    image = Image.open(data).convert("RGB").quantize(192, dither=Image.Dither.NONE)
    small = io.BytesIO()
    image.save(small, format="png")
    return small.getvalue()


def draw(
    name: str, study: Study, analysis: Analysis, theme: Theme = LIGHT, narrow: bool = False
) -> bytes:
    """Return one of the pictures as a PNG."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        return to_png(DRAWINGS[name](study, analysis, theme, narrow))
