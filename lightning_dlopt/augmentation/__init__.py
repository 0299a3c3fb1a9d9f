"""Augmentation of whole batches: callbacks, the mixin, and plain functions."""

from lightning_dlopt.augmentation.crop_tokens import CropTokens, crop_tokens
from lightning_dlopt.augmentation.delete_tokens import DeleteTokens, delete_tokens
from lightning_dlopt.augmentation.geometry import Geometry, draw_geometry
from lightning_dlopt.augmentation.insert_tokens import InsertTokens, insert_tokens
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
from lightning_dlopt.augmentation.replace_tokens import ReplaceTokens, replace_tokens
from lightning_dlopt.augmentation.resampling import transform_images, transform_masks
from lightning_dlopt.augmentation.swap_tokens import SwapTokens, swap_tokens
from lightning_dlopt.augmentation.tokens import edit_tokens

__all__ = [
    "AugmentationMixin",
    "CropTokens",
    "DeleteTokens",
    "Geometry",
    "InsertTokens",
    "ProgressiveResize",
    "RandomErase",
    "RandomGeometry",
    "ReplaceTokens",
    "SwapTokens",
    "crop_tokens",
    "delete_tokens",
    "draw_boxes",
    "draw_geometry",
    "edit_tokens",
    "erase_boxes",
    "image_scale",
    "insert_tokens",
    "replace_tokens",
    "resize_images",
    "resize_masks",
    "scaled_size",
    "swap_tokens",
    "transform_images",
    "transform_masks",
]
