"""Augmentation of whole batches: callbacks, the mixin, and plain functions."""

from lightning_dlopt.augmentation.geometry import Geometry, draw_geometry
from lightning_dlopt.augmentation.mixin import AugmentationMixin
from lightning_dlopt.augmentation.random_erase import RandomErase, draw_boxes, erase_boxes
from lightning_dlopt.augmentation.random_geometry import RandomGeometry
from lightning_dlopt.augmentation.resampling import transform_images, transform_masks

__all__ = [
    "AugmentationMixin",
    "Geometry",
    "RandomErase",
    "RandomGeometry",
    "draw_boxes",
    "draw_geometry",
    "erase_boxes",
    "transform_images",
    "transform_masks",
]
