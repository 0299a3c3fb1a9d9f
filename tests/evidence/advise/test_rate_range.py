"""The rate range test."""

import math
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch

from lightning_dlopt import MLP, Digits, ImageClassifier
from lightning_dlopt.evidence.advise.finding import NotDoneError
from lightning_dlopt.evidence.advise.probes.rate_range import (
    RateRange,
    judge,
    progress,
    read_sweep,
    smoothed,
    sweep_factors,
)
from tests.evidence.advise.faulty import Blobs, Net
from tests.evidence.advise.probing import probe, seeded


def classifier(rate: float, seed: int = 1) -> ImageClassifier:
    optimizer = partial(torch.optim.Adam, lr=rate)
    network = seeded(MLP, [64, 128, 128, 10], seed=seed)
    return ImageClassifier(network, optimizer=optimizer)


def test_the_factors_grow_by_one_ratio() -> None:
    factors = sweep_factors(100)
    ratios = [b / a for a, b in pairwise(factors)]
    assert factors[0] == pytest.approx(1e-4)
    assert factors[-1] == pytest.approx(1e4)
    assert max(ratios) == pytest.approx(min(ratios))


def test_smoothing_is_a_weighted_mean() -> None:
    losses = [3.0, 1.0, 4.0, 1.0, 5.0]
    weights = [0.7 ** (4 - i) for i in range(5)]
    mean = sum(w * x for w, x in zip(weights, losses, strict=True)) / sum(weights)
    assert smoothed(losses)[-1] == pytest.approx(mean)


def test_a_sweep_of_a_known_curve() -> None:
    """Flat, a fall that is steepest at step 50, a floor, and a rise beyond the start at 80."""
    losses = [2.0 - 1.8 / (1 + math.exp(-(i - 50) / 4)) for i in range(80)]
    sweep = read_sweep(list(map(float, range(100))), [*losses, 9.0, 99.0, math.inf])
    assert sweep.start == pytest.approx(2.0, abs=1e-3)
    assert sweep.steepest is not None
    assert 48 <= sweep.steepest <= 55
    assert sweep.blow_up is not None
    assert 80 <= sweep.blow_up <= 82


def test_noise_at_rates_too_small_to_matter_is_no_blow_up() -> None:
    generator = torch.Generator().manual_seed(3)
    losses = (2 + 0.5 * torch.randn(100, generator=generator)).tolist()
    sweep = read_sweep(sweep_factors(), losses)
    assert (sweep.steepest, sweep.blow_up) == (None, None)


@pytest.mark.parametrize("losses", [[], [math.nan], [2.0, math.inf]])
def test_a_sweep_that_ends_at_once_shows_nothing(losses: list[float]) -> None:
    assert read_sweep(sweep_factors(), losses).steepest is None


def test_progress_of_a_run_that_blows_up() -> None:
    assert progress(2.0, [1.0, math.nan]) == -math.inf
    assert progress(2.0, []) == -math.inf


@pytest.mark.parametrize(
    ("best", "own", "alarm"),
    [
        (0.01, 0.9, True),
        (0.01, 1.9, False),
        (0.5, -9.0, False),
        (100.0, 0.1, True),
        (100.0, 0.9, False),
        (4.0, 0.1, False),
        (0.01, -math.inf, True),
    ],
)
def test_only_a_far_better_rate_far_away_is_an_alarm(best: float, own: float, alarm: bool) -> None:
    assert (judge(best, 2.0, own) > 0) == alarm


def test_nothing_is_better_where_nothing_progresses() -> None:
    assert judge(100.0, -1.0, -2.0) == 0


@pytest.mark.parametrize("seed", [1, 2])
def test_a_healthy_rate_gets_no_alarm(seed: int) -> None:
    (found,) = probe(RateRange(), classifier(0.003, seed), Digits(batch_size=32))
    assert (found.severity, found.suggestion, found.overlay) == (0, None, None)
    assert found.data["progress"]["0.003"] > 1.5


@pytest.mark.parametrize(("rate", "seed"), [(0.3, 1), (0.3, 2), (1e-5, 1), (1e-5, 2)])
def test_a_rate_a_hundred_times_too_high_or_low_is_found(rate: float, seed: int) -> None:
    (found,) = probe(RateRange(), classifier(rate, seed), Digits(batch_size=32))
    assert found.severity > 0.5
    assert found.overlay is not None
    callback = found.overlay["trainer"]["callbacks+"][0]
    assert callback["class_path"] == "UseOptimizer"
    assert 0.0005 < callback["init_args"]["optimizer"]["init_args"]["lr"] < 0.05


def test_the_overlay_sets_the_key_that_the_configuration_has() -> None:
    config: dict[str, Any] = {"model": {"init_args": {"network": {"lr": 3}, "rate": {"lr": 1e-5}}}}
    (found,) = probe(RateRange(), classifier(1e-5), Digits(batch_size=32), config=config)
    assert found.overlay is not None
    assert list(found.overlay["model"]["init_args"]) == ["rate"]
    assert found.suggestion is not None
    assert "model.init_args.rate.lr" in found.suggestion


def test_a_schedule_of_the_module_is_not_in_the_way() -> None:
    """Its factor of 0.1 at the beginning isn't the configured rate's."""
    (found,) = probe(RateRange(), seeded(Net, rate=0.003), Blobs())
    assert found.severity == 0
    assert found.data["rate"] == 0.003


def test_where_no_rate_helps_the_rate_is_not_blamed() -> None:
    (found,) = probe(RateRange(), seeded(Net, fault="broken", seed=2), Blobs())
    assert found.severity == 0
    assert "no rate" in found.reason


def test_manual_optimization_is_told_of() -> None:
    module = Net()
    module.automatic_optimization = False
    with pytest.raises(NotDoneError, match="by hand"):
        probe(RateRange(), module, Blobs())
