"""The picture of the learning curves: means over seeds with their spread."""

import math
from typing import Any

import numpy as np

from lightning_dlopt.evidence.analysis import Analysis, ArmResult
from lightning_dlopt.evidence.report.averages import Course, average, find_limits
from lightning_dlopt.evidence.report.numbers import choose_scale, clean
from lightning_dlopt.evidence.report.order import compared, in_order, role_of
from lightning_dlopt.evidence.report.tables import name_of
from lightning_dlopt.evidence.report.theme import (
    LINES,
    POINTS,
    SIGNS,
    Theme,
    dress,
    is_filled,
    new_figure,
    say_nothing_yet,
    shorten,
)
from lightning_dlopt.evidence.runs import BASELINE, Run, Study

#: More arms than that don't share one picture.
TOGETHER = 4
#: The axis is chosen for what comes after this part of the run; before it curves may be cut.
BEGINNING = 0.3

Courses = dict[str, Course | None]


def draw_curves(study: Study, analysis: Analysis, theme: Theme, narrow: bool = False) -> Any:
    """Return a figure of the metric over optimizer steps.

    Up to four arms share one pair of axes with the baseline; more have small ones of their own,
    each against the baseline.
    """
    arms = [BASELINE, *(result.arm for result in analysis.arms)]
    courses = {arm: average(runs_of(study, arm)) for arm in arms}
    if not any(courses.values()):
        figure = new_figure(theme, 3.6 if narrow else 9, 2.4)
        return say_nothing_yet(figure, theme, "no finished run has a learning curve yet")
    if len(compared(analysis)) <= TOGETHER:
        return draw_together(study, analysis, courses, theme, narrow)
    return draw_apart(study, analysis, courses, theme, narrow)


def runs_of(study: Study, arm: str) -> list[Run]:
    """Return the reported runs of an arm."""
    return list(study.reported(arm).values())


