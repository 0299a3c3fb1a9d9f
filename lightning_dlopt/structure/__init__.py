"""Network structures."""

from lightning_dlopt.structure.conv_net import ConvNet
from lightning_dlopt.structure.mlp import MLP

__all__ = ["MLP", "ConvNet"]
