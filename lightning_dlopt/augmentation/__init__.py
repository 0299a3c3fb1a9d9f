"""Augmentation of whole batches: callbacks, the mixin, and plain functions."""

from lightning_dlopt.augmentation.mixin import AugmentationMixin
from lightning_dlopt.augmentation.progressive_resize import (
    ProgressiveResize,
    image_scale,
    resize_images,
    resize_masks,
    scaled_size,
)
from lightning_dlopt.augmentation.random_erase import RandomErase, draw_boxes, erase_boxes

__all__ = [
    "AugmentationMixin",
    "ProgressiveResize",
    "RandomErase",
    "draw_boxes",
    "erase_boxes",
    "image_scale",
    "resize_images",
    "resize_masks",
    "scaled_size",
]
