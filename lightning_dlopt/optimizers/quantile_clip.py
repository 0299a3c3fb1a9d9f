"""Gradients are clipped to a quantile of the norms seen so far."""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.distributed.tensor import DTensor

from lightning_dlopt.core.checks import check_integer, check_number
from lightning_dlopt.optimizers.clip_grad_norm import ClippedSteps, scale_to_norm_
from lightning_dlopt.optimizers.clipping import GradientClip
from lightning_dlopt.optimizers.gradient_norm import global_norm


def quantile_norm(norms: Sequence[float], quantile: float) -> float:
    """Return the norm below which the share ``quantile`` of ``norms`` lies, interpolated.

    Example:
        >>> quantile_norm([1.0, 2.0, 3.0, 4.0, 5.0], 0.5)
        3.0
    """
    check_number("quantile_norm", "quantile", quantile, "[0, 1]")
    return float(np.quantile(norms, quantile))


class QuantileClip(GradientClip):
    """Clip the gradients' common norm to a quantile of the last norms, so none need be known.

    Source: P. Seetharaman, G. Wichern, B. Pardo, J. Le Roux, AutoClip: Adaptive Gradient Clipping
    for Source Separation Networks, 2020, arXiv:2007.14469. As there, the present norm is counted
    before the quantile is taken, so the first step is never clipped. Here only the last
    ``history`` norms count, where the paper keeps all: early norms are forgotten. A norm that
    isn't finite is not counted, and nothing hides it.

    When:
        Gradient norms have peaks, and nobody knows how high the usual ones are, or they change in
        the course of training.

    When not:
        The norms are much alike: a tenth of the steps is shortened all the same. In the first steps
        there is little to compare with.

    Args:
        quantile: the share of the norms that is to be left alone, in (0, 1]; 1 clips nothing.
        history: how many of the last norms are looked at, at least 2.
        replace: see :class:`GradientClip`.

    Raises:
        ConflictError: beside the Trainer's ``gradient_clip_val`` or another clipping.
        TechniqueError: under manual optimization, FSDP1 and DeepSpeed.

    Logs at the Trainer's logging interval ``grad_norm``, the norm before clipping,
    ``clip_norm``, the limit, and ``clipped_share``, the share of the steps since the last log that
    were clipped. The checkpoint keeps the norms.

    Example:
        >>> QuantileClip(0.5)
        QuantileClip(quantile=0.5)
    """

    clips_sparse: ClassVar[bool] = True
    clips_complex: ClassVar[bool] = True

    def __init__(self, quantile: float = 0.9, history: int = 200, replace: bool = False) -> None:
        super().__init__(replace)
        self.quantile = check_number(self, "quantile", quantile, "(0, 1]")
        self.history = check_integer(self, "history", history, "[2, inf)")
        self._norms: deque[float] = deque(maxlen=self.history)
        self._seen = ClippedSteps()

    def prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget what an earlier run left in this object."""
        super().prepare(trainer, pl_module)
        self._norms.clear()
        self._seen = ClippedSteps()

    def why_nothing(self) -> str | None:
        """Return that no norm is above the limit, if it is so."""
        return "quantile is 1, and no norm is above the largest" if self.quantile == 1 else None

    def clip(
        self, pl_module: LightningModule, parameters: list[Tensor], logging: bool
    ) -> dict[str, Tensor | float]:
        """Clip to the quantile of the norms, the present one among them."""
        gradients = [gradient for p in parameters if (gradient := p.grad) is not None]
        norm = global_norm(gradients)
        size = float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
        if math.isfinite(size):
            self._norms.append(size)
        limit = quantile_norm(self._norms, self.quantile) if self._norms else math.inf
        # of equal norms rounding must not clip any
        if size > limit or not math.isfinite(size):
            scale_to_norm_(gradients, limit, norm)
        self._seen.count(torch.tensor(size), limit)
        if not logging:
            return {}
        return {"grad_norm": size, "clip_norm": limit, "clipped_share": self._seen.take()}

    def extra_state(self) -> dict[str, Any]:
        """Keep the norms."""
        return {"norms": list(self._norms)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from the norms of the interrupted run."""
        self._norms = deque(state_dict["norms"], maxlen=self.history)
