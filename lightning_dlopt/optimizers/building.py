"""A new optimizer over the parameters of an old one, group by group."""

import math
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.nn.parameter import UninitializedParameter
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lightning_dlopt.core.errors import UserError
from lightning_dlopt.optimizers.given import MakesOptimizer, can_fuse, fill_momentum_buffers, sample
from lightning_dlopt.optimizers.groups import NoDecay, hidden_matrices, layer_scales, undecayed


class BuildError(Exception):
    """The optimizer can't be made; the message says why."""


@dataclass
class Bucket:
    """Parameters that make up one group of the new optimizer.

    Attributes:
        origin: the group of the old optimizer that they come from.
        scale: what the new optimizer's rate is multiplied by.
        options: what else the group is given.
        parameters: in the order they had.
    """

    origin: int
    scale: float
    options: dict[str, Any] = field(default_factory=dict)
    parameters: list[nn.Parameter] = field(default_factory=list)


def default_options(make: MakesOptimizer) -> dict[str, Any]:
    """Return the options that the optimizer gives a group which names none.

    Raises:
        BuildError: if ``make`` fails, or makes something else.
    """
    try:
        made = sample(make)
    except Exception as error:
        raise BuildError(f"optimizer can't be built: {error}") from error
    if not isinstance(made, Optimizer):
        raise BuildError(f"optimizer made {made!r}, which is no torch optimizer")
    return made.defaults


def _rates(optimizer: Optimizer) -> list[float]:
    """Return each group's rate before any schedule, as a share of the highest."""
    rates = [float(g.get("initial_lr", g.get("lr", 1.0))) for g in optimizer.param_groups]
    highest = max(rates)
    return [rate / highest if highest > 0 and math.isfinite(highest) else 1.0 for rate in rates]


def sort_parameters(
    module: nn.Module,
    old: Optimizer,
    defaults: dict[str, Any],
    no_decay: NoDecay,
    layer_decay: float | None,
) -> list[Bucket]:
    """Sort the parameters of ``old`` by group, weight decay, layer, and kind of step.

    Raises:
        ArgumentError: if a pattern of ``no_decay`` matches nothing.
        BuildError: if the module has lazy layers, whose parameters have no shape yet.
    """
    if any(isinstance(parameter, UninitializedParameter) for parameter in module.parameters()):
        raise BuildError("the module has lazy layers: call it once before training")
    held = {id(parameter) for group in old.param_groups for parameter in group["params"]}
    without, scales = undecayed(module, no_decay), layer_scales(module, layer_decay, held)
    decays, parts = bool(defaults.get("weight_decay")), "use_muon" in defaults
    hidden = hidden_matrices(module, held) if parts else set()
    rates, own_decays = _rates(old), [bool(g.get("weight_decay")) for g in old.param_groups]
    buckets: dict[tuple[Any, ...], Bucket] = {}
    for origin, group in enumerate(old.param_groups):
        kept_out = any(own_decays) and not own_decays[origin]
        for parameter in group["params"]:
            key = id(parameter)
            bucket = Bucket(origin, rates[origin] * scales.get(key, 1.0))
            if decays and (kept_out or key in without):
                bucket.options["weight_decay"] = 0.0
            if parts:
                bucket.options["use_muon"] = key in hidden
            place = (origin, bucket.scale, *bucket.options.items())
            buckets.setdefault(place, bucket).parameters.append(parameter)
    return list(buckets.values())


def build(
    make: MakesOptimizer, buckets: Sequence[Bucket], sparse: Container[int] = ()
) -> Optimizer:
    """Return the optimizer that ``make`` builds over ``buckets``, fused where torch can.

    Args:
        make: builds an optimizer from param groups.
        buckets: one for each group.
        sparse: ids of parameters whose gradients are sparse, which no fused form takes.

    Raises:
        BuildError: if ``make`` fails on param groups, or sorts the parameters anew.
    """
    everything = [parameter for bucket in buckets for parameter in bucket.parameters]
    groups: list[Any] = [{"params": b.parameters, **b.options} for b in buckets]
    if can_fuse(make, everything):
        for group in groups:
            if not any(id(parameter) in sparse for parameter in group["params"]):
                group["fused"] = True
    if len(groups) == 1 and len(groups[0]) == 1:
        groups = everything  # as a module without groups hands them over
    try:
        new = make(groups)
    except UserError:
        raise
    except Exception as error:
        raise BuildError(
            f"optimizer can't be built from these parameters: {error}"
            + (
                ""
                if groups is everything
                else " (a function is given param groups, which it must "
                "hand on; no_decay=None makes fewer of them)"
            )
        ) from error
    made = [[id(p) for p in group["params"]] for group in new.param_groups]
    if made != [[id(p) for p in bucket.parameters] for bucket in buckets]:
        raise BuildError(
            "optimizer doesn't keep the parameters in the groups it is given: it must hand them "
            "to the optimizer's class as they come"
        )
    for group, bucket in zip(new.param_groups, buckets, strict=True):
        if bucket.scale != 1.0:
            if "lr" not in group:
                raise BuildError("the groups' rates differ, and the optimizer has no 'lr'")
            group["lr"] = group["lr"] * bucket.scale
    if isinstance(new, SGD):
        new.register_step_pre_hook(fill_momentum_buffers)
    return new


def leaves(configured: Any) -> Iterator[Any]:
    """Yield the optimizers and schedulers in what ``configure_optimizers`` returned."""
    if isinstance(configured, Optimizer | LRScheduler):
        yield configured
    elif isinstance(configured, Mapping):
        for key in ("optimizer", "lr_scheduler", "scheduler"):
            if key in configured:
                yield from leaves(configured[key])
    elif isinstance(configured, Sequence):
        for entry in configured:
            yield from leaves(entry)
    elif configured is not None:
        yield configured  # a scheduler of another make, which is refused later


def with_optimizer(configured: Any, new: Optimizer) -> Any:
    """Return what ``configure_optimizers`` returned, with ``new`` in the optimizer's place."""
    if isinstance(configured, Optimizer):
        return new
    if isinstance(configured, Mapping):
        return {**configured, "optimizer": new} if "optimizer" in configured else configured
    if isinstance(configured, list | tuple):
        return type(configured)(with_optimizer(entry, new) for entry in configured)
    return configured
