"""Schedulers that a module brings, moved from its optimizer to the one that replaces it."""

from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer
from torch.optim import lr_scheduler as torch_schedulers
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    LRScheduler,
    ReduceLROnPlateau,
    SequentialLR,
)

#: They keep nothing of the optimizer but what ``LRScheduler.__init__`` sets, or is set here.
_PLAIN = {
    getattr(torch_schedulers, name)
    for name in (
        "LambdaLR",
        "MultiplicativeLR",
        "StepLR",
        "MultiStepLR",
        "ConstantLR",
        "LinearLR",
        "ExponentialLR",
        "PolynomialLR",
        "CosineAnnealingLR",
        "CosineAnnealingWarmRestarts",
    )
}


class MoveError(Exception):
    """A scheduler that would go wrong on another optimizer; the message says why."""


def move_scheduler(scheduler: Any, old: Optimizer, new: Optimizer, origins: Sequence[int]) -> None:
    """Make ``scheduler`` what it would be, had the module built it over ``new``.

    A scheduler holds its optimizer, the initial rate of each param group, and the rates after the
    first step that its constructor makes. torch's own classes are put over the new optimizer by
    their public constructors, with their own arguments.

    Args:
        scheduler: as its constructor left it.
        old: the optimizer it belongs to.
        new: the optimizer that it shall belong to.
        origins: for each param group of ``new``, the group of ``old`` that it comes from.

    Raises:
        MoveError: if it isn't of a class known to allow that, or was stepped already.
    """
    _refuse_unless_fresh(scheduler, old)
    _move(scheduler, old, new, origins)


def _refuse_unless_fresh(scheduler: Any, old: Optimizer) -> None:
    kind = type(scheduler).__name__
    if type(scheduler) is ChainedScheduler:
        for part in scheduler._schedulers:
            _refuse_unless_fresh(part, old)
        return
    if type(scheduler) not in {*_PLAIN, SequentialLR, ReduceLROnPlateau}:
        sets = {"OneCycleLR", "CyclicLR"}
        raise MoveError(
            f"{kind} sets rates of its own"
            if kind in sets
            else f"{kind} is not one of torch's schedulers that can change their optimizer"
        )
    if scheduler.optimizer is not old:
        raise MoveError(f"{kind} belongs to another optimizer than configure_optimizers returned")
    if scheduler.last_epoch != 0:
        raise MoveError(f"{kind} was stepped before")


def _move(scheduler: Any, old: Optimizer, new: Optimizer, origins: Sequence[int]) -> None:
    if isinstance(scheduler, ChainedScheduler | SequentialLR):
        parts: list[Any] = list(scheduler._schedulers)
        for part in parts:
            if type(part) not in {*_PLAIN, SequentialLR, ChainedScheduler}:
                raise MoveError(f"{type(scheduler).__name__} holds {type(part).__name__}")
            _move(part, old, new, origins)
        if isinstance(scheduler, SequentialLR):
            SequentialLR.__init__(scheduler, new, parts, scheduler._milestones)
        else:
            ChainedScheduler.__init__(scheduler, parts, new)
    elif isinstance(scheduler, ReduceLROnPlateau):
        one_for_all = getattr(scheduler, "default_min_lr", None)
        by_group = [scheduler.min_lrs[origin] for origin in origins]
        ReduceLROnPlateau.__init__(
            scheduler,
            new,
            mode=scheduler.mode,
            factor=scheduler.factor,
            patience=scheduler.patience,
            threshold=scheduler.threshold,
            threshold_mode=scheduler.threshold_mode,
            cooldown=scheduler.cooldown,
            min_lr=by_group if one_for_all is None else one_for_all,
            eps=scheduler.eps,
        )
    else:
        if hasattr(scheduler, "lr_lambdas"):
            scheduler.lr_lambdas = [scheduler.lr_lambdas[origin] for origin in origins]
        LRScheduler.__init__(scheduler, new)
