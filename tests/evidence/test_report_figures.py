"""What is drawn: read back from the figures."""

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text

from lightning_dlopt.evidence.analysis import Analysis
from lightning_dlopt.evidence.report.averages import average, find_limits
from lightning_dlopt.evidence.report.curves_figure import draw_curves
from lightning_dlopt.evidence.report.effects_figure import draw_effects
from lightning_dlopt.evidence.report.figures import DRAWINGS, draw
from lightning_dlopt.evidence.report.order import in_order
from lightning_dlopt.evidence.report.theme import DARK, LIGHT, Theme
from lightning_dlopt.evidence.report.time_figure import draw_time
from lightning_dlopt.evidence.runs import A_A, BASELINE, Point, Run
from tests.evidence.report_studies import FOUR, fail, make_large, make_study


def texts(figure: object) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]  # type: ignore[attr-defined]


@pytest.mark.parametrize("narrow", [False, True], ids=["wide", "narrow"])
def test_effects_are_marked_at_their_values_from_best_to_worst(narrow: bool) -> None:
    study, analysis = make_study()
    figure = draw_effects(study, analysis, LIGHT, narrow)
    (axes,) = figure.axes
    results = in_order(study, analysis)
    assert [r.arm for r in results] == [A_A, *sorted(FOUR, key=lambda name: -FOUR[name][0])]
    marks = [line for line in axes.lines if line.get_marker() in "^voD"]
    for row, (mark, result) in enumerate(zip(marks, results, strict=True)):
        assert mark.get_xydata().tolist() == [pytest.approx([100 * (result.effect or 0), row])]
    bars = [
        line for line in axes.lines if len(set(line.get_ydata())) == 1 and line.get_linewidth() == 2
    ]
    ends = [bar.get_xdata() for bar in bars]
    assert np.allclose(ends, [[100 * (r.low or 0), 100 * (r.high or 0)] for r in results])
    # up is above: the first row stands highest, and better lies to the right
    bottom, top = axes.get_ylim()
    assert bottom > top
    assert axes.get_xlabel().endswith("better \N{RIGHTWARDS ARROW}")


def test_a_verdict_is_told_by_its_mark_as_well_as_by_color() -> None:
    study, analysis = make_study()
    (axes,) = draw_effects(study, analysis, LIGHT).axes
    marks = [line for line in axes.lines if line.get_marker() in "^voD"]
    shown = [(m.get_marker(), to_hex(m.get_markerfacecolor())) for m in marks]
    white = LIGHT.ground
    helps, hurts = LIGHT.roles["helps"], LIGHT.roles["hurts"]
    assert shown == [("D", white), ("^", helps), ("o", white), ("o", white), ("v", hurts)]
    assert {"helps", "hurts", "can't tell", "noise"} <= set(texts(axes.figure))


def test_the_band_is_the_interval_of_noise_and_zero_is_drawn() -> None:
    study, analysis = make_study()
    (axes,) = draw_effects(study, analysis, LIGHT).axes
    (band,) = axes.patches
    noise = analysis.arms[0]
    assert (band.get_x(), band.get_x() + band.get_width()) == pytest.approx(
        (100 * (noise.low or 0), 100 * (noise.high or 0))
    )
    assert any(list(line.get_xdata()) == [0, 0] for line in axes.lines)


def test_better_is_left_for_a_loss() -> None:
    (axes,) = draw_effects(*make_study(larger=False), LIGHT).axes
    assert axes.get_xlabel().startswith("\N{LEFTWARDS ARROW} better")


def test_one_far_arm_does_not_squeeze_forty() -> None:
    study, analysis = make_large()
    figure = draw_effects(study, analysis, LIGHT)
    (axes,) = figure.axes
    left, right = axes.get_xlim()
    assert -5 < left < 0 < right < 5
    (arrow,) = [line for line in axes.lines if line.get_marker() == "<"]
    assert arrow.get_xdata() == [left]
    assert any("\N{MINUS SIGN}61.0" in text for text in texts(figure))
    assert "no pair finished" in texts(figure)
    # every row has its own place: at least a line of text high
    assert figure.get_figheight() / 41 > 0.25


@pytest.mark.parametrize("narrow", [False, True], ids=["wide", "narrow"])
@pytest.mark.parametrize("size", ["few", "forty", "long names"])
def test_no_text_leaves_the_picture_of_effects_or_covers_another(size: str, narrow: bool) -> None:
    study, analysis = make_large() if size == "forty" else make_study()
    if size == "long names":
        study, analysis = make_study({"W" * 60: FOUR["L1 too strong"], "M" * 60: FOUR["CosineLR"]})
    figure = draw_effects(study, analysis, LIGHT, narrow)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    left, right = axes.get_xlim()
    ticks = [x for x in axes.get_xticklabels() if left <= x.get_position()[0] <= right]
    shown = [*axes.texts, axes.xaxis.label, *ticks]
    boxes = [text.get_window_extent() for text in shown]
    width, height = figure.get_size_inches() * figure.dpi
    for index, box in enumerate(boxes):
        assert box.x0 >= 0, shown[index]
        assert box.y0 >= 0, shown[index]
        assert box.x1 <= width, shown[index]
        assert box.y1 <= height, shown[index]
        for other in boxes[:index]:
            apart = box.x1 <= other.x0 or other.x1 <= box.x0
            assert apart or box.y1 <= other.y0 + 1 or other.y1 <= box.y0 + 1, shown[index]


