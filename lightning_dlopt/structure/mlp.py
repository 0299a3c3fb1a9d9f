"""A multilayer perceptron."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from lightning_dlopt.core.checks import check_integer, check_number
from lightning_dlopt.core.errors import ArgumentError


class MLP(nn.Sequential):
    """Fully connected layers with ReLU between them.

    Args:
        sizes: the widths from input to output, at least two; ``[784, 128, 128, 10]`` has two
            hidden layers.
        dropout: the share of hidden values that training sets to zero, in [0, 1); at 0 there are
            no dropout layers.

    Shape:
        Any ``(batch, ...)`` with ``sizes[0]`` values a sample, flattened on entry (an image needs
        no layer before it); the output is ``(batch, sizes[-1])``, without an activation.

    Example:
        >>> import torch
        >>> MLP([784, 128, 10])(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(self, sizes: Sequence[int], dropout: float = 0.0) -> None:
        widths = [check_integer(self, "sizes", size, "[1, inf)") for size in sizes]
        if len(widths) < 2:
            raise ArgumentError(f"MLP: sizes={widths} must hold at least an input and an output")
        dropout = check_number(self, "dropout", dropout, "[0, 1)")
        layers: list[nn.Module] = [nn.Flatten()]
        for width, next_width in pairwise(widths[:-1]):
            layers += [nn.Linear(width, next_width), nn.ReLU()]
            if dropout:
                layers.append(nn.Dropout(dropout))
        super().__init__(*layers, nn.Linear(widths[-2], widths[-1]))
