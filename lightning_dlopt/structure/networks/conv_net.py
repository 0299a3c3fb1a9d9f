"""A small convolutional network."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from lightning_dlopt.core.checks import check_integer, check_integers
from lightning_dlopt.core.errors import ArgumentError


class ConvNet(nn.Sequential):
    """Convolutions of 3 x 3 with BatchNorm and ReLU, a pooling between them, and one linear layer.

    The mean over all places comes before the linear layer, so images of any size can be given.

    Source: Y. LeCun and others, Backpropagation Applied to Handwritten Zip Code Recognition, 1989;
    kernels of 3 x 3 as in K. Simonyan, A. Zisserman, Very Deep Convolutional Networks for
    Large-Scale Image Recognition, 2014, arXiv:1409.1556; the mean over all places as in M. Lin, Q.
    Chen, S. Yan, Network In Network, 2013, arXiv:1312.4400.

    When:
        Small images, with a small network; images of several sizes.

    When not:
        Many layers, which want residual connections; tasks for which it matters where something is,
        since the mean over all places forgets it.

    Args:
        channels: from the images' to the last layer's, at least two; ``[1, 32, 64]`` has two
            convolutions. Between them the size is halved, an odd one rounded up.
        num_classes: the size of the output.

    Shape:
        ``(batch, channels[0], height, width)`` with a height and width of at least 1; the output
        is ``(batch, num_classes)``, without an activation.

    Example:
        >>> import torch
        >>> network = ConvNet([1, 16, 32], num_classes=10)
        >>> network(torch.zeros(2, 1, 28, 28)).shape, network(torch.zeros(2, 1, 7, 5)).shape
        (torch.Size([2, 10]), torch.Size([2, 10]))
    """

    def __init__(self, channels: Sequence[int], num_classes: int = 10) -> None:
        widths = check_integers(self, "channels", channels, "[1, inf)")
        if len(widths) < 2:
            raise ArgumentError(f"ConvNet: channels={widths} must hold an input and an output")
        classes = check_integer(self, "num_classes", num_classes, "[1, inf)")
        layers: list[nn.Module] = []
        for width, next_width in pairwise(widths):
            if layers:
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
            layers += [
                nn.Conv2d(width, next_width, 3, padding=1, bias=False),
                nn.BatchNorm2d(next_width),
                nn.ReLU(),
            ]
        super().__init__(
            *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], classes)
        )
