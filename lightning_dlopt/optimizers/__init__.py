"""Optimizers and what changes their steps: callbacks, the mixin, and plain functions."""

from lightning_dlopt.optimizers.ema import EMA, update_average_
from lightning_dlopt.optimizers.mixin import OptimizerMixin
from lightning_dlopt.optimizers.sam import SAM, perturb_weights

__all__ = ["EMA", "SAM", "OptimizerMixin", "perturb_weights", "update_average_"]
