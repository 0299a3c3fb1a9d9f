"""Network structures, and techniques that change a model's."""

from lightning_dlopt.structure.attention_net import AttentionNet
from lightning_dlopt.structure.conv_net import ConvNet
from lightning_dlopt.structure.export import export_module
from lightning_dlopt.structure.exported import Exported, Exports
from lightning_dlopt.structure.load import load_from_checkpoint
from lightning_dlopt.structure.mixin import StructureMixin
from lightning_dlopt.structure.mlp import MLP
from lightning_dlopt.structure.multiply_adds import count_multiply_adds
from lightning_dlopt.structure.recurrent_net import RecurrentNet
from lightning_dlopt.structure.squeeze_excite import SqueezeExcite, squeeze_excite
from lightning_dlopt.structure.summarize import Summaries, Summary, summarize, summarize_all

__all__ = [
    "MLP",
    "AttentionNet",
    "ConvNet",
    "Exported",
    "Exports",
    "RecurrentNet",
    "SqueezeExcite",
    "StructureMixin",
    "Summaries",
    "Summary",
    "count_multiply_adds",
    "export_module",
    "load_from_checkpoint",
    "squeeze_excite",
    "summarize",
    "summarize_all",
]
