"""LightningModules that the recipes train."""

from lightning_dlopt.modules.image_classifier import ImageClassifier

__all__ = ["ImageClassifier"]
