"""Augmentation of whole batches: callbacks, the mixin, and plain functions."""

from lightning_dlopt.augmentation.mixin import AugmentationMixin
from lightning_dlopt.augmentation.random_erase import RandomErase, draw_boxes, erase_boxes

__all__ = [
    "AugmentationMixin",
    "RandomErase",
    "draw_boxes",
    "erase_boxes",
]
