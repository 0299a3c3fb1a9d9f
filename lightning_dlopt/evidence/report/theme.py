"""Colors and marks of the pictures: told apart by those who don't see red and green as well."""

from dataclasses import dataclass
from typing import Any

from lightning_dlopt.evidence.report.order import Role


@dataclass(frozen=True)
class Theme:
    """Colors on a light or a dark ground.

    Attributes:
        ground: behind everything.
        ink: of text and the baseline.
        quiet: of what stands back.
        grid: of lines to read by.
        band: of the A/A interval.
        roles: one for each verdict.
        series: of arms that share a picture.
    """

    ground: str
    ink: str
    quiet: str
    grid: str
    band: str
    roles: dict[Role, str]
    series: tuple[str, ...]


# after M. Okabe and K. Ito's set of colors for every kind of color vision
LIGHT = Theme(
    ground="#ffffff",
    ink="#1f2328",
    quiet="#5d6670",
    grid="#dfe3e8",
    band="#e9ecf0",
    roles={"helps": "#0072b2", "hurts": "#d55e00", "can't tell": "#5d6670", "noise": "#8a939d"},
    series=("#0072b2", "#d55e00", "#009e73", "#b4568f"),
)
DARK = Theme(
    ground="#15191e",
    ink="#e8ebee",
    quiet="#a4adb7",
    grid="#333a42",
    band="#252b32",
    roles={"helps": "#56b4e9", "hurts": "#f08a3c", "can't tell": "#a4adb7", "noise": "#7d8792"},
    series=("#56b4e9", "#f08a3c", "#2fc799", "#e08fc0"),
)

#: Verdicts differ in their marks as well; only what was told is filled.
MARKS: dict[Role, str] = {"helps": "^", "hurts": "v", "can't tell": "o", "noise": "D"}
#: Lines and marks of arms that share a picture.
LINES = ("-", "--", "-.", ":")
POINTS = ("o", "s", "^", "D")


#: The same in text: beside the verdict, or before a name.
SIGNS = {"helps": "\N{BLACK UP-POINTING TRIANGLE} ", "hurts": "\N{BLACK DOWN-POINTING TRIANGLE} "}


def is_filled(role: Role) -> bool:
    """Return whether the mark is filled."""
    return role in ("helps", "hurts")


def new_figure(theme: Theme, width: float, height: float) -> Any:
    """Return a matplotlib figure of a size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor=theme.ground)


def dress(axes: Any, theme: Theme, size: float = 8.5) -> None:
    """Give axes the theme's colors: a grid to read by, no box."""
    axes.set_facecolor(theme.ground)
    axes.grid(color=theme.grid, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=theme.quiet, labelcolor=theme.ink, labelsize=size, length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_color(theme.ink)
        axis.label.set_fontsize(size)
        axis.label.set_parse_math(False)


def say_nothing_yet(figure: Any, theme: Theme, text: str) -> Any:
    """Write into an otherwise empty figure why it is empty."""
    figure.text(
        *(0.5, 0.5, text),
        color=theme.quiet,
        fontsize=10,
        ha="center",
        va="center",
        parse_math=False,
    )
    return figure


def shorten(text: str, letters: int) -> str:
    """Return a text of no more letters than that, cut in its middle.

    Example:
        >>> shorten("a-very-long-name", 9)
        'a-ve…name'
    """
    if len(text) <= letters:
        return text
    tail = (letters - 1) // 2
    return f"{text[: letters - 1 - tail]}\N{HORIZONTAL ELLIPSIS}{text[-tail:]}"


def measure(text: str, size: float) -> float:
    """Return the width in points of a bold text of a size in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    font = FontProperties(size=size, weight="bold")
    # letters are moved to whole pixels, which makes a line a little wider
    return 1.06 * float(TextToPath().get_text_width_height_descent(text, font, False)[0])


def fit(text: str, size: float, width: float) -> str:
    """Return a text no wider, if bold, than a width in points, cut in its middle."""
    letters = len(text)
    while letters > 3 and measure(shorten(text, letters), size) > width:
        letters -= 1
    return shorten(text, letters)
