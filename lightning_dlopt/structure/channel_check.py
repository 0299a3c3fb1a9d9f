"""Which groups of channels can be removed so that the rest goes on as if they were zero."""

import copy as copying
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.overrides import TorchFunctionMode

from lightning_dlopt.core.global_generators import kept_generators, seed_global
from lightning_dlopt.structure.channel_cut import Cut, apply_cut, cut_of
from lightning_dlopt.structure.channel_graph import Group, Run, eager, tensors_in
from lightning_dlopt.structure.channel_plan import named_tensors

#: Channels of a group, by a mask.
Removed = tuple[Group, Tensor]


class _NoNorms(TorchFunctionMode):
    """Leaves out what norms over channels do to their mean and variance.

    They take both over the channels that are left, and so differ from a network in which the
    others are zero; whether the rest is the same is seen without them.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if function not in (F.layer_norm, F.group_norm, F.rms_norm):
            return function(*args, **kwargs)
        values = args[0] if args else kwargs["input"]
        weight = kwargs.get("weight", args[2] if len(args) > 2 else None)
        bias = kwargs.get("bias", args[3] if len(args) > 3 else None)
        if function is F.rms_norm:
            bias = None
        if function is F.group_norm:
            shape = (-1, *[1] * (values.dim() - 2))
            weight, bias = (None if w is None else w.view(shape) for w in (weight, bias))
        values = values if weight is None else values * weight
        return values if bias is None else values + bias


def is_sound(module: nn.Module, run: Run, removed: Sequence[Removed]) -> bool:
    """Return whether a module without some channels does what it does with them at zero.

    Seen on copies with random weights, so that no initial zero hides anything.
    """
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    cut = cut_of(module, removed)
    masked = _with_random_weights(copying.deepcopy(module).eval())
    shrunk = copying.deepcopy(masked)
    _mask(masked, cut)
    outputs = []
    try:
        apply_cut(shrunk, cut.kept, cut.attributes)
        for copy in (masked, shrunk):
            with kept_generators(device), torch.no_grad(), eager(), _NoNorms():
                seed_global(0, device)
                outputs.append([tensor.detach() for tensor in tensors_in(run(copy))])
    except Exception:  # whatever a user's code says to other widths
        return False
    return len(outputs[0]) == len(outputs[1]) and all(map(_close, *outputs))


def sound_groups(
    module: nn.Module, run: Run, groups: Sequence[Group], remove: Callable[[Group], Tensor]
) -> list[Group]:
    """Return those of the groups for which :func:`is_sound` holds.

    Args:
        module: the module, which is only read.
        run: runs a copy of it.
        groups: what is looked at, all at once and, if they aren't sound, half by half.
        remove: returns some channels of a group.
    """
    if not groups or is_sound(module, run, [(group, remove(group)) for group in groups]):
        return list(groups)
    if len(groups) == 1:
        return []
    half = len(groups) // 2
    return [
        group
        for some in (groups[:half], groups[half:])
        for group in sound_groups(module, run, some, remove)
    ]


def _close(first: Tensor, second: Tensor) -> bool:
    if first.shape != second.shape:
        return False
    if not first.is_floating_point():
        return bool(torch.equal(first, second))
    tolerance = max(1e-3, 32 * torch.finfo(first.dtype).eps)
    scale = float(first.abs().max()) if first.numel() else 0.0
    return torch.allclose(first, second, rtol=0.0, atol=tolerance * scale, equal_nan=True)


@torch.no_grad()
def _mask(module: nn.Module, cut: Cut) -> None:
    tensors = named_tensors(module)
    for name, dims in cut.kept.items():
        for dim, index in dims:
            gone = torch.ones(tensors[name].shape[dim], dtype=torch.bool)
            gone[index] = False
            tensors[name].index_fill_(dim, gone.nonzero()[:, 0].to(tensors[name].device), 0)


@torch.no_grad()
def _with_random_weights(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for name, tensor in named_tensors(module).items():
        if not tensor.is_floating_point():
            continue
        values = torch.randn(tensor.shape, generator=generator)
        last = name.rpartition(".")[2]
        if last == "running_var":
            values = 1 + values.abs() / 10
        elif tensor.dim() < 2:
            values = values / 10 + (last == "weight")
        elif isinstance(tensor, nn.Parameter):
            values = values * (2 * len(tensor) / tensor.numel()) ** 0.5
        else:
            continue  # a buffer of the module's own
        tensor.copy_(values)
    return module
