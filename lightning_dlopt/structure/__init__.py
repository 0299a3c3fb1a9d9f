"""Network structures, and techniques that change a model's."""

from lightning_dlopt.structure.attention_net import AttentionNet
from lightning_dlopt.structure.blur_pool import BlurPool, blur_pool
from lightning_dlopt.structure.conv_net import ConvNet
from lightning_dlopt.structure.ghost_batch_norm import GhostBatchNorm, ghost_batch_norm
from lightning_dlopt.structure.load import load_from_checkpoint
from lightning_dlopt.structure.mixin import StructureMixin
from lightning_dlopt.structure.mlp import MLP
from lightning_dlopt.structure.recurrent_net import RecurrentNet
from lightning_dlopt.structure.res_net9 import ResNet9
from lightning_dlopt.structure.squeeze_excite import SqueezeExcite, squeeze_excite
from lightning_dlopt.structure.weight_standardization import (
    WeightStandardization,
    standardize_weights,
)

__all__ = [
    "MLP",
    "AttentionNet",
    "BlurPool",
    "ConvNet",
    "GhostBatchNorm",
    "RecurrentNet",
    "ResNet9",
    "SqueezeExcite",
    "StructureMixin",
    "WeightStandardization",
    "blur_pool",
    "ghost_batch_norm",
    "load_from_checkpoint",
    "squeeze_excite",
    "standardize_weights",
]
