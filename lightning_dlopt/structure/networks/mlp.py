"""A multilayer perceptron."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from lightning_dlopt.core.checks import check_flag, check_integers, check_number
from lightning_dlopt.core.errors import ArgumentError


class Residual(nn.Module):
    """Adds what a branch makes of the input to the input: ``x + branch(x)``.

    Args:
        branch: keeps the shape.

    Example:
        >>> import torch
        >>> Residual(nn.ReLU())(torch.tensor([-1.0, 1.0]))
        tensor([-1.,  2.])
    """

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum."""
        return x + self.branch(x)  # type: ignore[no-any-return]


class MLP(nn.Sequential):
    """Fully connected layers with ReLU between them.

    Source: D. E. Rumelhart, G. E. Hinton, R. J. Williams, Learning representations by
    back-propagating errors, 1986; ``residual`` as in K. He, X. Zhang, S. Ren, J. Sun, Deep Residual
    Learning for Image Recognition, 2015, arXiv:1512.03385.

    When:
        Inputs are numbers without neighbors, or few enough; as the first thing to beat.

    When not:
        Images and sequences, of whose neighborhoods it knows nothing: its first layer has weights
        for each pixel.

    Args:
        sizes: the widths from input to output, at least two; ``[784, 128, 128, 10]`` has two
            hidden layers.
        dropout: the rate of the dropout after each hidden layer, in [0, 1); at 0 there is none.
        residual: let each hidden layer that is as wide as the one before add to its input. What
            it adds comes out of its ``branch``: ``"3.branch"`` in ``[784, 128, 128, 10]``.

    Shape:
        Any ``(batch, ...)`` with ``sizes[0]`` values a sample, flattened on entry (an image needs
        no layer before it); the output is ``(batch, sizes[-1])``, without an activation.

    Example:
        >>> import torch
        >>> MLP([784, 128, 10])(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(self, sizes: Sequence[int], dropout: float = 0.0, residual: bool = False) -> None:
        widths = check_integers(self, "sizes", sizes, "[1, inf)")
        if len(widths) < 2:
            raise ArgumentError(f"MLP: sizes={widths} must hold at least an input and an output")
        rate = check_number(self, "dropout", dropout, "[0, 1)")
        residual = check_flag(self, "residual", residual)
        layers: list[nn.Module] = [nn.Flatten()]
        for index, (width, next_width) in enumerate(pairwise(widths[:-1])):
            hidden: list[nn.Module] = [nn.Linear(width, next_width), nn.ReLU()]
            if rate > 0:
                hidden.append(nn.Dropout(rate))
            # the first width is the data's, so there is nothing of the network's to add to
            adds = residual and index > 0 and width == next_width
            layers += [Residual(nn.Sequential(*hidden))] if adds else hidden
        super().__init__(*layers, nn.Linear(widths[-2], widths[-1]))
