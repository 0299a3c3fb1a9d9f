"""Augmentation of whole batches: callbacks, the mixin, and plain functions."""

from lightning_dlopt.augmentation.batch_mixer import BatchMixer
from lightning_dlopt.augmentation.cut_mix import CutMix, cut_mix, draw_cuts, kept_shares
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
from lightning_dlopt.augmentation.random_erase import RandomErase, draw_boxes, erase_boxes
from lightning_dlopt.augmentation.random_mix import RandomMix, choose

__all__ = [
    "AugmentationMixin",
    "BatchMixer",
    "CutMix",
    "MixUp",
    "MixedLabels",
    "Mixture",
    "RandomErase",
    "RandomMix",
    "choose",
    "cut_mix",
    "draw_boxes",
    "draw_cuts",
    "draw_shares",
    "draw_shift",
    "erase_boxes",
    "kept_shares",
    "mix_labels",
    "mix_up",
    "mixed_cross_entropy",
    "soften",
]
