"""The torch scheduler behind every schedule callback."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lightning_dlopt.schedules.curves import constant

#: From the optimizer step to the factor of the initial rate.
Curve: TypeAlias = Callable[[int], float]


#: The (initial, final) rates a finished run left in an optimizer that its module keeps.
_LEFT: WeakKeyDictionary[Optimizer, list[tuple[Any, Any]]] = WeakKeyDictionary()


def _copied(rate: float | torch.Tensor) -> float | torch.Tensor:
    # a rate may be a tensor, which schedulers and optimizers change in place
    return rate.clone() if isinstance(rate, torch.Tensor) else rate


class FactorLR(LRScheduler):
    """Like torch's ``LambdaLR``, but its curve is given later, and its state is plain.

    Lightning restores schedulers before it knows how long the run is; until :meth:`follow`, the
    rates are the initial ones.

    Args:
        optimizer: the optimizer whose rates are set.
        taken_over: another scheduler has set rates here; the initial ones are what it noted.
        manual: the module steps its optimizers by itself; only :meth:`advance` moves the schedule
            then, since modules step whatever ``self.lr_schedulers()`` gives them.
    """

    def __init__(
        self, optimizer: Optimizer, *, taken_over: bool = False, manual: bool = False
    ) -> None:
        for group, (initial, final) in zip(
            optimizer.param_groups, _LEFT.pop(optimizer, []), strict=False
        ):
            if group["lr"] == final:  # nobody has set another rate since
                group["lr"] = _copied(initial)
        for group in optimizer.param_groups:
            if not (taken_over and "initial_lr" in group):
                # what torch would keep may be older than a learning-rate finder's suggestion
                group["initial_lr"] = _copied(group["lr"])
            group["lr"] = _copied(group["initial_lr"])
        self.curve: Curve = constant
        self.manual = False  # torch makes the first step in its constructor
        super().__init__(optimizer)
        self.manual = manual

    def step(self, epoch: int | None = None) -> None:
        """Go on by one step, also where a module's own ``lr_scheduler_step`` names an epoch."""
        if not self.manual:
            super().step()

    def advance(self) -> None:
        """Go on by one batch, under manual optimization."""
        self.last_epoch += 1
        self.refresh()

    def leave(self) -> None:
        """Note the rates at the end of a run, so that the next one doesn't start from them."""
        _LEFT[self.optimizer] = [
            (_copied(base), _copied(group["lr"]))
            for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=False)
        ]

    def get_lr(self) -> list[float | torch.Tensor]:
        """Return each group's initial rate times the curve's factor."""
        # fine-tuning adds groups in mid-run; the rate that one comes with is its initial one
        for group in self.optimizer.param_groups[len(self.base_lrs) :]:
            group.setdefault("initial_lr", _copied(group["lr"]))
            self.base_lrs.append(_copied(group["initial_lr"]))
        factor = self.curve(self.last_epoch)
        return [base * factor for base in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """Return the position and the initial rates."""
        return {"factor_lr_step": self.last_epoch, "base_lrs": self.base_lrs}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over position and initial rates, unless the state is another kind of scheduler's."""
        if "factor_lr_step" in state_dict:
            self.last_epoch = state_dict["factor_lr_step"]
            self.base_lrs = list(state_dict["base_lrs"])

    def follow(self, curve: Curve, step: int) -> None:
        """Take up ``curve`` at ``step``."""
        self.curve = curve
        self.last_epoch = step
        self.refresh()

    def refresh(self) -> None:
        """Set the rates to those of the current step."""
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        self._last_lr = [_copied(group["lr"]) for group in self.optimizer.param_groups]
