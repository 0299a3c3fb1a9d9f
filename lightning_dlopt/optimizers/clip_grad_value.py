"""Each element of the gradients is clipped for itself."""

from collections.abc import Iterable

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from lightning_dlopt.core.checks import check_number
from lightning_dlopt.optimizers.clipping import GradientClip


@torch.no_grad()
def clip_by_value_(parameters: Iterable[Tensor], clip_value: float) -> None:
    """Clip each element of the gradients of ``parameters`` in place to ``±clip_value``.

    The result is that of ``torch.nn.utils.clip_grad_value_``, to the last bit.

    Args:
        parameters: tensors; those without a gradient are left out.
        clip_value: the largest magnitude of an element, above 0.

    Example:
        >>> weight = torch.nn.Parameter(torch.zeros(2))
        >>> weight.grad = torch.tensor([-3.0, 0.5])
        >>> clip_by_value_([weight], clip_value=1.0)
        >>> weight.grad
        tensor([-1.0000,  0.5000])
    """
    check_number("clip_by_value_", "clip_value", clip_value, "(0, inf]")
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.clamp_(-clip_value, clip_value)


class ClipGradValue(GradientClip):
    """Clip each element of the gradients for itself; this changes the gradient's direction.

    Source: T. Mikolov, Statistical Language Models Based on Neural Networks, PhD thesis, Brno
    University of Technology, 2012. What is clipped is the gradient of the whole step, after
    accumulation and after penalties.

    When:
        Single elements of the gradients are far larger than the rest.

    When not:
        The gradient's direction shall stay, as under ClipGradNorm. A limit below most elements
        leaves little more of them than their signs.

    Args:
        clip_value: the largest magnitude of an element, above 0; ``inf`` clips nothing.
        replace: see :class:`GradientClip`.

    Raises:
        ConflictError: beside the Trainer's ``gradient_clip_val`` or another clipping.
        TechniqueError: under manual optimization, FSDP1 and DeepSpeed.

    Logs at the Trainer's logging interval ``clipped_share``, the share of this step's elements
    that were clipped (of a shard of them under FSDP2).

    Example:
        >>> ClipGradValue(0.5)
        ClipGradValue(clip_value=0.5)
    """

    def __init__(self, clip_value: float, replace: bool = False) -> None:
        super().__init__(replace)
        self.clip_value = check_number(self, "clip_value", clip_value, "(0, inf]")

    def why_nothing(self) -> str | None:
        """Return that no element is above the limit, if it is so."""
        return "clip_value is inf" if self.clip_value == float("inf") else None

    def clip(
        self, pl_module: LightningModule, parameters: list[Tensor], logging: bool
    ) -> dict[str, Tensor | float]:
        """Clip to ``clip_value``."""
        found: dict[str, Tensor | float] = {}
        if logging:
            gradients = [local(p.grad) for p in parameters if p.grad is not None]
            clipped = sum((gradient.abs() > self.clip_value).sum() for gradient in gradients)
            found["clipped_share"] = clipped / max(1, sum(g.numel() for g in gradients))
        clip_by_value_(parameters, self.clip_value)
        return found


def local(tensor: Tensor) -> Tensor:
    """Return this rank's shard of a sharded tensor, any other tensor as it is."""
    shard: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return shard
