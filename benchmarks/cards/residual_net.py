"""The network of the method cards' image studies: small enough for hundreds of runs on a CPU."""

from torch import Tensor, nn


class Residual(nn.Module):
    """A convolution, BatchNorm and ReLU whose output is added to the input: ``x + branch(x)``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(*_convolve(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum, of the shape of ``x``."""
        return x + self.branch(x)  # type: ignore[no-any-return]


class ResidualNet(nn.Sequential):
    """Two convolutions with stride 2, residual ones, a max-pooling, and residual ones again.

    Of images of 28 x 28 the residual ones see 7 x 7 and 4 x 4 places. All convolutions are 3 x 3
    with BatchNorm and ReLU; the mean over all places, dropout and a linear layer make the output,
    so images of any size can be given.

    Args:
        width: channels of the first convolution; the second has twice, the last ones four times
            as many.
        blocks: residual convolutions at each of the two sizes.
        dropout: the rate of the dropout before the linear layer, in [0, 1).
        num_classes: number of outputs.

    Shape:
        ``(batch, 1, height, width)``; the output is ``(batch, num_classes)``.

    Example:
        >>> import torch
        >>> ResidualNet()(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self, width: int = 12, blocks: int = 1, dropout: float = 0.1, num_classes: int = 10
    ) -> None:
        super().__init__(
            *_convolve(1, width, stride=2),
            *_convolve(width, 2 * width, stride=2),
            *(Residual(2 * width) for _ in range(blocks)),
            nn.MaxPool2d(2, ceil_mode=True),
            *_convolve(2 * width, 4 * width),
            *(Residual(4 * width) for _ in range(blocks)),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(4 * width, num_classes),
        )


def _convolve(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    ]
