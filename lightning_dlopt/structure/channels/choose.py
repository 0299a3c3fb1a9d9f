"""Removing channels from any module, so that it needs fewer multiply-adds or parameters."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from lightning_dlopt.core.checks import check_choice, check_integer, check_number
from lightning_dlopt.core.errors import ArgumentError, TechniqueError
from lightning_dlopt.core.global_generators import kept_generators
from lightning_dlopt.core.named_modules import listing
from lightning_dlopt.structure.channels.check import Trial
from lightning_dlopt.structure.channels.cost import Cost, multiply_add_factors, parameter_factors
from lightning_dlopt.structure.channels.cut import Kept, apply_cut, cut_of
from lightning_dlopt.structure.channels.graph import Group, Run, find_groups
from lightning_dlopt.structure.channels.kept import left_out
from lightning_dlopt.structure.channels.measure import Speed
from lightning_dlopt.structure.channels.module_copy import copy_of
from lightning_dlopt.structure.channels.search import TOLERANCE, Ladder, Search, importances, ladder
from lightning_dlopt.structure.channels.widths import Plan, plan_between, structure_of
from lightning_dlopt.structure.summaries.example import Example, call

_OWNER = "choose_channels"
_ROUNDS = 8
_UNSOUND = "without some of its channels the module fails or does something else"


@dataclass(frozen=True)
class Shrinkage:
    """What is removed from a module, and what is left.

    Attributes:
        plan: the widths before and after, as plain data; {} if nothing is removed.
        kept: for each tensor that shrinks, by its name, the dimensions and the indices kept.
        speed_up: by what the cost is divided.
        stayed: layers whose channels can't be removed, and why.
    """

    plan: Plan
    kept: Kept
    speed_up: float = 1.0
    stayed: dict[str, str] = field(default_factory=dict)


def choose_channels(
    module: nn.Module,
    run: Run,
    *,
    speed_up: float = 2.0,
    by: Literal["multiply_adds", "parameters", "latency"] = "multiply_adds",
    importance: Literal["magnitude", "taylor"] = "magnitude",
    scope: Literal["layer", "global"] = "layer",
    target: str | Sequence[str] = "all",
    keep: Sequence[str] = (),
    align: int = 8,
    max_ratio: float = 0.9,
) -> Shrinkage:
    """Return which channels to remove from a module so that it costs ``speed_up`` times less.

    Args:
        module: stays exactly as it is; all work is done on copies.
        run: runs a copy of the module forward on an example, and returns what comes out.
        speed_up: by how much the cost is divided, at least 1; it is met within 5 %.
        by: the cost.
        importance: ``"magnitude"``, the L2 norm of a channel's weights, or ``"taylor"``, how much
            the loss would change without it, from the gradients that the parameters have.
        scope: ``"layer"``, every layer loses about the same share of its channels, or
            ``"global"``, those go first that matter least in their layer for what they save.
        target: ``"all"``, or name patterns of layers whose output channels may be removed.
        keep: name patterns of layers that stay as they are.
        align: what is left of a layer that loses anything is a multiple of it, at least 1.
        max_ratio: the largest share of a layer's channels that may go, in (0, 1).

    Raises:
        ArgumentError: if an argument is outside its range, a pattern matches nothing, or the
            speed-up can't be reached.
        TechniqueError: if the module can't be traced, or Torch-Pruning isn't installed.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 2))
        >>> chosen = choose_channels(net, lambda copied: copied(torch.zeros(1, 4)))
        >>> chosen.plan["parts"]
        {'0': {'out_features': [64, 32]}, '2': {'in_features': [64, 32]}}
    """
    check_number(_OWNER, "speed_up", speed_up, "[1, inf)")
    check_choice(_OWNER, "by", by, ("multiply_adds", "parameters", "latency"))
    check_choice(_OWNER, "importance", importance, ("magnitude", "taylor"))
    check_choice(_OWNER, "scope", scope, ("layer", "global"))
    check_integer(_OWNER, "align", align, "[1, inf)")
    check_number(_OWNER, "max_ratio", max_ratio, "(0, 1)")
    if speed_up == 1:
        return Shrinkage({}, {})
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    with kept_generators(device):
        groups = find_groups(_copy(module), run)
        stayed = left_out(module, groups, target, keep)
        ladders = []
        for group in groups:
            if group.name not in stayed:
                scores = importances(module, group, importance)
                steps = ladder(group, scores, align, max_ratio)
                if len(steps.steps) > 1:
                    ladders.append(steps)
                else:
                    stayed[group.name] = f"of {len(group.units)} channels none can go"
        trial = Trial(module, run)
        ladders = _sound(trial, ladders, align, stayed)
        return _search(module, run, trial, ladders, speed_up, by, scope, stayed)


def shrink_(module: nn.Module, shrinkage: Shrinkage) -> dict[nn.Parameter, nn.Parameter]:
    """Remove from a module what :func:`choose_channels` chose, in place.

    Args:
        module: the one that was chosen for, or one of the same structure.
        shrinkage: what is removed.

    Returns:
        Each parameter that was replaced, and the one that has its place now; gradients and marks
        are taken over.
    """
    attributes = {
        name: {key: now for key, (_, now) in values.items()}
        for name, values in shrinkage.plan.get("parts", {}).items()
    }
    return apply_cut(module, shrinkage.kept, attributes)


def prune_channels(
    module: nn.Module,
    example: Example,
    *,
    speed_up: float = 2.0,
    by: Literal["multiply_adds", "parameters", "latency"] = "multiply_adds",
    importance: Literal["magnitude", "taylor"] = "magnitude",
    scope: Literal["layer", "global"] = "layer",
    target: str | Sequence[str] = "all",
    keep: Sequence[str] = (),
    align: int = 8,
    max_ratio: float = 0.9,
) -> Shrinkage:
    """Remove channels from a module, in place, so that it costs ``speed_up`` times less.

    The layers really get narrower: there are fewer parameters, the file is smaller and a step is
    faster. Channels hang together (what one layer gives, others take, add or normalize), and go
    from all of them; the module's inputs and outputs stay. What goes is what weighs least, and
    more of it where it costs much. Training is needed afterwards.

    What hangs together is found by Torch-Pruning: G. Fang, X. Ma, M. Song, M. B. Mi, X. Wang,
    DepGraph: Towards Any Structural Pruning (2023, arXiv:2301.12900). The importance by gradients
    is that of P. Molchanov, A. Mallya, S. Tyree, I. Frosio, J. Kautz, Importance Estimation for
    Neural Network Pruning (2019, arXiv:1906.10771). How much each layer loses is our own search;
    recurrent layers are followed, too; and a group of channels is only touched if the module
    without them does what it does with them at zero, which is tried on a copy. Only layer, group
    and RMS norms differ from that: they take their statistics over the channels that are left.

    Args:
        module: the module that is changed.
        example: its argument, a tuple of its arguments, or a dict of its keyword arguments.
        speed_up: by how much the cost is divided, at least 1; it is met within 5 %.
        by: the cost: ``"multiply_adds"``, ``"parameters"``, or the measured ``"latency"`` on the
            example.
        importance: ``"magnitude"``, the L2 norm of a channel's weights, or ``"taylor"``, how much
            the loss would change without it, from the gradients that the parameters have.
        scope: ``"layer"``, every layer loses about the same share of its channels, or
            ``"global"``, those go first that matter least in their layer for what they save.
        target: ``"all"``, or name patterns of layers whose output channels may be removed.
        keep: name patterns of layers that stay as they are.
        align: what is left of a layer that loses anything is a multiple of it, at least 1.
        max_ratio: the largest share of a layer's channels that may go, in (0, 1).

    Raises:
        ArgumentError: if an argument is outside its range, a pattern matches nothing, or the
            speed-up can't be reached.
        TechniqueError: if the module can't be traced, or Torch-Pruning isn't installed.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 2))
        >>> prune_channels(net, torch.zeros(1, 4), speed_up=2).speed_up
        2.0
        >>> net[0].weight.shape
        torch.Size([32, 4])
    """
    chosen = choose_channels(
        module,
        lambda copy: call(copy, example, "prune_channels"),
        speed_up=speed_up,
        by=by,
        importance=importance,
        scope=scope,
        target=target,
        keep=keep,
        align=align,
        max_ratio=max_ratio,
    )
    shrink_(module, chosen)
    return chosen


def _copy(module: nn.Module) -> nn.Module:
    try:
        return copy_of(module).eval()
    except Exception as error:
        raise TechniqueError(
            f"{type(module).__name__} can't be copied, which choosing channels needs: {error}"
        ) from error


def _sound(trial: Trial, ladders: list[Ladder], align: int, stayed: dict[str, str]) -> list[Ladder]:
    generator = torch.Generator().manual_seed(0)
    own = {each.group.name: each for each in ladders}

    def some(group: Group) -> torch.Tensor:
        scores = torch.rand(len(group.units), generator=generator, dtype=torch.float64)
        # as many as at a step, but others, since for the least important it could hold by chance
        steps = ladder(group, scores, align, 1 - 1e-9)
        return (steps if len(steps.steps) > 1 else own[group.name]).mask(1)

    sound = trial.sound_groups([each.group for each in ladders], some)
    names = {group.name for group in sound}
    for each in ladders:
        if each.group.name not in names:
            stayed[each.group.name] = _UNSOUND
    return [each for each in ladders if each.group.name in names]


def _search(
    module: nn.Module,
    run: Run,
    trial: Trial,
    ladders: list[Ladder],
    speed_up: float,
    by: str,
    scope: str,
    stayed: dict[str, str],
) -> Shrinkage:
    groups = [each.group for each in ladders]
    if by == "parameters":
        cost = Cost(module, groups, parameter_factors(module), {})
    else:
        cost = Cost(module, groups, *multiply_add_factors(_copy(module), run))
    speed, search = Speed(_copy(module), run, by), Search(cost, ladders, scope)

    def reached() -> tuple[float, Shrinkage]:
        cut, copy = cut_of(module, search.masks()), _copy(module)
        apply_cut(copy, cut.kept, cut.attributes)
        factor = speed.of(copy)
        plan = plan_between(structure_of(module), structure_of(copy))
        return factor, Shrinkage(plan, cut.kept, factor, stayed)

    search.to_least()
    largest, _ = reached()
    reasons = listing([f"{name or 'the module'} ({why})" for name, why in stayed.items()])
    others = f"; these stay as they are: {reasons}" if reasons else ""
    if largest < speed_up * (1 - TOLERANCE):
        raise ArgumentError(
            f"{_OWNER}: speed_up={speed_up:g} can't be reached without removing whole layers; the "
            f"largest is {largest:.3g}{others}"
        )
    found: list[tuple[float, Shrinkage, list[tuple[Group, torch.Tensor]]]] = []
    low, aim, high = 0.0, search.full / speed_up, math.inf
    for _ in range(_ROUNDS):
        search.to(aim)
        factor, chosen = reached()
        found.append((factor, chosen, search.masks()))
        if abs(factor / speed_up - 1) <= TOLERANCE:
            break
        low, high = (aim, high) if factor > speed_up else (low, aim)
        aim *= factor / speed_up
        if not low < aim < high:
            aim = math.sqrt(low * high)
    factor, chosen, masks = min(found, key=lambda each: abs(math.log(each[0] / speed_up)))
    if abs(factor / speed_up - 1) > TOLERANCE and by != "latency":
        nearest = ", ".join(f"{value:.3g}" for value in sorted({each[0] for each in found}))
        raise ArgumentError(
            f"{_OWNER}: speed_up={speed_up:g} can't be met within 5 % by layers whose widths are "
            f"multiples of align; it gives {nearest}: set speed_up to one of these, or a smaller "
            f"align{others}"
        )
    if not trial.is_sound(masks):  # it was for the channels that were tried first
        gone = {group.name: mask for group, mask in masks}
        sound = trial.sound_groups([group for group, _ in masks], lambda g: gone[g.name])
        unsound = gone.keys() - {group.name for group in sound}
        stayed.update(dict.fromkeys(unsound, _UNSOUND))
        ladders = [each for each in ladders if each.group.name not in unsound]
        return _search(module, run, trial, ladders, speed_up, by, scope, stayed)
    return chosen
