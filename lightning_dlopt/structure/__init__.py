"""Network structures, and techniques that change a model's."""

from lightning_dlopt.structure.blur_pool import BlurPool, blur_pool
from lightning_dlopt.structure.channels.channel_pruning import ChannelPruning
from lightning_dlopt.structure.channels.choose import (
    Shrinkage,
    choose_channels,
    prune_channels,
    shrink_,
)
from lightning_dlopt.structure.channels_last import ChannelsLast, to_channels_last
from lightning_dlopt.structure.compile import Compile, compile_parts
from lightning_dlopt.structure.export.export_module import export_module
from lightning_dlopt.structure.export.exported import Exported, Exports
from lightning_dlopt.structure.ghost_batch_norm import GhostBatchNorm, ghost_batch_norm
from lightning_dlopt.structure.load import load_from_checkpoint
from lightning_dlopt.structure.low_rank import LowRank, factorize, low_rank
from lightning_dlopt.structure.magnitude.magnitude import cubic_sparsity, prune_by_magnitude_
from lightning_dlopt.structure.magnitude.magnitude_pruning import MagnitudePruning
from lightning_dlopt.structure.mixin import StructureMixin
from lightning_dlopt.structure.networks.attention_net import AttentionNet
from lightning_dlopt.structure.networks.conv_net import ConvNet
from lightning_dlopt.structure.networks.mlp import MLP
from lightning_dlopt.structure.networks.recurrent_net import RecurrentNet
from lightning_dlopt.structure.networks.res_net9 import ResNet9
from lightning_dlopt.structure.sharing.share_layers import ShareLayers, share_layers
from lightning_dlopt.structure.sharing.tie_parameters import TieParameters, tie_parameters
from lightning_dlopt.structure.squeeze_excite import SqueezeExcite, squeeze_excite
from lightning_dlopt.structure.summaries.multiply_adds import count_multiply_adds
from lightning_dlopt.structure.summaries.summarize import (
    Summaries,
    Summary,
    summarize,
    summarize_all,
)
from lightning_dlopt.structure.weight_standardization import (
    WeightStandardization,
    standardize_weights,
)

__all__ = [
    "MLP",
    "AttentionNet",
    "BlurPool",
    "ChannelPruning",
    "ChannelsLast",
    "Compile",
    "ConvNet",
    "Exported",
    "Exports",
    "GhostBatchNorm",
    "LowRank",
    "MagnitudePruning",
    "RecurrentNet",
    "ResNet9",
    "ShareLayers",
    "Shrinkage",
    "SqueezeExcite",
    "StructureMixin",
    "Summaries",
    "Summary",
    "TieParameters",
    "WeightStandardization",
    "blur_pool",
    "choose_channels",
    "compile_parts",
    "count_multiply_adds",
    "cubic_sparsity",
    "export_module",
    "factorize",
    "ghost_batch_norm",
    "load_from_checkpoint",
    "low_rank",
    "prune_by_magnitude_",
    "prune_channels",
    "share_layers",
    "shrink_",
    "squeeze_excite",
    "standardize_weights",
    "summarize",
    "summarize_all",
    "tie_parameters",
    "to_channels_last",
]
