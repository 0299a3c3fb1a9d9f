"""The noise scale against a problem whose noise and gradient are known."""

import math

import numpy as np
import pytest
import torch

from lightning_dlopt.core.errors import ArgumentError
from lightning_dlopt.evidence.advise.noise_scale import noise_scale


class Quadratic:
    """``E (w - x)' H (w - x) / 2`` over ``x ~ N(mean, C)``: gradient and its covariance by hand."""

    def __init__(self, distance: float) -> None:
        generator = torch.Generator().manual_seed(1)
        root = torch.randn(6, 6, generator=generator, dtype=torch.float64)
        self.hessian = root @ root.T + torch.eye(6, dtype=torch.float64)
        self.spread = torch.diag(torch.linspace(0.2, 2.0, 6, dtype=torch.float64))
        self.offset = distance * torch.linspace(-1, 1, 6, dtype=torch.float64)
        self.gradient = self.hessian @ self.offset
        factor = self.hessian @ self.spread
        self.trace = float((factor @ factor.T).trace())

    def batch_gradients(self, count: int, batch: int, generator: torch.Generator) -> torch.Tensor:
        """Return mean gradients of batches, of samples that are drawn."""
        noise = torch.randn(count, batch, 6, generator=generator, dtype=torch.float64)
        samples = noise @ self.spread  # x - mean
        return (self.gradient - samples @ self.hessian).mean(1)


@pytest.mark.parametrize("batch", [1, 8])
def test_both_parts_are_unbiased(batch: int) -> None:
    problem, generator = Quadratic(2.0), torch.Generator().manual_seed(3)
    found = [noise_scale(problem.batch_gradients(8, batch, generator), batch) for _ in range(3000)]
    noise = np.array([one.noise for one in found])
    signal = np.array([one.signal for one in found])
    for values, truth in ((noise, problem.trace), (signal, float(problem.gradient.square().sum()))):
        error = values.std(ddof=1) / math.sqrt(len(values))
        assert abs(values.mean() - truth) < 4 * error
        assert error < 0.05 * truth  # or the line above would say little


def test_it_is_the_formula_of_two_batch_sizes() -> None:
    gradients = Quadratic(0.3).batch_gradients(5, 4, torch.Generator().manual_seed(0))
    small, large = 4, 20
    norm_small = np.mean([float(g.norm()) ** 2 for g in gradients])
    norm_large = float(gradients.mean(0).norm()) ** 2
    signal = (large * norm_large - small * norm_small) / (large - small)
    noise = (norm_small - norm_large) / (1 / small - 1 / large)
    found = noise_scale(gradients, 4)
    assert found.signal == pytest.approx(signal, rel=1e-9)
    assert found.noise == pytest.approx(noise, rel=1e-9)
    assert found.scale == pytest.approx(noise / signal, rel=1e-9)


@pytest.mark.parametrize("distance", [0.02, 0.1, 1.0])
def test_the_interval_covers_the_truth(distance: float) -> None:
    problem, generator = Quadratic(distance), torch.Generator().manual_seed(3)
    truth = problem.trace / float(problem.gradient.square().sum())
    found = [noise_scale(problem.batch_gradients(16, 4, generator), 4) for _ in range(1000)]
    covered = sum(one.low <= truth <= one.high for one in found) / len(found)
    assert covered > 0.88  # 95 % minus what jackknifing 16 values costs
    if distance == 1.0:
        assert covered < 1  # it says something
        assert sum(one.high < 30 * truth for one in found) > 500


def test_noise_alone_has_no_upper_end() -> None:
    generator = torch.Generator().manual_seed(4)
    found = noise_scale(torch.randn(16, 2000, generator=generator), 4)
    assert found.high == math.inf
    assert found.low > 4 * 5  # the mean of all 64 samples is still noise


def test_the_same_gradient_every_time_has_no_noise() -> None:
    found = noise_scale(torch.ones(6, 10), 32)
    assert found.scale == pytest.approx(0, abs=1e-9)
    assert found.high < 1e-6


def test_all_zero_gradients_say_nothing() -> None:
    found = noise_scale(torch.zeros(6, 10), 32)
    assert (found.low, found.high, found.scale) == (0.0, math.inf, math.inf)


def test_bad_arguments() -> None:
    with pytest.raises(ArgumentError, match="K at least 3"):
        noise_scale(torch.zeros(2, 5), 1)
    with pytest.raises(ArgumentError, match="batch_size=0"):
        noise_scale(torch.zeros(4, 5), 0)
    with pytest.raises(ArgumentError, match="finite"):
        noise_scale(torch.full((4, 5), math.nan), 1)
