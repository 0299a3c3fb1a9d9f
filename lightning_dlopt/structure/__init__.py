"""Network structures."""

from lightning_dlopt.structure.mlp import MLP

__all__ = ["MLP"]
