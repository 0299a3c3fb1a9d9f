"""Weights moved towards a larger loss, and the direction over all processes."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from torch import Tensor, nn

from lightning_dlopt.optimizers.gradient_norm import global_norm


@torch.no_grad()
def perturb_weights(
    weights: Sequence[Tensor],
    gradients: Sequence[Tensor],
    rho: float = 0.05,
    adaptive: bool = False,
    out: Sequence[Tensor] | None = None,
) -> list[Tensor]:
    """Return the weights moved uphill by ``rho``: ``w + rho * g / norm(g)``.

    The norm is that of all gradients together; their common scale doesn't matter. ``adaptive``
    measures each weight by its own size: ``w + rho * abs(w)**2 * g / norm(w * g)``.

    Args:
        weights: tensors of any shapes; they aren't changed.
        gradients: one for each, of the same shape.
        rho: how far to go, 0 or more.
        adaptive: whether to scale each weight's step by the weight.
        out: tensors to put the results into, like the weights; new ones by default.

    Example:
        >>> perturb_weights([torch.zeros(2)], [torch.tensor([3.0, 4.0])], rho=1.0)
        [tensor([0.6000, 0.8000])]
    """
    if not weights:
        return []
    out = [torch.empty_like(weight) for weight in weights] if out is None else list(out)
    if adaptive:
        gradients = [
            torch.mul(w, g, out=o) for w, g, o in zip(weights, gradients, out, strict=True)
        ]
    scale = rho / (global_norm(gradients) + 1e-12)
    for weight, gradient, result in zip(weights, gradients, out, strict=True):
        factor = scale.to(weight)
        if adaptive:
            gradient = gradient.mul_(weight.conj())
        torch.addcmul(weight, gradient, factor, out=result)
    return out


def summed_over_processes(
    trainer: Trainer, parameters: list[nn.Parameter], gradients: list[Tensor | None]
) -> list[Tensor | None]:
    """Return the processes' gradients added up; a parameter that one of them leaves out is 0."""
    group = getattr(trainer.strategy.model, "process_group", None)
    filled = [
        torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)
    ]
    summed: list[Tensor | None] = list(filled)
    for kind in dict.fromkeys((g.device, g.dtype) for g in filled):  # in one order everywhere
        chosen = [i for i, g in enumerate(filled) if (g.device, g.dtype) == kind]
        flat = torch.cat([filled[i].reshape(-1) for i in chosen])
        dist.all_reduce(flat, group=group)
        parts = torch.split(flat, [filled[i].numel() for i in chosen])
        for i, part in zip(chosen, parts, strict=True):
            summed[i] = part.view_as(filled[i])
    return summed
