"""The moving average of a module's tensors, and its exchange with what is in the module."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lightning_dlopt.core.replaced import Replaced
from lightning_dlopt.core.slots import Slot, tensor_slots


@torch.no_grad()
def update_average_(averages: Sequence[Tensor], values: Sequence[Tensor], decay: float) -> None:
    """Move each average towards its value, in place: ``decay * average + (1 - decay) * value``.

    Args:
        averages: tensors of any shapes, floating point; of other dtypes they become the value.
        values: one for each, of the same shape, dtype and device.
        decay: how much of the average stays, in [0, 1].

    Example:
        >>> average = torch.tensor([1.0])
        >>> update_average_([average], [torch.tensor([2.0])], decay=0.75)
        >>> average
        tensor([1.2500])
    """
    if averages and all(average.is_floating_point() for average in averages):
        torch._foreach_lerp_(list(averages), list(values), 1.0 - decay)
        return
    for average, value in zip(averages, values, strict=True):
        if average.is_floating_point() or average.is_complex():
            average.lerp_(value, 1.0 - decay)
        else:
            average.copy_(value)


class ModuleAverage:
    """The average of a module's floating-point parameters and buffers, by name.

    Whole-number tensors aren't averaged, and stay in the module. A buffer's element whose average
    wouldn't be finite, such as the -inf of a mask, becomes the value; a buffer of a new shape is
    copied. What is written into a buffer while the average is in the module stays in both.
    """

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}  # while it is in the module: the current ones
        self.is_in_module = False
        self._groups: list[tuple[list[Tensor], list[Slot]]] = []
        self._careful: list[tuple[str, Slot]] = []
        self._put: dict[str, Tensor] = {}  # what went into the module's buffers

    def begin(self, module: nn.Module) -> None:
        """Take copies of the module's tensors."""
        self.tensors = {}
        self._look_up(module)

    def follow(self, module: nn.Module) -> None:
        """Look up the module's tensors; those that are new or changed in shape start afresh."""
        if self.tensors:
            self._look_up(module)

    def cut(self, module: nn.Module, replaced: Replaced) -> None:
        """Take the channels out of the average that were taken out of the module."""
        self.tensors = {n: replaced.cut_named(n, tensor) for n, tensor in self.tensors.items()}
        self._put = {n: replaced.cut_named(n, tensor) for n, tensor in self._put.items()}
        self.follow(module)

    def let_go(self) -> None:
        """Keep the tensors alone, and those not on the device."""
        self._groups, self._careful, self._put = [], [], {}
        self.tensors = {name: tensor.cpu() for name, tensor in self.tensors.items()}

    @property
    def is_followed(self) -> bool:
        """Whether the module's tensors have been looked up."""
        return bool(self._groups or self._careful)

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """Move the average towards what is in the module."""
        for averages, slots in self._groups:
            update_average_(averages, [space[key] for space, key in slots], decay)
        for name, (space, key) in self._careful:
            value, average = space.get(key), self.tensors[name]
            if value is None:  # taken out of the module
                continue
            if not _alike(average, value):
                self.tensors[name] = value.detach().clone()
                continue
            moved = average.lerp(value, 1.0 - decay)
            average.copy_(torch.where(moved.isfinite(), moved, value))

    def swap(self, module: nn.Module) -> None:
        """Let the average and what is in the module change places."""
        if not self.tensors:
            return
        # what is made in validation's inference mode couldn't be changed in training
        with torch.inference_mode(False), torch.no_grad():
            self._look_up(module)
            for averages, slots in self._groups:
                for average, (space, key) in zip(averages, slots, strict=True):
                    _exchange(space[key], average)
            put: dict[str, Tensor] = {}
            for name, (space, key) in self._careful:
                value, average = space[key], self.tensors[name]
                if self.is_in_module and not _same(value, self._put.get(name)):
                    average.copy_(value)
                    continue
                _exchange(value, average)
                put[name] = value.clone()
        self.is_in_module = not self.is_in_module
        self._put = put if self.is_in_module else {}

    @contextmanager
    def exchanged(self, module: nn.Module) -> Iterator[None]:
        """Swap for a moment, without copying."""
        held: list[tuple[Tensor, Tensor]] = []
        with torch.inference_mode(False), torch.no_grad():
            self._look_up(module)
            pairs = [pair for group in self._groups for pair in zip(*group, strict=True)]
            pairs += [(self.tensors[name], slot) for name, slot in self._careful]
            for average, (space, key) in pairs:
                held.append((space[key], space[key].data))
                space[key].data = average
            try:
                yield
            finally:
                for tensor, data in held:
                    tensor.data = data

    def _look_up(self, module: nn.Module) -> None:
        self._careful = []
        averages: dict[str, Tensor] = {}
        by_kind: dict[Any, tuple[list[Tensor], list[Slot]]] = {}
        for name, (space, key) in tensor_slots(module).items():
            value, average = space[key], self.tensors.get(name)
            if is_lazy(value) or not (value.is_floating_point() or value.is_complex()):
                continue
            if value.is_inference():
                value = space[key] = value.clone()
            if average is None or average.shape != value.shape:
                average = value.detach().clone()
            averages[name] = average.to(value)
            if _needs_care(value):
                self._careful.append((name, (space, key)))
                continue
            kind = by_kind.setdefault((value.device, value.dtype), ([], []))
            kind[0].append(averages[name])
            kind[1].append((space, key))
        self.tensors, self._groups = averages, list(by_kind.values())


def _needs_care(value: Tensor) -> bool:
    """Return whether it is a buffer, or a parameter that is used like one, such as a mask."""
    if isinstance(value, nn.Parameter):
        return not value.requires_grad and not bool(value.isfinite().all())
    return True


def _alike(average: Tensor, value: Tensor) -> bool:
    return (average.shape, average.dtype, average.device) == (
        value.shape,
        value.dtype,
        value.device,
    )


def _same(value: Tensor, put: Tensor | None) -> bool:
    if put is None or not _alike(put, value):
        return put is None
    return torch.allclose(value, put, rtol=0.0, atol=0.0, equal_nan=True)


def _exchange(value: Tensor, average: Tensor) -> None:
    current = value.clone()
    value.copy_(average)
    average.copy_(current)
