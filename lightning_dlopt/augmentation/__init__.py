"""Augmentation of whole batches: callbacks, the mixin, and plain functions."""

from lightning_dlopt.augmentation.crop_tokens import CropTokens, crop_tokens
from lightning_dlopt.augmentation.delete_tokens import DeleteTokens, delete_tokens
from lightning_dlopt.augmentation.insert_tokens import InsertTokens, insert_tokens
from lightning_dlopt.augmentation.mixin import AugmentationMixin
from lightning_dlopt.augmentation.random_erase import RandomErase, draw_boxes, erase_boxes
from lightning_dlopt.augmentation.replace_tokens import ReplaceTokens, replace_tokens
from lightning_dlopt.augmentation.swap_tokens import SwapTokens, swap_tokens
from lightning_dlopt.augmentation.tokens import edit_tokens

__all__ = [
    "AugmentationMixin",
    "CropTokens",
    "DeleteTokens",
    "InsertTokens",
    "RandomErase",
    "ReplaceTokens",
    "SwapTokens",
    "crop_tokens",
    "delete_tokens",
    "draw_boxes",
    "edit_tokens",
    "erase_boxes",
    "insert_tokens",
    "replace_tokens",
    "swap_tokens",
]
