"""One-batch overfit, loader time, train/validation gap, gradient-norm tail."""

import math
from statistics import median
from typing import Any

import pytest
import torch

from lightning_dlopt import MLP, ClipGradNorm, Digits, ImageClassifier
from lightning_dlopt.evidence.advise.finding import NotDoneError
from lightning_dlopt.evidence.advise.probe import Probe
from lightning_dlopt.evidence.advise.probes.gradient_tail import GradientTail, gradient_tail
from lightning_dlopt.evidence.advise.probes.loader_time import LoaderTime, waiting
from lightning_dlopt.evidence.advise.probes.one_batch import OneBatch, drop
from lightning_dlopt.evidence.advise.probes.train_gap import TrainGap, loss_gap
from lightning_dlopt.evidence.advise.training import quiet_trainer
from tests.evidence.advise.faulty import Blobs, Clock, Exploding, Net, Sleepy
from tests.evidence.advise.probing import probe, seeded


def digits(seed: int) -> tuple[Any, Any]:
    return seeded(lambda: ImageClassifier(MLP([64, 128, 128, 10])), seed=seed), Digits()


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("one", [OneBatch(), TrainGap(), GradientTail()], ids=lambda one: one.name)
def test_a_healthy_module_gets_no_alarm(one: Probe, seed: int) -> None:
    for module, data in (digits(seed), (seeded(Net, seed=seed), Blobs())):
        for found in probe(one, module, data):
            assert (found.severity, found.suggestion, found.overlay) == (0, None, None)
            assert found.question in one.questions


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("fault", ["frozen", "broken", "labels"])
def test_what_cannot_learn_a_batch_is_found(fault: str, seed: int) -> None:
    data = Blobs(same=fault == "labels")
    (found,) = probe(OneBatch(), seeded(Net, fault=fault, seed=seed), data)
    assert found.severity >= 0.7
    assert ("frozen)" in found.reason) == (fault == "frozen")
    assert len(found.data["drop_by_rate_factor"]) == 5  # the rate isn't to blame


def test_a_rate_too_low_is_not_blamed_on_the_batch() -> None:
    (found,) = probe(OneBatch(), seeded(Net, rate=1e-5), Blobs())
    assert found.severity == 0
    assert "100 times the rate" in found.figure


def test_drop_compares_means_of_three_steps() -> None:
    assert drop([4.0, 4.0, 1.0, 1.0, 1.0, 3.0]) == pytest.approx(0.75)
    assert drop([2.0, 3.0, 4.0, 5.0, 6.0]) == 0
    assert drop([-1.0, -1.5, -3.0, -3.0, -3.0]) == pytest.approx(2.0)
    assert drop([2.0, math.nan]) == 0


def test_a_loader_that_sleeps_is_found() -> None:
    clock = Clock()
    config = {"data": {"init_args": {"num_workers": 0}}}
    options: dict[str, Any] = {"clock": clock, "config": config}
    (found,) = probe(LoaderTime(), Net(clock=clock), Sleepy(clock, 0.04), **options)
    assert found.data["waiting_share"] == pytest.approx(0.8)
    assert found.figure == "80% of the time waiting (40.0 ms, step 10.0 ms)"
    assert found.severity == pytest.approx(0.8)
    assert found.overlay == {"data": {"init_args": {"num_workers": 2}}}


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.004])
def test_a_loader_that_is_fast_enough_is_not(seconds: float) -> None:
    clock = Clock()
    (found,) = probe(LoaderTime(), Net(clock=clock), Sleepy(clock, seconds), clock=clock)
    assert found.severity == 0
    assert found.data["waiting_ms"] == pytest.approx(1000 * seconds)


def test_one_long_wait_in_ten_is_left_out() -> None:
    begins = [float(i) for i in range(11)]
    begins[5:] = [begin + 100 for begin in begins[5:]]
    assert waiting(begins, [begin + 0.25 for begin in begins]) == pytest.approx((0.75, 0.25))


@pytest.mark.parametrize("seed", [1, 2])
def test_a_network_far_too_large_for_two_hundred_samples_is_found(seed: int) -> None:
    module = seeded(Net, 256, 1024, rate=0.001, seed=seed)
    regularizer, other = probe(TrainGap(), module, Blobs(200, 256, 0.15))
    assert regularizer.severity > 0.5
    assert (regularizer.question, other.question) == ("regularizer", "generalization")
    assert regularizer.data["train_accuracy"] > 0.99
    assert regularizer.data["validation_accuracy"] < 0.8
    gap = regularizer.data["validation_loss"] - regularizer.data["train_loss"]
    gain = regularizer.data["start_loss"] - regularizer.data["train_loss"]
    assert regularizer.data["loss_gap"] == pytest.approx(gap / gain)
    assert regularizer.overlay == {
        "trainer": {"callbacks+": [{"class_path": "L2", "init_args": {"strength": 0.001}}]}
    }


def test_what_is_there_already_is_not_suggested_again() -> None:
    callbacks = [{"class_path": "lightning_dlopt.L2"}, {"class_path": "lightning_dlopt.MixUp"}]
    config = {"trainer": {"callbacks": callbacks}}
    module = seeded(Net, 256, 1024, rate=0.001)
    first, second = probe(TrainGap(), module, Blobs(200, 256, 0.15), config=config)
    assert first.arm == "smoothing"
    assert second.overlay is None


def test_no_gain_is_no_gap() -> None:
    assert loss_gap(1.0, 2.0, 3.0) == 0


def test_without_validation_the_gap_is_not_measured() -> None:
    data = Blobs()
    data.val_dataloader = lambda: []  # type: ignore[method-assign]
    with pytest.raises(NotDoneError, match="no validation data"):
        probe(TrainGap(), Net(), data)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_tail_of_gradients_is_found(seed: int) -> None:
    (found,) = probe(GradientTail(), seeded(Net, seed=seed), Blobs(outliers=1000.0))
    assert found.severity > 0.5
    assert found.overlay is not None
    (callback,) = found.overlay["trainer"]["callbacks+"]
    assert callback["class_path"] == "ClipGradNorm"
    assert found.data["median"] < callback["init_args"]["max_norm"] < found.data["largest"] / 20


def test_gradients_that_explode_are_found() -> None:
    (found,) = probe(GradientTail(), seeded(Exploding), Blobs())
    assert found.severity == 1
    assert found.data["not_finite"] == 1
    assert found.overlay is None  # no clipping makes a direction of what isn't finite


@pytest.mark.parametrize("how", ["callback", "trainer"])
def test_a_tail_that_is_clipped_already_is_no_finding(how: str) -> None:
    trainer = quiet_trainer(None, [ClipGradNorm(1.0)] if how == "callback" else [], 1)
    if how == "trainer":
        trainer.gradient_clip_val = 1.0
    (found,) = probe(GradientTail(), seeded(Net), Blobs(outliers=1000.0), trainer=trainer)
    assert found.severity == 0
    assert "cuts it off already" in found.reason


def test_the_tail_is_measured_by_what_is_around_it() -> None:
    falling = [100 * 0.9**step for step in range(100)]
    assert gradient_tail(falling).ratio < 5
    falling[70] *= 1000
    peak = falling[70] / max(median(falling[60:81]), 0.5 * sorted(falling[:10])[2])
    assert gradient_tail(falling).ratio == pytest.approx(peak)


def test_norms_that_grow_throughout_are_a_tail() -> None:
    norms = torch.logspace(0, 4, 100).tolist()
    assert gradient_tail(norms).ratio == pytest.approx(median(norms[80:]) / median(norms[:20]) / 5)