def test_few_arms_share_axes_and_many_do_not() -> None:
    figure = draw_curves(*make_study(), LIGHT)
    (axes,) = figure.axes
    assert len(axes.lines) == len(axes.collections) == 5, "a mean and a band each"
    assert set(texts(figure)) >= {BASELINE, *FOUR}
    assert len({line.get_linestyle() for line in axes.lines[1:]}) == 4
    five = {f"arm {index}": FOUR["CosineLR"] for index in range(5)}
    figure = draw_curves(*make_study(five), LIGHT)
    assert figure.axes[0].get_title(loc="left") == "A/A (noise)"
    assert [len(axes.lines) for axes in figure.axes if axes.axison] == [2] * 6


def test_the_curve_is_the_mean_and_the_band_a_standard_deviation() -> None:
    study, analysis = make_study()
    values = np.array([[p.value for p in r.curve] for r in study.reported(BASELINE).values()])
    (axes,) = draw_curves(study, analysis, LIGHT).axes
    assert np.allclose(axes.lines[0].get_ydata(), values.mean(0))
    edge = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert edge.max() == pytest.approx((values.mean(0) + values.std(0, ddof=1)).max())


def test_runs_of_other_lengths_are_averaged_where_all_have_been() -> None:
    one = Run(
        *("a", "report", 0, 1, "finished"), curve=[Point(10, 0, 1.0, 0.0), Point(30, 1, 3.0, 2.0)]
    )
    two = Run(
        *("a", "report", 1, 2, "finished"), curve=[Point(20, 0, 4.0, 5.0), Point(40, 1, 8.0, 9.0)]
    )
    lost = Run(*("a", "report", 2, 3, "crashed"), curve=[Point(10, 0, 1.0, 99.0)])
    course = average([one, two, lost])
    assert course is not None
    assert course.steps.tolist() == [20, 30]
    assert course.mean.tolist() == [(1 + 5) / 2, (2 + 7) / 2]
    assert course.seconds.tolist() == [(2 + 4) / 2, (3 + 6) / 2]
    assert course.runs == 2
    assert average([lost]) is None
    assert average([one, Run(*("a", "report", 1, 2, "finished"), curve=[Point(50, 0, 1, 1.0)])])


def test_failed_runs_end_in_a_cross() -> None:
    study, analysis = fail(*make_study(), arm="CosineLR", number=2)
    (axes,) = draw_curves(study, analysis, LIGHT).axes
    crosses = [line for line in axes.lines if line.get_marker() == "x"]
    assert [cross.get_xdata()[0] for cross in crosses] == [400, 400]


def test_limits_hold_the_center_and_what_is_near() -> None:
    low, high = find_limits([1.0, 2.0], [0.5, 1.5, 1.6, 90.0], reach=1)
    assert low < 0.5
    assert 2 < high < 5
    assert find_limits([], [], reach=1) == (0, 1)
    low, high = find_limits([3.0], [], reach=1)
    assert low < 3 < high


def test_points_of_time_are_means_with_both_spreads() -> None:
    study, analysis = make_study()
    (axes,) = draw_time(study, analysis, LIGHT).axes
    assert len(axes.containers) == 5
    for container in axes.containers:
        runs = study.reported(str(container.get_label())).values()
        seconds = [run.seconds for run in runs]
        values = [run.metrics["test_accuracy"] for run in runs]
        (place,) = container.lines[0].get_xydata()
        assert place == pytest.approx([np.mean(seconds), np.mean(values)])
        across, along = (bars.get_segments()[0] for bars in container.lines[2])
        assert np.ptp(across[:, 0]) == pytest.approx(2 * np.std(seconds, ddof=1))
        assert np.ptp(along[:, 1]) == pytest.approx(2 * np.std(values, ddof=1))


def test_the_clearest_of_forty_are_named_and_the_lost_one_is_told() -> None:
    shown = texts(draw_time(*make_large(), LIGHT))
    assert {"baseline", "helps", "hurts", "can't tell", "technique number 25"} <= set(shown)
    assert any(text.startswith("off the axis: SAM") and "30." in text for text in shown)


@pytest.mark.parametrize("name", DRAWINGS)
def test_names_are_not_read_as_formulas_and_nothing_global_changes(name: str) -> None:
    before = dict(mpl.rcParams)
    five = {f"$\\frac{{ {index} 𝄞": FOUR["CosineLR"] for index in range(5)}
    for arms in (five, dict(list(five.items())[:1])):
        assert draw(name, *make_study(arms), DARK, narrow=True)[:4] == b"\x89PNG"
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("name", DRAWINGS)
@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_pictures_without_results_say_so(name: str, theme: Theme) -> None:
    study, _ = make_study()
    study.runs.clear()
    figure = DRAWINGS[name](study, Analysis([], None, None, None, []), theme, False)
    assert [text for text in texts(figure) if text.startswith("no ")]
    assert to_hex(figure.get_facecolor()) == theme.ground


def contrast(one: str, other: str) -> float:
    """The ratio of WCAG 2.1."""

    def luminance(color: str) -> float:
        parts = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_colors_stand_out_from_the_ground(theme: Theme) -> None:
    assert contrast(theme.ink, theme.ground) > 7
    assert contrast(theme.quiet, theme.ground) > 4.5
    for color in (*theme.roles.values(), *theme.series):
        assert contrast(color, theme.ground) > 3
