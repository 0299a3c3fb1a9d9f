"""Regularization: callbacks, the mixin, and plain functions."""

from lightning_dlopt.regularization.mixin import RegularizationMixin

__all__ = ["RegularizationMixin"]
