"""Gradients are scaled down together where their common norm is too large."""

from collections.abc import Iterable
from typing import ClassVar

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.distributed.tensor import DTensor

from lightning_dlopt.core.checks import check_number
from lightning_dlopt.optimizers.clipping import GradientClip
from lightning_dlopt.optimizers.gradient_norm import global_norm


@torch.no_grad()
def clip_by_norm_(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """Scale the gradients of ``parameters`` in place so that their common 2-norm fits.

    The factor is that of ``torch.nn.utils.clip_grad_norm_``, ``max_norm / (norm + 1e-6)`` and at
    most 1. On the CPU nothing is written when nothing is to be clipped.

    Args:
        parameters: tensors; those without a gradient are left out.
        max_norm: the largest norm, above 0.

    Returns:
        The norm before clipping, a scalar tensor. If it isn't finite, neither are the gradients.

    Example:
        >>> weight = torch.nn.Parameter(torch.zeros(2))
        >>> weight.grad = torch.tensor([3.0, 4.0])
        >>> float(clip_by_norm_([weight], max_norm=1.0))
        5.0
        >>> weight.grad
        tensor([0.6000, 0.8000])
    """
    check_number("clip_by_norm_", "max_norm", max_norm, "(0, inf]")
    gradients = [gradient for p in parameters if (gradient := p.grad) is not None]
    norm = global_norm(gradients)
    # elsewhere looking at the norm would wait for the device, and multiplying by 1 is cheaper
    if norm.device.type != "cpu" or not is_within(norm, max_norm):
        scale_to_norm_(gradients, max_norm, norm)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def scale_to_norm_(gradients: list[Tensor], max_norm: float, norm: Tensor) -> None:
    """Scale gradients whose common norm is ``norm`` in place, so that it is at most ``max_norm``.

    The factor is that of ``torch.nn.utils.clip_grads_with_norm_``.
    """
    factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    if all(gradient.device == norm.device for gradient in gradients):
        torch._foreach_mul_(gradients, factor)
    else:
        for gradient in gradients:
            gradient.mul_(factor.to(gradient.device))


def is_within(norm: Tensor, max_norm: float) -> bool:
    """Return whether clipping to ``max_norm`` would change nothing; False if it isn't finite."""
    return float(norm) + 1e-6 <= max_norm


class ClippedSteps:
    """Counts, without waiting for the device, which share of the steps was clipped."""

    def __init__(self) -> None:
        self.steps = 0
        self.clipped: Tensor | float = 0.0

    def count(self, norm: Tensor, max_norm: float) -> None:
        """Note a step whose gradients had ``norm``."""
        self.steps += 1
        self.clipped = self.clipped + ~(norm <= max_norm)

    def take(self) -> Tensor | float:
        """Return the share since the last call."""
        share = self.clipped / self.steps
        self.steps, self.clipped = 0, 0.0
        return share


class ClipGradNorm(GradientClip):
    """Scale the gradients down together where their common norm is above a limit.

    Source: R. Pascanu, T. Mikolov, Y. Bengio, On the difficulty of training Recurrent Neural
    Networks, 2013, arXiv:1211.5063. What is clipped is the gradient of the whole step, after
    accumulation and after penalties; the arithmetic is that of torch's ``clip_grad_norm_``.

    When:
        Recurrent networks, transformers, and wherever the logged ``grad_norm`` has rare peaks: a
        limit a little above its usual values.

    When not:
        Nearly every step is clipped: that is a lower rate in disguise, and with Adam, which divides
        by the gradient's size, nearly nothing. It mends no gradient that isn't finite.

    Args:
        max_norm: the largest 2-norm, above 0; ``inf`` clips nothing.
        replace: see :class:`GradientClip`.

    Raises:
        ConflictError: beside the Trainer's ``gradient_clip_val`` or another clipping.
        TechniqueError: under manual optimization, FSDP1 and DeepSpeed.

    Logs at the Trainer's logging interval ``grad_norm``, the norm before clipping, and
    ``clipped_share``, the share of the steps since the last log that were clipped.

    Example:
        >>> ClipGradNorm(1.0)
        ClipGradNorm(max_norm=1.0)
        >>> ClipGradNorm(-1.0)
        Traceback (most recent call last):
        ...
        lightning_dlopt.core.errors.ArgumentError: ClipGradNorm: max_norm=-1.0 is not in (0, inf]
    """

    clips_sparse: ClassVar[bool] = True
    clips_complex: ClassVar[bool] = True

    def __init__(self, max_norm: float, replace: bool = False) -> None:
        super().__init__(replace)
        self.max_norm = check_number(self, "max_norm", max_norm, "(0, inf]")
        self._seen = ClippedSteps()

    def why_nothing(self) -> str | None:
        """Return that no norm is above the limit, if it is so."""
        return "max_norm is inf" if self.max_norm == float("inf") else None

    def prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget what an earlier run left in this object."""
        super().prepare(trainer, pl_module)
        self._seen = ClippedSteps()

    def clip(
        self, pl_module: LightningModule, parameters: list[Tensor], logging: bool
    ) -> dict[str, Tensor | float]:
        """Clip to ``max_norm``."""
        norm = clip_by_norm_(parameters, self.max_norm)
        self._seen.count(norm, self.max_norm)
        return {"grad_norm": norm, "clipped_share": self._seen.take()} if logging else {}
