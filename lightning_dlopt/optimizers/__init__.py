"""Optimizers and what changes their steps: callbacks, the mixin, and plain functions."""

from lightning_dlopt.optimizers.adaptive_clip import AdaptiveClip, adaptive_clip_
from lightning_dlopt.optimizers.centralize_gradient import CentralizeGradient, centralize_gradient_
from lightning_dlopt.optimizers.clip_grad_norm import ClipGradNorm, clip_by_norm_
from lightning_dlopt.optimizers.clip_grad_value import ClipGradValue, clip_by_value_
from lightning_dlopt.optimizers.clipping import GradientClip
from lightning_dlopt.optimizers.ema import EMA, update_average_
from lightning_dlopt.optimizers.freeze_layers import FreezeLayers
from lightning_dlopt.optimizers.freezing import freeze, unfreeze
from lightning_dlopt.optimizers.full_batch import FullBatch
from lightning_dlopt.optimizers.full_batch_gradient import full_batch_gradient
from lightning_dlopt.optimizers.gradient_norm import global_norm
from lightning_dlopt.optimizers.lookahead import Lookahead, look_ahead_
from lightning_dlopt.optimizers.mixin import OptimizerMixin
from lightning_dlopt.optimizers.quantile_clip import QuantileClip, quantile_norm
from lightning_dlopt.optimizers.sam import SAM, perturb_weights
from lightning_dlopt.optimizers.schedule_free import ScheduleFree, evaluation_weights

__all__ = [
    "EMA",
    "SAM",
    "AdaptiveClip",
    "CentralizeGradient",
    "ClipGradNorm",
    "ClipGradValue",
    "FreezeLayers",
    "FullBatch",
    "GradientClip",
    "Lookahead",
    "OptimizerMixin",
    "QuantileClip",
    "ScheduleFree",
    "adaptive_clip_",
    "centralize_gradient_",
    "clip_by_norm_",
    "clip_by_value_",
    "evaluation_weights",
    "freeze",
    "full_batch_gradient",
    "global_norm",
    "look_ahead_",
    "perturb_weights",
    "quantile_norm",
    "unfreeze",
    "update_average_",
]
