"""What of a module's tensors is left when channels are removed, and removing them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lightning_dlopt.structure.channels.dims import narrowed, places, width
from lightning_dlopt.structure.channels.graph import Group
from lightning_dlopt.structure.channels.widths import (
    joined,
    named_tensors,
    put_tensors,
    set_attributes,
)
from lightning_dlopt.structure.replacing import part_names

#: For each changed tensor, by its name, the dimensions that shrink and the indices kept of each.
Kept = dict[str, list[tuple[int, Tensor]]]


@dataclass
class Cut:
    """The indices that are kept of each tensor, and the attributes that say the new widths."""

    kept: Kept = field(default_factory=dict)
    attributes: dict[str, dict[str, Any]] = field(default_factory=dict)


def cut_of(module: nn.Module, removed: Iterable[tuple[Group, Tensor]]) -> Cut:
    """Return what is left when each group loses the channels that its mask marks."""
    parts, tensors, cut = part_names(module), named_tensors(module), Cut()
    gone_of: dict[tuple[str, str], Tensor] = {}
    gone_alone: dict[tuple[str, int], Tensor] = {}
    for group, gone in removed:
        for (name, side), (index, roots) in group.sides.items():
            size = width(parts[name], side)
            mask = gone_of.setdefault((name, side), torch.zeros(size, dtype=torch.bool))
            mask[index[gone[roots]]] = True
        for (name, dim), (index, roots) in group.alone.items():
            size = tensors[name].shape[dim]
            mask = gone_alone.setdefault((name, dim), torch.zeros(size, dtype=torch.bool))
            mask[index[gone[roots]]] = True
        for name, key in group.follow:
            cut.attributes.setdefault(name, {})[key] = int((~gone).sum())
    for (name, dim), gone in gone_alone.items():
        cut.kept.setdefault(name, []).append((dim, (~gone).nonzero()[:, 0]))
    for (name, side), gone in gone_of.items():
        left = (~gone).nonzero()[:, 0]
        for tensor, dim, where in places(parts[name], side):
            kept = torch.unique(where[:, left])
            cut.kept.setdefault(joined(name, tensor), []).append((dim, kept))
        for below, values in narrowed(parts[name], side, len(left)).items():
            cut.attributes.setdefault(joined(name, below), {}).update(values)
    return cut


def apply_cut(
    module: nn.Module, kept: Kept, attributes: dict[str, dict[str, Any]]
) -> dict[nn.Parameter, nn.Parameter]:
    """Take from a module all that isn't kept, in place; return what has which parameter's place."""
    tensors = named_tensors(module)
    new = {id(tensors[name]): keep(tensors[name], dims) for name, dims in kept.items()}
    replaced = put_tensors(module, new)
    for name, dims in kept.items():
        if (grad := tensors[name].grad) is not None:
            replaced[tensors[name]].grad = keep(grad, dims)  # type: ignore[index]
    parts = part_names(module)
    for name, values in attributes.items():
        set_attributes(parts[name], values)
    return replaced


def keep(tensor: Tensor, dims: list[tuple[int, Tensor]]) -> Tensor:
    """Return a tensor's entries at the kept indices, in the memory format it has.

    Example:
        >>> keep(torch.eye(3), [(0, torch.tensor([0, 2])), (1, torch.tensor([0]))])
        tensor([[1.],
                [0.]])
    """
    left = tensor.detach()
    for dim, index in dims:
        left = left.index_select(dim, index.to(tensor.device))
    if tensor.dim() == 4 and not tensor.is_contiguous():
        left = left.contiguous(memory_format=torch.channels_last)
    return left
