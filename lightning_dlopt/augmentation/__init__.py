"""Augmentation of whole batches: callbacks, the mixin, and plain functions."""

from lightning_dlopt.augmentation.geometry import Geometry, draw_geometry
from lightning_dlopt.augmentation.mixin import AugmentationMixin
from lightning_dlopt.augmentation.progressive_resize import (
    ProgressiveResize,
    image_scale,
    resize_images,
    resize_masks,
    scaled_size,
)
from lightning_dlopt.augmentation.random_erase import RandomErase, draw_boxes, erase_boxes
from lightning_dlopt.augmentation.random_geometry import RandomGeometry
from lightning_dlopt.augmentation.resampling import transform_images, transform_masks

__all__ = [
    "AugmentationMixin",
    "Geometry",
    "ProgressiveResize",
    "RandomErase",
    "RandomGeometry",
    "draw_boxes",
    "draw_geometry",
    "erase_boxes",
    "image_scale",
    "resize_images",
    "resize_masks",
    "scaled_size",
    "transform_images",
    "transform_masks",
]
