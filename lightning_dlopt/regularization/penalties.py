"""The penalty of lasso, ridge and Elastic Net: its value, its gradient and its proximal step.

Plain functions on tensors; the callbacks :class:`L1`, :class:`L2` and :class:`ElasticNet` call
them. The penalty is ``l1 * sum |w| + l2 * sum w**2``, without a factor of one half.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from lightning_dlopt.core.checks import check_number
from lightning_dlopt.core.errors import ArgumentError
from lightning_dlopt.regularization.tensor_groups import (
    Workspace,
    add_to_gradients_,
    is_plain,
    shrink_,
)


def _distinct(parameters: Iterable[Tensor]) -> list[Tensor]:
    return list({id(p): p for p in parameters}.values())


def _total(sums: list[Tensor]) -> Tensor:
    # on sharded tensors every sum is over all ranks
    return torch.stack([s if is_plain(s) else s.full_tensor() for s in sums]).sum()  # type: ignore[attr-defined]


def elastic_net_penalty(parameters: Iterable[Tensor], l1: float, l2: float) -> Tensor:
    """Return ``l1 * sum |w| + l2 * sum w**2`` over the parameters, differentiable.

    The gradient is ``l1 * sign(w) + 2 * l2 * w``, with ``sign(0) = 0``.

    Args:
        parameters: tensors of any shape; one that comes twice counts once. Sums over bfloat16 and
            float16 are taken in float32.
        l1: strength of the absolute values, at least 0.
        l2: strength of the squares, at least 0. A decay of ``2 * l2`` in SGD is the same.

    Returns:
        a tensor without dimensions; 0 if there are no parameters.

    Example:
        >>> w = torch.tensor([3.0, -1.0], requires_grad=True)
        >>> elastic_net_penalty([w], l1=0.5, l2=0.1).item()
        3.0
    """
    l1 = check_number("elastic_net_penalty", "l1", l1, "[0, inf)")
    l2 = check_number("elastic_net_penalty", "l2", l2, "[0, inf)")
    terms: list[Tensor] = []
    tensors = _distinct(parameters)
    if not tensors:
        return torch.zeros(())
    for w in tensors:
        dtype = torch.promote_types(w.dtype, torch.float32)
        if l1 > 0:
            terms.append(l1 * w.abs().sum(dtype=dtype))
        if l2 > 0:
            terms.append(l2 * w.square().sum(dtype=dtype))
    if not terms:
        return torch.zeros((), device=tensors[0].device)
    return _total(terms)


@torch.no_grad()
def add_elastic_net_gradient_(
    parameters: Iterable[Tensor],
    l1: float,
    l2: float,
    *,
    compiled: bool = False,
    workspace: Workspace | None = None,
) -> None:
    """Add ``l1 * sign(w) + 2 * l2 * w`` to the gradients in place.

    The same as the backward pass of :func:`elastic_net_penalty` without its graph and temporaries;
    equal up to the order of the additions, a rounding error of the largest term. A parameter
    without a gradient gets one, as it would there.

    Args:
        parameters: tensors with dense gradients; those without ``requires_grad`` are left out,
            one that comes twice counts once. Of sharded tensors, each rank's own shard is moved.
        l1: strength of the absolute values, at least 0.
        l2: strength of the squares, at least 0.
        compiled: on the CPU, use a kernel made by ``torch.compile`` for large tensors, which passes
            over memory once. It needs a C++ compiler.
        workspace: a :class:`tensor_groups.Workspace`: buffers kept between calls, which many small
            parameters are gathered in.

    Raises:
        ArgumentError: if a gradient is sparse.

    Example:
        >>> w = torch.tensor([3.0, 0.0, -1.0], requires_grad=True)
        >>> add_elastic_net_gradient_([w], l1=0.5, l2=0.5)
        >>> w.grad
        tensor([ 3.5000,  0.0000, -1.5000])
    """
    l1 = check_number("add_elastic_net_gradient_", "l1", l1, "[0, inf)")
    l2 = check_number("add_elastic_net_gradient_", "l2", l2, "[0, inf)")
    if l1 == 0 and l2 == 0:
        return
    weights = _distinct(parameter for parameter in parameters if parameter.requires_grad)
    gradients: list[Tensor] = []
    for w in weights:
        gradient = w.grad
        if gradient is None:
            gradient = w.grad = torch.zeros_like(w)
        elif gradient.layout is not torch.strided:
            raise ArgumentError(
                f"add_elastic_net_gradient_: a gradient of shape {tuple(w.shape)} is sparse, and "
                "the penalty's is dense: use dense gradients (Embedding(sparse=False))"
            )
        gradients.append(gradient)
    add_to_gradients_(weights, gradients, l1, l2, compiled, workspace or Workspace(keep=False))


@torch.no_grad()
def soft_threshold_(
    parameters: Iterable[Tensor],
    threshold: float,
    scale: float = 1.0,
    *,
    compiled: bool = False,
    workspace: Workspace | None = None,
) -> None:
    """Move every element towards 0 by ``threshold`` in place, and those that reach it to 0.

    ``w <- scale * sign(w) * max(|w| - threshold, 0)``: with ``threshold = t * l1`` and
    ``scale = 1 / (1 + 2 * t * l2)``, the proximal operator of ``t`` times the Elastic Net penalty.
    NaN stays NaN.

    Args:
        parameters: tensors of any shape; one that comes twice is moved once. Of sharded tensors,
            each rank's own shard is moved.
        threshold: at least 0.
        scale: factor of what is left, in [0, 1].
        compiled: as in :func:`add_elastic_net_gradient_`.
        workspace: as in :func:`add_elastic_net_gradient_`.

    Example:
        >>> w = torch.tensor([3.0, 0.5, -2.0], requires_grad=True)
        >>> soft_threshold_([w], 1.0)
        >>> w.detach()
        tensor([ 2.,  0., -1.])
    """
    threshold = check_number("soft_threshold_", "threshold", threshold, "[0, inf)")
    scale = check_number("soft_threshold_", "scale", scale, "[0, 1]")
    if threshold == 0 and scale == 1:
        return
    space = workspace or Workspace(keep=False)
    shrink_(_distinct(parameters), threshold, scale, compiled, space)


@torch.no_grad()
def zero_share(parameters: Iterable[Tensor]) -> Tensor:
    """Return which share of all elements is exactly 0, in [0, 1]; 0 if there are none.

    One that comes twice counts once; of sharded tensors, all shards count.

    Example:
        >>> zero_share([torch.tensor([0.0, 2.0, 0.0, 1.0])]).item()
        0.5
    """
    tensors = _distinct(parameters)
    elements = sum(p.numel() for p in tensors)
    if elements == 0:
        return torch.zeros(())
    # counted in integers: a float32 sum would lose elements
    return _total([(p == 0).sum() for p in tensors]) / elements
