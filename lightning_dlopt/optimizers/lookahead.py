"""Lookahead: slow weights that follow the optimizer's, and call it back."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from lightning_dlopt.core.checks import check_integer, check_number
from lightning_dlopt.core.errors import CheckpointError
from lightning_dlopt.core.gradients import was_skipped
from lightning_dlopt.core.replaced import Replaced
from lightning_dlopt.core.resume import SavedTechnique
from lightning_dlopt.core.strategies import strategy_kind
from lightning_dlopt.core.technique import Technique


@torch.no_grad()
def look_ahead_(slow: Sequence[Tensor], fast: Sequence[Tensor], alpha: float = 0.5) -> None:
    """Move the slow weights towards the fast ones, and the fast ones back to them, in place.

    Args:
        slow: tensors of any shapes.
        fast: one for each, of the same shape, dtype and device.
        alpha: how much of the way the slow weights go, in (0, 1].

    Example:
        >>> slow, fast = torch.tensor([0.0]), torch.tensor([4.0])
        >>> look_ahead_([slow], [fast], alpha=0.25)
        >>> slow, fast
        (tensor([1.]), tensor([1.]))
    """
    if slow:
        torch._foreach_lerp_(list(slow), list(fast), alpha)
        torch._foreach_copy_(list(fast), list(slow))


class Lookahead(Technique):
    """Every ``k`` optimizer steps, go back to a point on the way from where they began.

    The optimizer explores as it is; after ``k`` steps the slow weights become ``slow + alpha *
    (weights - slow)``, and the weights become the slow ones. This makes steps steadier, and the
    optimizer's rate less delicate, at the cost of one more copy of the weights.

    Source: M. R. Zhang, J. Lucas, G. Hinton, J. Ba, Lookahead Optimizer: k steps forward, 1 step
    back, 2019, arXiv:1907.08610. The optimizer's own state, such as its momentum, is left as it
    is (the paper's "maintain"). Validation, and the end of training, have the weights as they are
    then, also between two returns, where the paper takes the slow ones.

    With several optimizers each counts its own steps. Steps that 16-bit training skips, because
    their gradients overflowed, don't count, nor do steps without any gradient.

    When:
        The rate is high or little tuned, and the steps are restless.

    When not:
        A schedule that falls to 0 calms them anyway; and in short runs that stop far from the goal,
        ``alpha`` below 1 holds back.

    Args:
        k: after how many optimizer steps the weights return, at least 1.
        alpha: how much of the way the slow weights go, in (0, 1]; 1 does nothing.

    Raises:
        ArgumentError: if a value is outside its range.
        ArgumentTypeError: if an argument has another type.
        TechniqueError: before the first step, if the strategy shards the weights, or lazy layers
            have none yet.

    The checkpoint keeps the arguments, the slow weights and the counts of steps. Resumed from one
    that hasn't them, it begins at the checkpoint's weights.

    Example:
        >>> Lookahead(k=10)
        Lookahead(k=10)
    """

    exclusive: ClassVar[str | None] = "lookahead"

    def __init__(self, k: int = 5, alpha: float = 0.5) -> None:
        self.k = check_integer(self, "k", k, "[1, inf)")
        self.alpha = check_number(self, "alpha", alpha, "(0, 1]")
        self._forget()

    def _forget(self) -> None:
        self._slow: list[dict[Tensor, Tensor]] = []
        self._counts: list[int] = []
        self._hooks: list[RemovableHandle] = []
        self._state: dict[str, Any] = {"slow": [], "counts": []}

    # ---- what Lightning calls ----

    def prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what it can't work with."""
        self._forget()
        if strategy_kind(trainer) not in ("single", "replicated"):
            raise self.refuse(
                f"{type(trainer.strategy).__name__} shards the weights, and shards of slow weights "
                "can't be saved: use strategy='ddp' or a single device"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the weights as the slow ones, or those of the checkpoint, and watch the steps."""
        if self.alpha == 1:
            self.warn_no_effect("alpha is 1, so that the slow weights are the weights")
            return
        saved, counts = self._state["slow"], self._state["counts"]
        self._counts = counts or [0] * len(trainer.optimizers)
        if len(self._counts) != len(trainer.optimizers):
            raise self._misfit(f"{len(counts)} optimizers, and this run {len(trainer.optimizers)}")
        for index, optimizer in enumerate(trainer.optimizers):
            parameters = _parameters(optimizer)
            if any(is_lazy(parameter) for parameter in parameters):
                raise self.refuse(
                    "lazy layers have no weights yet that could be its slow ones: run a batch "
                    "through the module before training"
                )
            slow: Sequence[Tensor] = saved[index] if saved else parameters
            if [s.shape for s in slow] != [p.shape for p in parameters]:
                raise self._misfit("slow weights of other shapes than the optimizer's parameters")
            copies = [s.detach().to(p, copy=True) for s, p in zip(slow, parameters, strict=True)]
            self._slow.append(dict(zip(parameters, copies, strict=True)))
            self._hooks.append(optimizer.register_step_post_hook(self._after_step(index)))
        self._state = {"slow": [], "counts": []}

    def let_go(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop watching; a checkpoint may be saved yet."""
        for hook in self._hooks:
            hook.remove()
        state = self.extra_state()
        self._forget()
        state["slow"] = [[weights.cpu() for weights in one] for one in state["slow"]]
        self._state = state

    def parameters_replaced(
        self, trainer: Trainer, pl_module: LightningModule, replaced: Replaced
    ) -> None:
        """Cut the slow weights, too."""
        self._slow = [
            {replaced.now(p): replaced.cut(p, weights) for p, weights in slow.items()}
            for slow in self._slow
        ]

    def extra_state(self) -> dict[str, Any]:
        """Keep the slow weights of each optimizer, in the order of its parameters."""
        if not self._slow:
            return self._state
        slow = [list(weights.values()) for weights in self._slow]
        return {"slow": slow, "counts": list(self._counts)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take up the slow weights and the counts."""
        self._state = {name: list(state_dict[name]) for name in ("slow", "counts")}

    def check_resume(self, saved: list[SavedTechnique]) -> None:
        """Refuse a checkpoint whose slow weights belong to other arguments."""
        for other in saved:
            if other.exclusive == self.exclusive and other.name != self.state_key:
                saved_with = f"the checkpoint was saved with {other.name}"
                raise CheckpointError(f"{saved_with}, but this run has {self!r}: resume with that")

    def __getstate__(self) -> dict[str, Any]:
        # a copy of a module in mid-training is no part of the run
        return {**super().__getstate__(), **vars(Lookahead(self.k, self.alpha))}

    # ---- the steps ----

    def _after_step(self, index: int) -> Callable[..., None]:
        def count(optimizer: Optimizer, *_: Any) -> None:
            parameters = _parameters(optimizer)
            if was_skipped(optimizer) or all(p.grad is None for p in parameters):
                return
            self._counts[index] += 1
            if self._counts[index] % self.k == 0:
                slow = [self._slow_of(p, index) for p in parameters]
                look_ahead_(slow, parameters, self.alpha)
                self._slow[index] = dict(zip(parameters, slow, strict=True))

        return count

    def _slow_of(self, parameter: Tensor, index: int) -> Tensor:
        slow = self._slow[index].get(parameter)
        if slow is None or slow.shape != parameter.shape:
            # it came to the optimizer, or was cut, since the last time: it begins here
            return parameter.detach().clone()
        return slow

    def _misfit(self, what: str) -> CheckpointError:
        return CheckpointError(f"{self!r}: the checkpoint has {what}")


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return list(dict.fromkeys(p for group in optimizer.param_groups for p in group["params"]))
