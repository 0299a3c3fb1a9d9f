"""Optimizers and what changes their steps: callbacks, the mixin, and plain functions."""

from lightning_dlopt.optimizers.ema import EMA, update_average_
from lightning_dlopt.optimizers.lookahead import Lookahead, look_ahead_
from lightning_dlopt.optimizers.mixin import OptimizerMixin
from lightning_dlopt.optimizers.sam import SAM, perturb_weights

__all__ = [
    "EMA",
    "SAM",
    "Lookahead",
    "OptimizerMixin",
    "look_ahead_",
    "perturb_weights",
    "update_average_",
]
