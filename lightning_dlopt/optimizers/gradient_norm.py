"""The norm of all gradients together."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

#: From this size on a plain dot product is faster than torch's norm on the CPU.
_LARGE = 1 << 15


def global_norm(gradients: Sequence[Tensor]) -> Tensor:
    """Return the 2-norm of all ``gradients`` taken as one vector, a scalar tensor.

    Of sharded gradients (DTensor) it is the norm of the whole, a DTensor too. On the CPU large
    float32 tensors go through a dot product, which agrees with
    ``torch.nn.utils.get_total_norm`` to a relative 1e-5.

    Example:
        >>> float(global_norm([torch.tensor([3.0]), torch.tensor([[4.0]])]))
        5.0
    """
    if any(gradient.layout is not torch.strided for gradient in gradients):
        gradients = [g.coalesce().values() if g.is_sparse else g for g in gradients]
    kinds = {(type(gradient), gradient.device, gradient.dtype) for gradient in gradients}
    if any(kind is DTensor for kind, _, _ in kinds):
        whole: Tensor = torch.nn.utils.get_total_norm(gradients)
        return whole
    norms: list[Tensor] = []
    others: list[Tensor] = []
    for gradient in gradients:
        if (
            gradient.numel() >= _LARGE
            and gradient.dtype == torch.float32
            and gradient.device.type == "cpu"
            and gradient.is_contiguous()
        ):
            flat = gradient.view(-1)
            norms.append(torch.dot(flat, flat).sqrt_())
        else:
            others.append(gradient)
    if len(kinds) == 1 and others:
        norms += torch._foreach_norm(others, dtype=_wide(others[0].dtype))
    else:
        norms += [torch.linalg.vector_norm(g, dtype=_wide(g.dtype)) for g in others]
    if not norms:
        return torch.zeros(())
    first = norms[0].device
    norm: Tensor = torch.linalg.vector_norm(torch.stack([n.to(first) for n in norms]))
    return norm


def _wide(dtype: torch.dtype) -> torch.dtype | None:
    """Return the type to sum in: a sum of squares of 16-bit numbers needs more than 16 bits."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else None
