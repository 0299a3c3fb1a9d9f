"""The picture of all studies: each technique's effect with its interval."""

from pathlib import Path
from typing import Any

from matplotlib.lines import Line2D

from benchmarks.cards.measured import Evidence, Measured
from lightning_dlopt.evidence.analysis import ArmResult
from lightning_dlopt.evidence.report.figures import to_png
from lightning_dlopt.evidence.report.order import in_order, role_of
from lightning_dlopt.evidence.report.theme import LIGHT, MARKS, dress, is_filled, new_figure
from lightning_dlopt.evidence.runs import A_A

PICTURE = Path("docs") / "effects.png"
#: Points of accuracy at which the axes end; what lies beyond is written down.
ENDS = (-4.0, 2.5)
_ROW, _HEAD = 0.19, 0.75


def columns(measured: list[Measured]) -> list[list[Measured]]:
    """Return the studies in two columns of nearly equal height, in their order.

    Their heights are counted in arms, and a title's room as four of them.
    """
    heights = [len(one.results()) + 4 for one in measured]
    halves = [abs(2 * sum(heights[:cut]) - sum(heights)) for cut in range(len(measured) + 1)]
    cut = halves.index(min(halves))
    return [part for part in (measured[:cut], measured[cut:]) if part]


def draw(evidence: Evidence) -> bytes:
    """Return a PNG with a panel for each study that has been run."""
    shown = columns([one for one in evidence.studies if one.results()])
    inches = [sum(_HEAD + _ROW * len(one.results()) for one in column) for column in shown]
    height = max(inches, default=1.0) + 0.4
    figure = new_figure(LIGHT, 10.0, height)
    figure.set_layout_engine("none")
    for number, column in enumerate(shown):
        top = height - 0.1
        for measured in column:
            rows = _ROW * len(measured.results())
            box = (0.15 + 0.5 * number, (top - 0.35 - rows) / height, 0.3, rows / height)
            _panel(figure.add_axes(box), measured)
            top -= rows + _HEAD
    keys = [
        Line2D([], [], marker=MARKS[role], color=LIGHT.roles[role], label=role, linestyle="")
        for role in ("helps", "can't tell", "hurts")
    ]
    for key in keys:
        if key.get_label() == "can't tell":
            key.set_markerfacecolor(LIGHT.ground)
    figure.legend(handles=keys, loc="lower center", ncols=3, frameon=False, fontsize=8)
    return to_png(figure)


def _panel(axes: Any, measured: Measured) -> None:
    assert measured.study is not None
    assert measured.analysis is not None
    results = in_order(measured.study, measured.analysis)
    dress(axes, LIGHT, 7.5)
    axes.set_title(measured.plan.title, fontsize=8, loc="left", x=-0.3, weight="bold")
    axes.set_xlim(*ENDS)
    axes.set_ylim(len(results) - 0.5, -0.5)
    axes.set_yticks(range(len(results)), [_name(result) for result in results], fontsize=7.5)
    axes.grid(visible=False, axis="y")
    axes.axvline(0, color=LIGHT.ink, linewidth=0.8, zorder=1)
    for row, result in enumerate(results):
        if result.arm == A_A and result.low is not None and result.high is not None:
            axes.axvspan(100 * result.low, 100 * result.high, color=LIGHT.band, zorder=0)
        _interval(axes, row, result)
    axes.set_xlabel("points of test accuracy", fontsize=7, labelpad=1)


def _name(result: ArmResult) -> str:
    return "A/A (noise)" if result.arm == A_A else result.arm.removeprefix("UseOptimizer ")


def _interval(axes: Any, row: int, result: ArmResult) -> None:
    role = role_of(result)
    color = LIGHT.roles[role]
    if result.effect is None:
        axes.text(ENDS[0] + 0.1, row, "failed", fontsize=7, va="center", color=color)
        return
    effect = 100 * result.effect
    if not ENDS[0] < effect < ENDS[1]:
        left = effect <= ENDS[0]
        text = f"◀ {effect:.1f}" if left else f"{effect:.1f} ▶"
        side = ENDS[0] + 0.1 if left else ENDS[1] - 0.1
        align = "left" if left else "right"
        axes.text(side, row, text, fontsize=7, va="center", ha=align, color=color)
        return
    if result.low is not None and result.high is not None:
        axes.plot([100 * result.low, 100 * result.high], [row, row], color=color, linewidth=1.6)
    face = color if is_filled(role) else LIGHT.ground
    axes.plot([effect], [row], MARKS[role], color=color, markerfacecolor=face, markersize=5)
