"""Runs of one pair have their weights, their splits and their order of batches in common."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lightning_dlopt.cli.compared_arms import resolve
from lightning_dlopt.cli.one_run import run_job
from lightning_dlopt.evidence.jobs import Job, RefusedError
from lightning_dlopt.evidence.runs import Run


@pytest.fixture(autouse=True)
def _own_threads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    before = torch.get_num_threads()
    monkeypatch.chdir(tmp_path)
    yield
    torch.set_num_threads(before)


def base(trace: Path, **trainer: Any) -> list[str]:
    content = {
        "model": {"class_path": "tests.evidence.plain.Plain", "init_args": {"trace": str(trace)}},
        "data": {"class_path": "tests.evidence.plain.PlainData"},
        "trainer": {"max_epochs": 3, "accelerator": "cpu", "logger": False, **trainer},
    }
    path = trace.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(content))
    return [f"--config={path}"]


def run(arguments: list[str], changes: list[str], seed: int = 5, **options: Any) -> Run:
    options = {"metric": "val_loss", "larger_is_better": False, "folder": str(Path.cwd())} | options
    kind = options.pop("kind", "report")
    config = resolve(arguments, changes)
    return run_job(Job("arm", kind, 0, seed, config, **options))


def traces(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_weights_and_batches_are_equal_whatever_an_arm_draws(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    arguments = base(trace)
    runs = [
        run(arguments, changes)
        for changes in (
            [],
            ["trainer.callbacks+=tests.evidence.plain.Thief"],
            ["model.init_args.dropout=0.5", "trainer.callbacks+=tests.evidence.plain.Thief"],
            ["model.init_args.lr=0.01"],
        )
    ]
    first, *others = traces(trace)
    assert len(first["seen"]) == 12
    assert first["seen"][:4] != first["seen"][4:8], "each epoch has an order of its own"
    for other in others:
        assert other == first
    assert len({one.weights for one in runs}) == len({one.batches for one in runs}) == 1
    assert len({one.held_out for one in runs}) == 1
    assert len({one.metrics["val_loss"] for one in runs}) == 4  # and yet each trained its own way


def test_another_seed_is_another_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    arguments = base(trace)
    runs = [run(arguments, [], seed) for seed in (5, 6, 5)]
    first, other, again = traces(trace)
    assert first == again
    assert first["weights"] != other["weights"]
    assert first["seen"] != other["seen"]
    assert runs[0].metrics == runs[2].metrics
    assert runs[0].weights != runs[1].weights
    assert runs[0].batches != runs[1].batches


def test_fingerprints_see_another_order_and_other_weights(tmp_path: Path) -> None:
    arguments = base(tmp_path / "trace.jsonl")
    one, shifted = (run(arguments, change) for change in ([], ["data.init_args.shift=1.0"]))
    assert one.weights == shifted.weights
    assert one.held_out != shifted.held_out
    assert one.batches != shifted.batches


def test_the_curve_ends_where_the_run_ends(tmp_path: Path) -> None:
    arguments = base(tmp_path / "trace.jsonl")
    ended = run(arguments, [], steps=6)
    assert [point.step for point in ended.curve] == [4, 6]
    assert ended.steps == 6
    assert ended.curve[-1].value == ended.metrics["val_loss"]
    assert ended.status == "finished"
    assert 0 < ended.curve[0].seconds < ended.curve[1].seconds


def test_the_best_weights_are_those_with_the_best_metric(tmp_path: Path) -> None:
    arguments = base(tmp_path / "trace.jsonl", max_epochs=6)
    diverging = ["model.init_args.lr=30.0", "model.init_args.dropout=0.0"]
    last, best = (run(arguments, diverging, select=select) for select in ("last", "best"))
    values = [point.value for point in last.curve]
    assert min(values) < values[-1]
    assert last.metrics["val_loss"] == values[-1]
    assert best.metrics["val_loss"] == pytest.approx(min(values))
    assert best.curve[-1].value == values[-1]


@pytest.mark.parametrize(
    ("callback", "status", "why"),
    [
        ("Exploding", "diverged", "val_loss is nan"),
        ("Raising", "crashed", "RuntimeError: the second batch is too much"),
    ],
)
def test_a_failure_is_a_result(tmp_path: Path, callback: str, status: str, why: str) -> None:
    arguments = base(tmp_path / "trace.jsonl")
    ended = run(arguments, [f"trainer.callbacks+=tests.evidence.plain.{callback}"])
    assert (ended.status, ended.why) == (status, why)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    arguments = base(tmp_path / "trace.jsonl")
    with pytest.raises(RefusedError, match="validation logs no 'val_f1'; logged are: val_acc, val"):
        run(arguments, [], metric="val_f1")
    with pytest.raises(RefusedError, match="arm, seed 5: there are two LabelSmoothing"):
        run(arguments, ["trainer.callbacks+=LabelSmoothing", "trainer.callbacks+=LabelSmoothing"])


def test_a_technique_without_effect_is_told(tmp_path: Path) -> None:
    ended = run(base(tmp_path / "trace.jsonl"), ["trainer.callbacks+=BlurPool"])
    assert ended.status == "finished"
    assert ended.why.startswith("BlurPool() has no effect: ")


def test_rates_are_multiplied_before_a_schedule_sees_them(tmp_path: Path) -> None:
    arguments = base(tmp_path / "trace.jsonl")
    for changes in ([], ["trainer.callbacks+=CosineLR"]):
        scaled = run(arguments, changes, rate_factor=0.1)
        by_hand = run(arguments, ["model.init_args.lr=0.01", *changes])
        assert scaled.metrics["val_loss"] == pytest.approx(by_hand.metrics["val_loss"], rel=1e-6)


def test_the_test_says_what_validation_says_of_the_same_data(tmp_path: Path) -> None:
    ended = run(base(tmp_path / "trace.jsonl"), [])
    assert ended.metrics["test_loss"] == ended.metrics["val_loss"]
    # the module logs this name in its test, too
    assert ended.metrics["val_acc"] == ended.metrics["test_acc"] > 0


def test_a_test_that_fails_takes_nothing_from_the_run(tmp_path: Path) -> None:
    ended = run(base(tmp_path / "trace.jsonl"), ["data.init_args.test=raises"])
    assert ended.status == "finished"
    assert ended.why == "the test failed: NotImplementedError: there is no test set"
    assert "val_loss" in ended.metrics
    assert "test_loss" not in ended.metrics


@pytest.mark.parametrize(
    ("callback", "why"),
    [("Raising", None), ("Early", "RuntimeError: the first batch is too much")],
)
def test_a_trial_is_one_step(tmp_path: Path, callback: str, why: str | None) -> None:
    changes = [f"trainer.callbacks+=tests.evidence.plain.{callback}"]
    arguments = base(tmp_path / "trace.jsonl")
    if why is None:
        assert run(arguments, changes, kind="trial").status == "finished"
        assert [len(one["seen"]) for one in traces(tmp_path / "trace.jsonl")] == [1]
    else:
        with pytest.raises(RefusedError, match=why):
            run(arguments, changes, kind="trial")
