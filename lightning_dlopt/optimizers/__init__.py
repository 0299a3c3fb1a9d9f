"""Optimizers and what changes their steps: callbacks, the mixin, and plain functions."""

from lightning_dlopt.optimizers.adaptive_clip import AdaptiveClip, adaptive_clip_
from lightning_dlopt.optimizers.clip_grad_norm import ClipGradNorm, clip_by_norm_
from lightning_dlopt.optimizers.clip_grad_value import ClipGradValue, clip_by_value_
from lightning_dlopt.optimizers.clipping import GradientClip
from lightning_dlopt.optimizers.gradient_norm import global_norm
from lightning_dlopt.optimizers.mixin import OptimizerMixin
from lightning_dlopt.optimizers.quantile_clip import QuantileClip, quantile_norm

__all__ = [
    "AdaptiveClip",
    "ClipGradNorm",
    "ClipGradValue",
    "GradientClip",
    "OptimizerMixin",
    "QuantileClip",
    "adaptive_clip_",
    "clip_by_norm_",
    "clip_by_value_",
    "global_norm",
    "quantile_norm",
]
