"""Network structures, and techniques that change a model's."""

from lightning_dlopt.structure.attention_net import AttentionNet
from lightning_dlopt.structure.channel_pruning import ChannelPruning
from lightning_dlopt.structure.channels import (
    Shrinkage,
    choose_channels,
    prune_channels,
    shrink_,
)
from lightning_dlopt.structure.conv_net import ConvNet
from lightning_dlopt.structure.load import load_from_checkpoint
from lightning_dlopt.structure.mixin import StructureMixin
from lightning_dlopt.structure.mlp import MLP
from lightning_dlopt.structure.multiply_adds import count_multiply_adds
from lightning_dlopt.structure.recurrent_net import RecurrentNet
from lightning_dlopt.structure.squeeze_excite import SqueezeExcite, squeeze_excite

__all__ = [
    "MLP",
    "AttentionNet",
    "ChannelPruning",
    "ConvNet",
    "RecurrentNet",
    "Shrinkage",
    "SqueezeExcite",
    "StructureMixin",
    "choose_channels",
    "count_multiply_adds",
    "load_from_checkpoint",
    "prune_channels",
    "shrink_",
    "squeeze_excite",
]
