"""Interleaved measurements: both sides in one run, the ratio taken pair by pair."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence

import lightning
import torch
import torchvision


def interleaved(sides: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Call every side in turn, ``rounds`` times, after one call of each that doesn't count."""
    for measure in sides.values():
        measure()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, measure in sides.items():
            times[name].append(measure())
    return times


def repeated(action: Callable[[], object], repeats: int) -> Callable[[], float]:
    """Return a measurement of the seconds that an action takes, the mean of several in a row."""

    def measure() -> float:
        begin = time.perf_counter()
        for _ in range(repeats):
            action()
        return (time.perf_counter() - begin) / repeats

    return measure


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Return ``median (least - most)``."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} - {high:.{digits}f})"


def table(times: dict[str, list[float]], base: str, unit: str, scale: float) -> str:
    """Return a Markdown table of times, and of how often ``base`` takes each one's time."""
    rows = [f"| side | {unit} | times faster than *{base}* |", "| --- | --- | --- |"]
    for name, values in times.items():
        ratios = [slow / fast for slow, fast in zip(times[base], values, strict=True)]
        rows.append(f"| {name} | {spread([v * scale for v in values], 3)} | {spread(ratios)} |")
    return "\n".join(rows)


def machine() -> str:
    """Return one line about where this was measured."""
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"torchvision {torchvision.__version__}, lightning {lightning.__version__}"
    )
