"""How long calls take, measured side by side."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

#: Each call runs this often, or until all of them together have taken that many seconds.
ROUNDS, SECONDS = 50, 3.0
_LEAST_ROUNDS, _WARM_UP = 5, 2


class Latency(NamedTuple):
    """Milliseconds of a call: the median, and what one call in ten is below and above."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g} to {self.high:.3g})"


def measure_latency(
    calls: Mapping[str, Callable[[], Any]],
    device: torch.device | str = "cpu",
    *,
    rounds: int = ROUNDS,
    seconds: float = SECONDS,
) -> dict[str, Latency]:
    """Return how long each call takes.

    The calls take turns, so that whatever else the machine does falls on all of them, and each
    round begins with another one; the first rounds aren't counted.

    Args:
        calls: what is called, by name.
        device: is waited for after each call.
        rounds: how often each is called.
        seconds: after which there are no more rounds, but for the first few.

    Example:
        >>> sorted(measure_latency({"a": lambda: None, "b": lambda: None}, rounds=3))
        ['a', 'b']
    """
    device = torch.device(device)
    names = list(calls)
    taken: dict[str, list[float]] = {name: [] for name in names}
    began = time.perf_counter()
    for index in range(_WARM_UP + rounds):
        if index >= _WARM_UP + _LEAST_ROUNDS and time.perf_counter() - began > seconds:
            break
        turn = index % len(names) if names else 0
        for name in names[turn:] + names[:turn]:
            _wait_for(device)
            start = time.perf_counter()
            calls[name]()
            _wait_for(device)
            if index >= _WARM_UP:
                taken[name].append(1000 * (time.perf_counter() - start))
    return {name: _summary(times) for name, times in taken.items()}


def _wait_for(device: torch.device) -> None:
    if device.type not in ("cpu", "meta"):
        torch.get_device_module(device).synchronize()


def _summary(times: list[float]) -> Latency:
    if len(times) < 2:
        return Latency(times[0], times[0], times[0])
    deciles = statistics.quantiles(times, n=10, method="inclusive")
    return Latency(statistics.median(times), deciles[0], deciles[-1])
