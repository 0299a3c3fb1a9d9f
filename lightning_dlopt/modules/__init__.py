"""LightningModules that the recipes train."""

from lightning_dlopt.modules.image_classifier import ImageClassifier
from lightning_dlopt.modules.text_classifier import TextClassifier

__all__ = ["ImageClassifier", "TextClassifier"]
