"""Optimizers and what changes their steps: callbacks, the mixin, and plain functions."""

from lightning_dlopt.optimizers.mixin import OptimizerMixin

__all__ = ["OptimizerMixin"]
