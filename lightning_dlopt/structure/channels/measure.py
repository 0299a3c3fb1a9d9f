"""How many times faster or smaller a module has become."""

import time

import torch
from torch import nn

from lightning_dlopt.structure.channels.graph import Run
from lightning_dlopt.structure.summaries.multiply_adds import count_multiply_adds

_WARM_UP, _TIMES = 3, 15


class Speed:
    """Compares smaller copies of a module with the module.

    Args:
        module: the module, in evaluation.
        run: runs it.
        by: ``"multiply_adds"``, ``"parameters"`` or ``"latency"``.
    """

    def __init__(self, module: nn.Module, run: Run, by: str) -> None:
        self.module, self.run, self.by = module, run, by
        self.full = 0 if by == "latency" else self._amount(module)

    def of(self, copy: nn.Module) -> float:
        """Return by what the cost is divided in a smaller copy."""
        if self.by != "latency":
            return self.full / max(self._amount(copy), 1)
        times: list[tuple[float, float]] = []
        for turn in range(_WARM_UP + _TIMES):
            pair = self._time(self.module), self._time(copy)  # by turns, since machines waver
            if turn >= _WARM_UP:
                times.append(pair)
        full, less = (torch.tensor(times).median(0).values).tolist()
        return float(full / less)

    def _amount(self, copy: nn.Module) -> int:
        if self.by == "parameters":
            return sum(p.numel() for p in copy.parameters())
        return count_multiply_adds(_Runner(copy, self.run), torch.zeros(()))

    def _time(self, copy: nn.Module) -> float:
        _wait()
        start = time.perf_counter()
        with torch.no_grad():
            self.run(copy)
        _wait()
        return time.perf_counter() - start


class _Runner(nn.Module):
    """Runs a module whatever it is called with."""

    def __init__(self, module: nn.Module, run: Run) -> None:
        super().__init__()
        self.module, self.run = module, run

    def forward(self, _: torch.Tensor) -> object:
        """Run it."""
        return self.run(self.module)


def _wait() -> None:
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
