"""Augmentation of whole batches: callbacks, the mixin, and plain functions."""

from lightning_dlopt.augmentation.batch_mixer import BatchMixer
from lightning_dlopt.augmentation.crop_tokens import CropTokens, crop_tokens
from lightning_dlopt.augmentation.cut_mix import CutMix, cut_mix, draw_cuts, kept_shares
from lightning_dlopt.augmentation.delete_tokens import DeleteTokens, delete_tokens
from lightning_dlopt.augmentation.geometry import Geometry, draw_geometry
from lightning_dlopt.augmentation.insert_tokens import InsertTokens, insert_tokens
from lightning_dlopt.augmentation.mix_up import MixUp, mix_up
from lightning_dlopt.augmentation.mixed_loss import mixed_cross_entropy
from lightning_dlopt.augmentation.mixin import AugmentationMixin
from lightning_dlopt.augmentation.mixture import (
    MixedLabels,
    Mixture,
    draw_shares,
    draw_shift,
    mix_labels,
    soften,
)
from lightning_dlopt.augmentation.progressive_resize import (
    ProgressiveResize,
    image_scale,
    resize_images,
    resize_masks,
    scaled_size,
)
from lightning_dlopt.augmentation.random_erase import RandomErase, draw_boxes, erase_boxes
from lightning_dlopt.augmentation.random_geometry import RandomGeometry
from lightning_dlopt.augmentation.random_mix import RandomMix, choose
from lightning_dlopt.augmentation.replace_tokens import ReplaceTokens, replace_tokens
from lightning_dlopt.augmentation.resampling import transform_images, transform_masks
from lightning_dlopt.augmentation.swap_tokens import SwapTokens, swap_tokens
from lightning_dlopt.augmentation.tokens import edit_tokens

__all__ = [
    "AugmentationMixin",
    "BatchMixer",
    "CropTokens",
    "CutMix",
    "DeleteTokens",
    "Geometry",
    "InsertTokens",
    "MixUp",
    "MixedLabels",
    "Mixture",
    "ProgressiveResize",
    "RandomErase",
    "RandomGeometry",
    "RandomMix",
    "ReplaceTokens",
    "SwapTokens",
    "choose",
    "crop_tokens",
    "cut_mix",
    "delete_tokens",
    "draw_boxes",
    "draw_cuts",
    "draw_geometry",
    "draw_shares",
    "draw_shift",
    "edit_tokens",
    "erase_boxes",
    "image_scale",
    "insert_tokens",
    "kept_shares",
    "mix_labels",
    "mix_up",
    "mixed_cross_entropy",
    "replace_tokens",
    "resize_images",
    "resize_masks",
    "scaled_size",
    "soften",
    "swap_tokens",
    "transform_images",
    "transform_masks",
]
