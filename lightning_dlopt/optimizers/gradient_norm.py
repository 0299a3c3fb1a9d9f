"""The norm of all gradients together."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

#: From this size on a plain dot product is faster than torch's norm on the CPU.
_LARGE = 1 << 15


def global_norm(gradients: Sequence[Tensor]) -> Tensor:
    """Return the 2-norm of all ``gradients`` taken as one vector, a float32 scalar tensor.

    Of sharded gradients (DTensor) it is the norm of the whole, a DTensor too. On the CPU large
    float32 tensors go through a dot product, which agrees with
    ``torch.nn.utils.get_total_norm`` to a relative 1e-5.

    Example:
        >>> float(global_norm([torch.tensor([3.0]), torch.tensor([[4.0]])]))
        5.0
    """
    if any(isinstance(gradient, DTensor) for gradient in gradients):
        norm: Tensor = torch.nn.utils.get_total_norm(gradients)
        return norm
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
    if not norms:
        norm = torch.nn.utils.get_total_norm(others)
        return norm
    norms += torch._foreach_norm(others, dtype=torch.float32) if others else []
    norm = torch.linalg.vector_norm(torch.stack(norms))
    return norm
