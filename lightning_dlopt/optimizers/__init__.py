"""Optimizers and what changes their steps: callbacks, the mixin, and plain functions."""

from lightning_dlopt.optimizers.centralize_gradient import CentralizeGradient, centralize_gradient_
from lightning_dlopt.optimizers.freeze_layers import FreezeLayers
from lightning_dlopt.optimizers.freezing import freeze, unfreeze
from lightning_dlopt.optimizers.full_batch import FullBatch
from lightning_dlopt.optimizers.full_batch_gradient import full_batch_gradient
from lightning_dlopt.optimizers.mixin import OptimizerMixin
from lightning_dlopt.optimizers.schedule_free import ScheduleFree, evaluation_weights

__all__ = [
    "CentralizeGradient",
    "FreezeLayers",
    "FullBatch",
    "OptimizerMixin",
    "ScheduleFree",
    "centralize_gradient_",
    "evaluation_weights",
    "freeze",
    "full_batch_gradient",
    "unfreeze",
]
