"""One elementwise operation over many tensors at about the speed of memory.

On the CPU, an operation for each of many small tensors costs its call, and a temporary as large as
a large tensor costs its page faults. So large tensors are worked on in chunks that stay in the
cache, and small ones are gathered in a buffer and worked on together. Other devices get torch's
``_foreach`` functions, which do one launch for many tensors.
"""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

#: Elements in a chunk: with its weights, gradients and scratch it fits a core's cache.
CHUNK = 2**18
#: From this many elements on, a tensor is worth operations of its own. A buffer of small ones is
#: as long: torch works on so few in one thread, and waking a second one would cost more.
LARGE = 2**15

_PLAIN = frozenset({Tensor, nn.Parameter})


def is_plain(tensor: Tensor) -> bool:
    """Return whether a tensor is a whole one, not one of a distributed tensor's shards."""
    return type(tensor) in _PLAIN or not hasattr(tensor, "to_local")


def local(tensor: Tensor) -> Tensor:
    """Return this rank's shard of a distributed tensor, and any other tensor as it is."""
    return tensor if is_plain(tensor) else tensor.to_local()  # type: ignore[attr-defined]


class Pack:
    """Small tensors of one type and device that are worked on in one buffer, one after another."""

    def __init__(self, indices: list[int], tensors: Sequence[Tensor], buffer: Tensor) -> None:
        self.indices = indices
        sizes = [tensors[index].numel() for index in indices]
        self.flat = buffer[: sum(sizes)]
        parts = torch.split(self.flat, sizes)
        self.views = [part.view(tensors[i].shape) for part, i in zip(parts, indices, strict=True)]

    def pick(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return this pack's among all tensors."""
        return [tensors[index] for index in self.indices]


class Layout:
    """Which of some tensors are worked on alone, which are packed, and which torch groups."""

    def __init__(self, tensors: Sequence[Tensor], pack: bool) -> None:
        self.large: list[int] = []
        self.grouped: list[int] = []
        self.packs: list[Pack] = []
        #: One buffer for each type, of chunk size at most.
        self.buffers: dict[torch.dtype, Tensor] = {}
        small: dict[torch.dtype, list[list[int]]] = {}
        filled: dict[torch.dtype, int] = {}
        for index, tensor in enumerate(tensors):
            if tensor.numel() == 0:  # an empty shard
                continue
            if tensor.device.type == "cpu" and tensor.numel() >= LARGE:
                self.large.append(index)
            elif tensor.device.type != "cpu" or not pack:
                self.grouped.append(index)
            else:
                packs = small.setdefault(tensor.dtype, [[]])
                filled[tensor.dtype] = filled.get(tensor.dtype, 0) + tensor.numel()
                if filled[tensor.dtype] > LARGE:
                    packs.append([])
                    filled[tensor.dtype] = tensor.numel()
                packs[-1].append(index)
        for dtype in {tensors[i].dtype for i in [*self.large, *chain(*chain(*small.values()))]}:
            self.buffers[dtype] = torch.empty(CHUNK, dtype=dtype)
        for dtype, packs in small.items():
            self.packs += [Pack(indices, tensors, self.buffers[dtype]) for indices in packs]


class Workspace:
    """Keeps the layout and the buffers of the tensors it saw last.

    Args:
        keep: whether there will be a next call. If not, nothing is gained by a buffer for small
            tensors that is set up for this call alone, and torch's ``_foreach`` functions take
            them.
    """

    def __init__(self, keep: bool = True) -> None:
        self.keep = keep
        self._seen: list[Tensor] = []
        self._key: list[int] = []
        self._layout: Layout | None = None

    def layout(self, parameters: Sequence[Tensor], tensors: Sequence[Tensor]) -> Layout:
        """Return how to work on ``tensors``, the local parts of ``parameters``."""
        key = [id(parameter) for parameter in parameters]
        if self._layout is None or key != self._key:
            # held, so that none of the numbers is given to another tensor
            self._seen, self._key = list(parameters), key
            self._layout = Layout(tensors, pack=self.keep)
        return self._layout


def _flat_pair(weight: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return both as 1-D views in one order of elements, or None if there is none."""
    if weight.is_contiguous() and gradient.is_contiguous():
        return weight.view(-1), gradient.view(-1)
    if weight.dim() in (4, 5) and weight.stride() == gradient.stride():  # channels last
        order = (0, *range(2, weight.dim()), 1)
        weight, gradient = weight.permute(order), gradient.permute(order)
        if weight.is_contiguous():
            return weight.view(-1), gradient.view(-1)
    return None


# ---- l1 * sign(w) + 2 * l2 * w ----


def _gradient_kernel(weight: Tensor, gradient: Tensor, l1: Tensor, double_l2: Tensor) -> None:
    # a chain of selections is faster than sign, and like it gives 0 for NaN
    slope = torch.where(weight > 0, l1, torch.where(weight < 0, -l1, 0.0))
    gradient.add_(slope + double_l2 * weight)


def add_to_gradients_(
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    l1: float,
    l2: float,
    compiled: bool,
    workspace: Workspace,
) -> None:
    """Add the penalty's gradient to ``gradients``; of sharded tensors, to this rank's shards."""
    weights, gradients = _locals(parameters), _locals(gradients)
    layout = workspace.layout(parameters, weights)
    for index in layout.large:
        pair = _flat_pair(weights[index], gradients[index])
        weight, gradient = pair or (weights[index], gradients[index])
        if l1 == 0:
            gradient.add_(weight, alpha=2 * l2)
        elif pair is None:
            gradient.add_(weight.sign(), alpha=l1).add_(weight, alpha=2 * l2)
        elif compiled:
            kernel(_gradient_kernel)(weight, gradient, *scalars(weight, l1, 2 * l2))
        else:
            scratch = layout.buffers[weight.dtype]
            for w, g in zip(torch.split(weight, CHUNK), torch.split(gradient, CHUNK), strict=True):
                sign = torch.sign(w, out=scratch[: w.numel()])
                g.add_(sign, alpha=l1)
                if l2:
                    g.add_(w, alpha=2 * l2)
    for pack in layout.packs:
        few, theirs = pack.pick(weights), pack.pick(gradients)
        if l1 == 0:
            torch._foreach_add_(theirs, few, alpha=2 * l2)
            continue
        torch._foreach_copy_(pack.views, few)
        # both terms in one, so that the small tensors are gone through once
        if l2:
            sign = pack.flat.sign()
            pack.flat.mul_(2 * l2).add_(sign, alpha=l1)
        else:
            pack.flat.sign_().mul_(l1)
        torch._foreach_add_(theirs, pack.views)
    if layout.grouped:
        few = [weights[index] for index in layout.grouped]
        theirs = [gradients[index] for index in layout.grouped]
        if l1:
            torch._foreach_add_(theirs, torch._foreach_sign(few), alpha=l1)
        if l2:
            torch._foreach_add_(theirs, few, alpha=2 * l2)


# ---- scale * soft(w, threshold) ----


def _shrink_kernel(weight: Tensor, threshold: Tensor, scale: Tensor) -> None:
    above = torch.where(weight > threshold, weight - threshold, weight * 0)
    weight.copy_(scale * torch.where(weight < -threshold, weight + threshold, above))


def _shrink_flat_(flat: Tensor, threshold: float, scale: float) -> None:
    if threshold:
        torch.ops.aten.softshrink.out(flat, threshold, out=flat)
    if scale != 1:
        flat.mul_(scale)


def shrink_(
    parameters: Sequence[Tensor],
    threshold: float,
    scale: float,
    compiled: bool,
    workspace: Workspace,
) -> None:
    """Soft-threshold the parameters in place, then scale them; of sharded ones, the shards."""
    weights = _locals(parameters)
    layout = workspace.layout(parameters, weights)
    for index in layout.large:
        weight = weights[index]
        pair = _flat_pair(weight, weight)
        if pair is None:
            _shrink_flat_(weight, threshold, scale)
        elif compiled:
            kernel(_shrink_kernel)(pair[0], *scalars(weight, threshold, scale))
        else:
            for chunk in torch.split(pair[0], CHUNK):
                _shrink_flat_(chunk, threshold, scale)
    for pack in layout.packs:
        few = pack.pick(weights)
        torch._foreach_copy_(pack.views, few)
        _shrink_flat_(pack.flat, threshold, scale)
        torch._foreach_copy_(few, pack.views)
    if layout.grouped:
        few = [weights[index] for index in layout.grouped]
        # w minus itself, clamped to the threshold, is 0 within it; NaN stays
        clamped = torch._foreach_clamp_max(few, threshold)
        torch._foreach_clamp_min_(clamped, -threshold)
        torch._foreach_sub_(few, clamped)
        if scale != 1:
            torch._foreach_mul_(few, scale)


def _locals(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    if all(type(tensor) in _PLAIN for tensor in tensors):
        return tensors
    return [local(tensor) for tensor in tensors]


def scalars(like: Tensor, *values: float) -> list[Tensor]:
    """Return numbers as tensors: a compiled kernel is not made anew when they change."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    return [torch.tensor(value, dtype=dtype) for value in values]


@cache
def kernel(function: Callable[..., None]) -> Callable[..., Any]:
    """Return ``function`` compiled for tensors of any length, made once in a process."""
    return torch.compile(function, dynamic=True, fullgraph=True)


def try_kernels(tensors: Sequence[Tensor]) -> None:
    """Compile the kernels for the types of some tensors; raises what ``torch.compile`` raises."""
    for dtype in {local(tensor).dtype for tensor in tensors if tensor.device.type == "cpu"}:
        weight, gradient = torch.ones(LARGE, dtype=dtype), torch.ones(LARGE, dtype=dtype)
        with torch.no_grad():
            kernel(_gradient_kernel)(weight, gradient, *scalars(weight, 0.0, 0.0))
            kernel(_shrink_kernel)(weight, *scalars(weight, 0.0, 1.0))
