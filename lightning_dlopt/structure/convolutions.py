"""Layers that blur before they take samples, and convolutions of standardized kernels.

Each is torch's own layer under another class: its parameters, their names and their values are
those that torch's has. A convolution can be both.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd


def blur(images: Tensor, stride: tuple[int, int], every: tuple[int, int]) -> Tensor:
    """Blur with [1, 2, 1] / 4 along each axis that has a stride, and return ``every`` n-th pixel.

    Beyond the border stand copies of the outermost pixels, so that an even color stays as it is.

    Args:
        images: ``(batch, channels, height, width)``, or without the batch.
        stride: says which axes are blurred, height first.
        every: the step from one returned pixel to the next, height first.

    Example:
        >>> blur(torch.tensor([[[0.0, 0, 4, 0, 0]]]), (1, 2), (1, 1))
        tensor([[[0., 1., 2., 1., 0.]]])
    """
    # not a buffer: one that checkpoints don't hold would be lost on the way over the meta device
    taps = 0.5 - (torch.arange(3, dtype=images.dtype, device=images.device) - 1).abs() / 4
    rows, columns = (taps if step > 1 else taps[1:2] * 2 for step in stride)
    channels = images.shape[-3]
    kernel = (rows[:, None] * columns).expand(channels, 1, -1, -1)
    above, beside = len(rows) // 2, len(columns) // 2
    padded = functional.pad(images, (beside, beside, above, above), mode="replicate")
    return functional.conv2d(padded, kernel, stride=every, groups=channels)


class BlurredConv2d(nn.Conv2d):
    """A convolution that blurs its input along the axes that it has a stride on."""

    def _conv_forward(self, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        blurred = blur(images, pair(self.stride), (1, 1))
        result: Tensor = super()._conv_forward(blurred, weight, bias)
        return result


class BlurredMaxPool2d(nn.MaxPool2d):
    """A max-pooling that takes every maximum, and blurs these before it takes samples of them."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Return an output of the size that torch's layer gives."""
        size, stride = pair(self.kernel_size), pair(self.stride)
        padding, dilation = pair(self.padding), pair(self.dilation)
        images = input
        if self.ceil_mode:
            lengths = tuple(images.shape[-2:])
            settings = zip(lengths, size, stride, padding, dilation, strict=True)
            below, right = (beyond_border(*axis) for axis in settings)
            images = functional.pad(images, (0, right, 0, below), value=-torch.inf)
        maxima = functional.max_pool2d(images, size, 1, padding, dilation)
        return blur(maxima, stride, stride)


def pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    """Return a setting of both axes, height first."""
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def beyond_border(length: int, size: int, stride: int, padding: int, dilation: int) -> int:
    """Return how far ``ceil_mode`` lets the last window of a pooling hang over the end.

    Example:
        >>> beyond_border(7, 2, 2, 0, 1), beyond_border(8, 2, 2, 0, 1)
        (1, 0)
    """
    room = length + 2 * padding - dilation * (size - 1) - 1
    last = -(-room // stride) * stride
    # torch drops a window that would start beyond the input and its padding before
    return 0 if last >= length + padding else last - room


def standardize(weight: Tensor, eps: float, groups: int = 1, transposed: bool = False) -> Tensor:
    """Return a kernel with mean 0 and variance 1 for each output channel.

    Args:
        weight: of a convolution: ``(out, in / groups, ...)``, or of a transposed one:
            ``(in, out / groups, ...)``.
        eps: is added to the variance.
        groups: the convolution's.
        transposed: whether it is a transposed one.

    Example:
        >>> standardize(torch.tensor([[[1.0, 3.0]], [[5.0, 5.0]]]), eps=0.0001)
        tensor([[[-1.0000,  1.0000]],
        <BLANKLINE>
                [[ 0.0000,  0.0000]]])
    """
    kernel = weight.reshape(groups, -1, *weight.shape[1:]) if transposed else weight
    axes = [axis for axis in range(kernel.dim()) if axis not in ((0, 2) if transposed else (0,))]
    variance, mean = torch.var_mean(kernel, axes, correction=0, keepdim=True)
    return ((kernel - mean) * (variance + eps).rsqrt()).view_as(weight)


class _Standardized(_ConvNd):
    """What standardized convolutions share; ``standardize_eps`` is set with the class."""

    standardize_eps: float

    def extra_repr(self) -> str:
        inherited: Any = super()
        return f"{inherited.extra_repr()}, standardize_eps={self.standardize_eps}"

    def _conv_forward(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        inherited: Any = super()
        kernel = standardize(weight, self.standardize_eps)
        return inherited._conv_forward(inputs, kernel, bias)  # type: ignore[no-any-return]


class StandardizedConv1d(_Standardized, nn.Conv1d):
    """A convolution whose kernels have mean 0 and variance 1 when they are used."""


class StandardizedConv2d(_Standardized, nn.Conv2d):
    """A convolution whose kernels have mean 0 and variance 1 when they are used."""


class StandardizedConv3d(_Standardized, nn.Conv3d):
    """A convolution whose kernels have mean 0 and variance 1 when they are used."""


class StandardizedBlurredConv2d(StandardizedConv2d, BlurredConv2d):
    """A convolution that blurs its input, and whose kernels have mean 0 and variance 1."""


class _StandardizedTransposed(_Standardized, _ConvTransposeNd):
    """What the transposed ones share: torch's have one function for each number of axes."""

    convolve: ClassVar[Callable[..., Tensor]]

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:  # noqa: A002
        axes = len(self.kernel_size)
        padding: Any = self._output_padding(
            input,
            output_size,
            list(self.stride),
            [int(size) for size in self.padding],
            list(self.kernel_size),
            axes,
            list(self.dilation),
        )
        kernel = standardize(self.weight, self.standardize_eps, self.groups, transposed=True)
        settings = (self.stride, self.padding, padding, self.groups, self.dilation)
        return type(self).convolve(input, kernel, self.bias, *settings)


class StandardizedConvTranspose1d(_StandardizedTransposed, nn.ConvTranspose1d):
    """A transposed convolution whose kernels have mean 0 and variance 1 when they are used."""

    convolve = staticmethod(functional.conv_transpose1d)


class StandardizedConvTranspose2d(_StandardizedTransposed, nn.ConvTranspose2d):
    """A transposed convolution whose kernels have mean 0 and variance 1 when they are used."""

    convolve = staticmethod(functional.conv_transpose2d)


class StandardizedConvTranspose3d(_StandardizedTransposed, nn.ConvTranspose3d):
    """A transposed convolution whose kernels have mean 0 and variance 1 when they are used."""

    convolve = staticmethod(functional.conv_transpose3d)
