"""Which groups of channels can be removed so that the rest goes on as if they were zero."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.overrides import TorchFunctionMode

from lightning_dlopt.core.global_generators import kept_generators, seed_global
from lightning_dlopt.core.tensors import tensors_in
from lightning_dlopt.structure.channels.cut import Cut, apply_cut, cut_of
from lightning_dlopt.structure.channels.eager import eager
from lightning_dlopt.structure.channels.graph import Group, Run
from lightning_dlopt.structure.channels.module_copy import copy_of
from lightning_dlopt.structure.channels.widths import named_tensors, put_tensors, set_attributes
from lightning_dlopt.structure.replacing import part_names

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


class Trial:
    """Tries on a copy with random weights what a module does without some channels.

    Args:
        module: the module, which is only read.
        run: runs a copy of it.
    """

    def __init__(self, module: nn.Module, run: Run) -> None:
        # random, so that no initial zero hides anything
        self.module = _with_random_weights(copy_of(module).eval())
        self._run = run
        self._device = next((p.device for p in module.parameters()), torch.device("cpu"))

    def is_sound(self, removed: Sequence[Removed]) -> bool:
        """Return whether it does what it does with these channels at zero."""
        tensors = {name: t.detach() for name, t in named_tensors(self.module).items()}
        numbers: dict[str, dict[str, Any]] = {}
        cut = Cut()
        try:
            cut = cut_of(self.module, removed)
            parts = part_names(self.module)
            for name, values in cut.attributes.items():
                numbers[name] = {key: vars(parts[name])[key] for key in values}
            masked = self._masked_outputs(cut)
            apply_cut(self.module, cut.kept, cut.attributes)
            return _all_close(masked, self._outputs())
        except Exception:  # whatever a user's code says to other widths
            return False
        finally:
            now = named_tensors(self.module)
            put_tensors(self.module, {id(now[name]): tensors[name] for name in cut.kept})
            for name, values in numbers.items():
                set_attributes(parts[name], values)

    def sound_groups(
        self, groups: Sequence[Group], remove: Callable[[Group], Tensor]
    ) -> list[Group]:
        """Return those of the groups for which :meth:`is_sound` holds, or is made to.

        Args:
            groups: what is looked at, all at once and, if they aren't sound, half by half.
            remove: returns some channels of a group.
        """
        if not groups or self.is_sound([(group, remove(group)) for group in groups]):
            return list(groups)
        if len(groups) == 1:
            return list(groups) if self._follow(groups[0], remove) else []
        half = len(groups) // 2
        parts = groups[:half], groups[half:]
        sound = [group for some in parts for group in self.sound_groups(some, remove)]
        if self.is_sound([(group, remove(group)) for group in sound]):
            return sound
        together: list[Removed] = []  # some aren't with each other
        for group in sound:
            if self.is_sound([*together, (group, remove(group))]):
                together.append((group, remove(group)))
        return [group for group, _ in together]

    def _follow(self, group: Group, remove: Callable[[Group], Tensor]) -> bool:
        """Find attributes of the module's own code that have to say the group's width."""
        found = [
            (name, key)
            for name, part in part_names(self.module).items()
            if not type(part).__module__.startswith("torch.nn.")
            for key, value in vars(part).items()
            if type(value) is int and value == len(group.units)
        ]
        known = group.follow
        for attributes in [found, *([each] for each in found)] if found and not known else []:
            group.follow = attributes
            if self.is_sound([(group, remove(group))]):
                return True
        group.follow = known
        return False

    @torch.no_grad()
    def _masked_outputs(self, cut: Cut) -> list[Tensor]:
        tensors = named_tensors(self.module)
        before = {name: tensors[name].clone() for name in cut.kept}
        for name, dims in cut.kept.items():
            for dim, index in dims:
                gone = torch.ones(tensors[name].shape[dim], dtype=torch.bool)
                gone[index] = False
                tensors[name].index_fill_(dim, gone.nonzero()[:, 0].to(tensors[name].device), 0)
        try:
            return self._outputs()
        finally:
            for name, values in before.items():
                tensors[name].copy_(values)

    def _outputs(self) -> list[Tensor]:
        with kept_generators(self._device), torch.no_grad(), eager(), _NoNorms():
            seed_global(0, self._device)
            return [tensor.detach().clone() for tensor in tensors_in(self._run(self.module))]


def _all_close(first: list[Tensor], second: list[Tensor]) -> bool:
    return len(first) == len(second) and all(map(_close, first, second))


def _close(first: Tensor, second: Tensor) -> bool:
    if first.shape != second.shape:
        return False
    if not first.is_floating_point():
        return bool(torch.equal(first, second))
    tolerance = max(1e-3, 32 * torch.finfo(first.dtype).eps)
    scale = float(first.abs().max()) if first.numel() else 0.0
    return torch.allclose(first, second, rtol=0.0, atol=tolerance * scale, equal_nan=True)


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
