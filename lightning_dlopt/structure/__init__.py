"""Network structures."""

from lightning_dlopt.structure.attention_net import AttentionNet
from lightning_dlopt.structure.conv_net import ConvNet
from lightning_dlopt.structure.mlp import MLP
from lightning_dlopt.structure.recurrent_net import RecurrentNet

__all__ = [
    "MLP",
    "AttentionNet",
    "ConvNet",
    "RecurrentNet",
]
