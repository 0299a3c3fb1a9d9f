"""How much the gradients of two batches differ, in units of what they agree on."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_dlopt.core.checks import check_integer
from lightning_dlopt.core.errors import ArgumentError


class NoiseScale(NamedTuple):
    """The simple noise scale, ``tr(Sigma) / |G|**2``, and how well it is known.

    Attributes:
        scale: in samples; the batch size at which noise and gradient are as large as each other.
            Infinite if the gradients have nothing in common that could be told from noise.
        low: lower end of its interval of about 95 %, at least 0.
        high: upper end; infinite if the data doesn't say that there is one.
        noise: unbiased estimate of ``tr(Sigma)``, the variance of a single sample's gradient.
        signal: unbiased estimate of ``|G|**2``; may be negative.
    """

    scale: float
    low: float
    high: float
    noise: float
    signal: float


def noise_scale(gradients: Tensor, batch_size: int) -> NoiseScale:
    """Estimate the simple noise scale from gradients at the same weights.

    Batches much smaller than it give gradients that are mostly noise: twice as many samples in
    each let training take about half as many steps. Batches much larger than it give nearly the
    same gradient every time: further samples in them are wasted.

    Two batch sizes ``b`` and ``B`` tell both parts apart: the expected squared norm of a gradient
    is ``|G|**2 + tr(Sigma) / batch``. Here the large batch is all ``K`` small ones together. The
    interval is that of E. C. Fieller for a ratio, from the jackknife's covariance.

    Source: S. McCandlish, J. Kaplan, D. Amodei, An Empirical Model of Large-Batch Training, 2018,
    arXiv:1812.06162 (appendix A.1). They average over the course of training; this is one moment.

    Args:
        gradients: ``(K, P)``, each the mean over ``batch_size`` samples; K at least 3.
        batch_size: samples in each of the K batches, at least 1.

    Raises:
        ArgumentError: for fewer gradients, or values that aren't finite.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> noise = torch.randn(400, 50, generator=generator)  # trace 50 at batches of 1
        >>> found = noise_scale(1.0 + noise, batch_size=1)  # |G|^2 is 50
        >>> 0.8 < found.scale < 1.2, found.low < 1 < found.high
        (True, True)
    """
    batch_size = check_integer("noise_scale", "batch_size", batch_size, "[1, inf)")
    if gradients.dim() != 2 or len(gradients) < 3:
        raise ArgumentError(
            f"noise_scale: gradients of shape {tuple(gradients.shape)} must be (K, P), K at least 3"
        )
    gradients = gradients.double()
    if not bool(gradients.isfinite().all()):
        raise ArgumentError("noise_scale: gradients hold values that aren't finite")
    count = len(gradients)
    squares = gradients.square().sum(1)
    total = gradients.sum(0)
    dots = gradients @ total
    whole = total @ total
    signal, noise = _parts(squares.sum(), whole, count, batch_size)
    # each left out once: what is left needs the inner products only
    left = _parts(squares.sum() - squares, whole - 2 * dots + squares, count - 1, batch_size)
    pairs = torch.stack([left[0], left[1]])
    covariance = (count - 1) * torch.cov(pairs, correction=0)
    low, high = _ratio_interval(noise, signal, covariance)
    scale = float(noise / signal) if signal > 0 else math.inf
    return NoiseScale(scale, low, high, float(noise), float(signal))


def _parts(squares: Tensor, whole: Tensor, count: int, batch: int) -> tuple[Tensor, Tensor]:
    """Return ``|G|**2`` and ``tr(Sigma)`` from the sum of squares and the square of the sum."""
    small, large = squares / count, whole / count**2
    signal = (count * large - small) / (count - 1)
    return signal, (small - large) * batch * count / (count - 1)


def _ratio_interval(noise: Tensor, signal: Tensor, covariance: Tensor) -> tuple[float, float]:
    """Return between which ratios ``noise - ratio * signal`` is within two standard errors of 0."""
    width = 4.0  # two standard errors, squared
    a = float(signal**2 - width * covariance[0, 0])
    b = float(noise * signal - width * covariance[0, 1])
    c = float(noise**2 - width * covariance[1, 1])
    root = math.sqrt(max(b * b - a * c, 0.0))
    if a > 0 and signal > 0:
        return max((b - root) / a, 0.0), max((b + root) / a, 0.0)
    if c <= 0:  # neither of the two can be told from 0
        return 0.0, math.inf
    # outside of the two roots, of which the positive one is the least ratio
    return max((b - root) / a if a else c / (2 * b) if b > 0 else 0.0, 0.0), math.inf
