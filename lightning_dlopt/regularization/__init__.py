"""Regularization: callbacks, the mixin, and plain functions."""

from lightning_dlopt.regularization.distillation import Distillation, distillation_loss
from lightning_dlopt.regularization.label_smoothing import LabelSmoothing, smooth_labels
from lightning_dlopt.regularization.mixin import RegularizationMixin
from lightning_dlopt.regularization.r_drop import RDrop, symmetric_kl

__all__ = [
    "Distillation",
    "LabelSmoothing",
    "RDrop",
    "RegularizationMixin",
    "distillation_loss",
    "smooth_labels",
    "symmetric_kl",
]
