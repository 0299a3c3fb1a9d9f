"""Small nets of which it is known what must happen to their channels."""

from typing import Any

import torch
import torch.nn.utils.prune
from torch import nn

from lightning_dlopt.structure.channels.choose import (
    Shrinkage,
    choose_channels,
)

IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def convolutions() -> Any:
    """Three convolutions and an output layer, behind a flattening."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(256, 5),
    )


def mlp() -> Any:
    """Two hidden layers."""
    return nn.Sequential(
        nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 3)
    )


def choose(module: Any, **arguments: Any) -> Shrinkage:
    """Choose on images or on rows of four numbers."""
    example = IMAGES if isinstance(module[0], nn.Conv2d) else torch.ones(2, 4)
    return choose_channels(module, lambda copied: copied(example), **arguments)
