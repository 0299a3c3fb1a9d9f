"""Network structures, and techniques that change a model's."""

from lightning_dlopt.structure.attention_net import AttentionNet
from lightning_dlopt.structure.conv_net import ConvNet
from lightning_dlopt.structure.load import load_from_checkpoint
from lightning_dlopt.structure.mixin import StructureMixin
from lightning_dlopt.structure.mlp import MLP
from lightning_dlopt.structure.recurrent_net import RecurrentNet
from lightning_dlopt.structure.share_layers import ShareLayers, share_layers
from lightning_dlopt.structure.squeeze_excite import SqueezeExcite, squeeze_excite
from lightning_dlopt.structure.tie_parameters import TieParameters, tie_parameters

__all__ = [
    "MLP",
    "AttentionNet",
    "ConvNet",
    "RecurrentNet",
    "ShareLayers",
    "SqueezeExcite",
    "StructureMixin",
    "TieParameters",
    "load_from_checkpoint",
    "share_layers",
    "squeeze_excite",
    "tie_parameters",
]
