"""Calling a module with example arguments, without leaving a trace in it."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lightning_dlopt.core.checks import owner_name
from lightning_dlopt.core.errors import ArgumentError, ArgumentTypeError, one_line
from lightning_dlopt.core.global_generators import kept_generators
from lightning_dlopt.core.module_state import ModuleState

#: What a module is called with: one tensor, a tuple of arguments, or a dict of keyword arguments.
Example: TypeAlias = Tensor | tuple[Any, ...] | Mapping[str, Any]


def arguments_of(example: Example, owner: object = "example") -> tuple[tuple[Any, ...], Any]:
    """Return an example's arguments and keyword arguments.

    Raises:
        ArgumentTypeError: if it is neither a tensor nor a tuple nor a dict.
    """
    if isinstance(example, Tensor):
        return (example,), {}
    if isinstance(example, tuple):
        return example, {}
    if isinstance(example, Mapping):
        return (), dict(example)
    raise ArgumentTypeError(
        f"{owner_name(owner)}: example, a {type(example).__name__}, must be a tensor, a tuple of "
        "the module's arguments or a dict of its keyword arguments"
    )


def batch_size(example: Example, owner: object = "example") -> int:
    """Return the first dimension of an example's first tensor that has any.

    Raises:
        ArgumentError: if there is no such tensor, or it is empty.

    Example:
        >>> batch_size({"scale": torch.tensor(2.0), "images": torch.zeros(4, 3)})
        4
    """
    arguments_of(example, owner)
    sizes: list[int] = []
    apply_to_collection(example, Tensor, lambda tensor: sizes.extend(tensor.shape[:1]))
    if not sizes or sizes[0] == 0:
        raise ArgumentError(f"{owner_name(owner)}: example holds no tensor with samples in it")
    return sizes[0]


def with_batch_size(example: Example, size: int, owner: object = "example") -> Any:
    """Return an example of ``size`` samples: its first ones, or all of them again and again.

    Tensors whose first dimension is another than the batch's stay as they are.

    Example:
        >>> with_batch_size(torch.tensor([[1], [2]]), 3).tolist()
        [[1], [2], [1]]
    """
    before = batch_size(example, owner)

    def resize(tensor: Tensor) -> Tensor:
        if tensor.shape[:1] != (before,):
            return tensor
        return tensor[torch.arange(size, device=tensor.device) % before]

    return apply_to_collection(example, Tensor, resize)


def length_of(example: Example) -> int | None:
    """Return the length of the texts in an example; None if it holds no tensor of whole numbers.

    Example:
        >>> length_of(torch.tensor([[5, 6, 0], [7, 0, 0]]))
        3
    """
    found: list[int] = []
    apply_to_collection(
        example, Tensor, lambda tensor: found.extend(tensor.shape[1:] if has_length(tensor) else ())
    )
    return found[0] if found else None


def has_length(tensor: Tensor, length: int | None = None) -> bool:
    """Return whether a tensor holds texts or their masks, of that length if one is given."""
    is_text = tensor.dim() == 2 and not (tensor.is_floating_point() or tensor.is_complex())
    return is_text and length in (None, tensor.shape[1])


def with_length(example: Example, length: int) -> Any:
    """Return an example with its texts cut, or repeated, to another length.

    Example:
        >>> with_length(torch.tensor([[5, 6, 0], [7, 0, 0]]), 4).tolist()
        [[5, 6, 0, 5], [7, 0, 0, 7]]
    """
    before = length_of(example)

    def resize(tensor: Tensor) -> Tensor:
        if before is None or not has_length(tensor, before):
            return tensor
        return tensor[:, torch.arange(length, device=tensor.device) % before]

    return apply_to_collection(example, Tensor, resize)


def padded_to(example: Example, length: int, pad_id: int) -> Any:
    """Return an example with its texts padded on the right, or cut, to a length; masks likewise.

    Example:
        >>> padded_to(torch.tensor([[5, 6], [7, 0]]), 3, pad_id=0).tolist()
        [[5, 6, 0], [7, 0, 0]]
    """
    before = length_of(example)

    def resize(tensor: Tensor) -> Tensor:
        if before is None or not has_length(tensor, before):
            return tensor
        value = 0 if tensor.dtype == torch.bool else pad_id
        return nn.functional.pad(tensor, (0, length - before), value=value)

    return apply_to_collection(example, Tensor, resize)


def single_samples(examples: Iterable[Example]) -> Iterator[Any]:
    """Yield the samples of examples one by one, each as an example.

    Example:
        >>> [sample.tolist() for sample in single_samples([torch.tensor([1, 2])])]
        [[1], [2]]
    """
    for example in examples:
        size = batch_size(example)

        def only(tensor: Tensor, index: int, size: int = size) -> Tensor:
            return tensor[index : index + 1] if tensor.shape[:1] == (size,) else tensor

        for index in range(size):
            yield apply_to_collection(example, Tensor, only, index)


def call(module: nn.Module, example: Example, owner: object) -> Any:
    """Return what a module makes of an example.

    Raises:
        ArgumentError: if it fails; its own error is the cause.
    """
    args, kwargs = arguments_of(example, owner)
    try:
        return module(*args, **kwargs)
    except Exception as error:
        why = f"{type(error).__name__}: {one_line(error)}"
        raise ArgumentError(
            f"{owner_name(owner)}: {type(module).__name__} can't be called with the example: {why}"
        ) from error


@contextmanager
def evaluating(module: nn.Module, owner: object) -> Iterator[None]:
    """Let a module be called in the block as in evaluation, and be then as it was before.

    No gradients are kept; modes, buffers, other attributes and the global generators are put back.

    Raises:
        ArgumentError: if the module has parameters that get their shape in the first call.
    """
    tensors = [*module.parameters(), *module.buffers()]
    if any(map(is_lazy, tensors)):
        raise ArgumentError(
            f"{owner_name(owner)}: {type(module).__name__} has lazy layers: call it once before"
        )
    modes = [(part, part.training) for part in module.modules()]
    state = ModuleState(module)
    device = tensors[0].device if tensors else torch.device("cpu")
    with kept_generators(device), torch.no_grad():
        try:
            module.eval()
            yield
        finally:
            state.restore_attributes()
            state.restore_contents()
            for part, training in modes:
                part.training = training