def draw_together(
    study: Study, analysis: Analysis, courses: Courses, theme: Theme, narrow: bool
) -> Any:
    """Return a figure with the baseline and few arms on the same axes."""
    figure = new_figure(theme, *((3.6, 3.4) if narrow else (9, 4.2)))
    axes = figure.subplots()
    size = 7.5 if narrow else 9
    dress(axes, theme, size)
    set_scales(axes, study, analysis, courses)
    draw_course(axes, courses[BASELINE], theme.ink, BASELINE)
    for index, result in enumerate(compared(analysis)):
        color, name = theme.series[index], shorten(name_of(result), 30)
        draw_course(axes, courses[result.arm], color, name, LINES[index], POINTS[index])
        draw_failed(axes, runs_of(study, result.arm), color)
    legend = figure.legend(
        loc="outside upper left",
        ncols=1 if narrow else 3,
        frameon=False,
        fontsize=size,
        labelcolor=theme.ink,
        handlelength=3,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    axes.set_xlabel("optimizer steps")
    axes.set_ylabel(shorten(clean(study.metric), 40), parse_math=False)
    return figure


def draw_apart(
    study: Study, analysis: Analysis, courses: Courses, theme: Theme, narrow: bool
) -> Any:
    """Return a figure with small axes for each arm, all to the same scale."""
    results = in_order(study, analysis)
    # the columns that leave the fewest places empty
    choices = (2,) if narrow else (5, 4) if len(results) > 12 else (4, 3)
    columns = min(choices, key=lambda number: -len(results) % number)
    rows = -(-len(results) // columns)
    width, each = (
        (3.6, 1.25) if narrow else (9, 1.35 if columns == 5 else 1.6 if columns == 4 else 1.9)
    )
    height = 0.75 + each * rows
    figure = new_figure(theme, width, height)
    # places by hand: the layout engine takes seconds for forty axes
    figure.set_layout_engine("none")
    grid = figure.subplots(
        *(rows, columns),
        squeeze=False,
        sharex=True,
        sharey=True,
        gridspec_kw={
            "left": 0.62 / width,
            "right": 1 - 0.1 / width,
            "bottom": 0.5 / height,
            "top": 1 - 0.22 / height,
            "wspace": 0.12,
            "hspace": 0.34,
        },
    ).flatten()
    set_scales(grid[0], study, analysis, courses)
    size = 6.5 if narrow else 7.5
    for index, result in enumerate(results):
        dress(grid[index], theme, size - 0.5)
        grid[index].tick_params(labelbottom=index + columns >= len(results))
        draw_panel(grid[index], study, result, courses, theme, size)
    for axes in grid[len(results) :]:
        axes.set_axis_off()
    style = {"fontsize": size + 1, "color": theme.ink, "parse_math": False}
    figure.text(0.5, 0.1 / height, "optimizer steps", ha="center", **style)
    name = shorten(clean(study.metric), 40)
    figure.text(0.06 / width, 0.5, name, va="center", rotation=90, **style)
    return figure


def draw_panel(
    axes: Any, study: Study, result: ArmResult, courses: Courses, theme: Theme, size: float
) -> None:
    """Draw one arm against the baseline."""
    role = role_of(result)
    color = theme.roles[role]
    axes.set_title(
        SIGNS.get(role, "") + shorten(name_of(result), 22),
        fontsize=size,
        color=color if is_filled(role) else theme.ink,
        weight="bold" if is_filled(role) else "normal",
        loc="left",
        pad=3,
        parse_math=False,
    )
    draw_course(axes, courses[BASELINE], theme.ink, BASELINE, line="--", thin=True)
    course = courses[result.arm]
    draw_course(axes, course, color, "")
    failed = draw_failed(axes, runs_of(study, result.arm), color)
    low, high = axes.get_ylim()
    text = ""
    if course is None:
        text = f"{failed} failed" if failed else "no results yet"
    elif not low <= course.mean[-1] <= high:
        percent = choose_scale(study, Analysis([], None, None, None, [])).percent
        end = f"{100 * course.mean[-1]:.3g} %" if percent else f"{course.mean[-1]:.3g}"
        text = f"ends at {end}, off the axis"
    if text:
        style = {"color": theme.quiet, "fontsize": size - 0.5}
        axes.text(0.5, 0.08, text, transform=axes.transAxes, ha="center", **style)


def draw_course(
    axes: Any,
    course: Course | None,
    color: str,
    name: str,
    line: str = "-",
    mark: str = "",
    thin: bool = False,
) -> None:
    """Draw a mean and, over several seeds, a band of one standard deviation to both sides."""
    if course is None:
        axes.plot([], [], line, color=color, label=f"{name} (no finished run)")
        return
    few = len(course.steps) <= 12
    axes.plot(
        *(course.steps, course.mean),
        linestyle=line,
        marker=mark if few and mark else "o" if len(course.steps) == 1 else "",
        markersize=4,
        color=color,
        linewidth=1.1 if thin else 1.7,
        label=name,
    )
    if course.runs > 1:
        low, high = course.mean - course.spread, course.mean + course.spread
        style = {"color": color, "alpha": 0.1 if thin else 0.18, "linewidth": 0}
        axes.fill_between(course.steps, low, high, **style)


def draw_failed(axes: Any, runs: list[Run], color: str) -> int:
    """Draw failed runs as far as they came, a cross at the end; return how many there are."""
    failed = [run for run in runs if run.status != "finished"]
    for run in failed:
        points = [(p.step, p.value) for p in run.curve if math.isfinite(p.value)]
        if points:
            steps, values = zip(*points, strict=True)
            axes.plot(steps, values, ":", color=color, linewidth=1)
            axes.plot(steps[-1], values[-1], "x", color=color, markersize=5)
    return len(failed)


def set_scales(axes: Any, study: Study, analysis: Analysis, courses: Courses) -> None:
    """Choose the vertical axis for the baseline and whatever is near it, and how ticks read."""
    values: list[list[float]] = [[], []]
    for arm, course in courses.items():
        if course is not None:
            late = course.steps >= BEGINNING * course.steps[-1]
            both = np.concatenate([course.mean - course.spread, course.mean + course.spread])
            values[arm != BASELINE] += both[np.tile(late, 2)].tolist()
    axes.set_ylim(find_limits(values[0], values[1], reach=0.6))
    axes.locator_params(nbins=5)
    axes.xaxis.set_major_formatter(
        lambda step, _: f"{step / 1000:g}k" if step >= 10_000 else f"{step:g}"
    )
    if choose_scale(study, analysis).percent:
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g} %")
