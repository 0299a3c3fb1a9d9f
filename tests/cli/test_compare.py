"""``dlopt compare`` as a whole: what it writes, how it goes on, and what it refuses."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_dlopt.evidence.results import read_study
from lightning_dlopt.evidence.runs import Run
from tests.cli.conftest import Run as Dlopt

ROOT = Path(__file__).parents[2]
QUICK = ["--metric=val_loss", "--budget=2ep", "--workers=2"]
SMOOTH = "smooth=trainer.callbacks+=LabelSmoothing"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    content: dict[str, Any] = {
        "model": {"class_path": "tests.evidence.plain.Plain"},
        "data": {"class_path": "tests.evidence.plain.PlainData"},
        "trainer": {"max_epochs": 3, "accelerator": "cpu", "logger": False},
    }
    path = tmp_path / "base.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def runs_of(folder: Path) -> dict[tuple[str, int], Run]:
    return {(run.arm, run.seed): run for run in read_study(folder / "results.jsonl").runs}


def test_a_study_is_made_reported_and_extended(
    dlopt: Dlopt, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["compare", "--config", base, "--arm", SMOOTH, *QUICK]
    code, printed = dlopt(*arguments, "--seeds=2", "--output=study")
    assert code == 0, printed
    folder = tmp_path / "study"
    made = runs_of(folder)
    arms = ["baseline", "smooth"]
    expected = {(arm, seed) for arm in arms for seed in (1, 2)}
    assert set(made) == expected | {("A/A", 1_000_001), ("A/A", 1_000_002)}
    for seed in (1, 2):
        pair = [made[arm, seed] for arm in arms]
        assert len({run.weights for run in pair}) == len({run.batches for run in pair}) == 1
        assert all(run.steps == 8 and run.status == "finished" for run in pair)
    assert read_study(folder / "results.jsonl").outcome == "test_loss"
    for name in ("report.md", "report.html", "effects.png", "curves.png", "time.png"):
        assert (folder / name).stat().st_size > 0
    assert "smooth" in (folder / "report.md").read_text()
    # a third seed: what is there stays as it is, and only what is missing is made
    before = (folder / "results.jsonl").read_text().splitlines()
    code, printed = dlopt(*arguments, "--seeds=3", "--output=study")
    assert code == 0, printed
    after = (folder / "results.jsonl").read_text().splitlines()
    assert after[: len(before)] == before
    assert len(after) == len(before) + 1 + 3  # a header with one seed more, and three runs
    # the same on one worker, of which the order is another
    code, printed = dlopt(*arguments, "--seeds=2", "--output=again", "--workers=1")
    assert code == 0, printed
    for key, run in runs_of(tmp_path / "again").items():
        assert run.metrics == pytest.approx(made[key].metrics, rel=1e-6)


def test_rates_are_tuned_with_seeds_of_their_own(dlopt: Dlopt, base: Path, tmp_path: Path) -> None:
    code, printed = dlopt(
        *["compare", "--config", base, "--arm=slow=model.init_args.lr=0.001", *QUICK],
        *["--seeds=2", "--tune=1,100", "--tune_seeds=1"],
    )
    assert code == 0, printed
    study = read_study(tmp_path / "compare" / "results.jsonl")
    tuned = [(run.arm, run.seed, run.rate_factor) for run in study.runs if run.kind == "tune"]
    arms = ("baseline", "slow")
    assert set(tuned) == {(arm, 2_000_001, factor) for arm in arms for factor in (1.0, 100.0)}
    best = {
        arm: min(
            (run for run in study.runs if run.kind == "tune" and run.arm == arm),
            key=lambda run: run.metrics["val_loss"],
        ).rate_factor
        for arm in arms
    }
    assert best["slow"] == 100.0
    for arm in arms:
        assert {run.rate_factor for run in study.reported(arm).values()} == {best[arm]}
    assert "at edge" in (tmp_path / "compare" / "report.md").read_text()


def test_a_budget_in_seconds_is_as_many_steps_as_it_holds(
    dlopt: Dlopt, base: Path, tmp_path: Path
) -> None:
    arguments = ["compare", "--config", base, "--arm", SMOOTH, "--metric=val_loss", "--seeds=2"]
    code, printed = dlopt(*arguments, "--budget=1s")
    assert code == 0, printed
    runs = read_study(tmp_path / "compare" / "results.jsonl").runs
    steps = {run.arm: round(run.steps / run.seconds) for run in runs if run.kind == "calibrate"}
    assert set(steps) == {"baseline", "smooth"}
    for run in runs:
        if run.kind == "report":
            arm = "baseline" if run.arm == "A/A" else run.arm
            assert run.steps == pytest.approx(steps[arm], abs=1)


def test_an_interrupted_study_goes_on(base: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lightning_dlopt.cli", "compare", f"--config={base}"]
    command += [f"--arm={SMOOTH}", *QUICK, "--seeds=3", "--output=study"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    results = tmp_path / "study" / "results.jsonl"
    first = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE)
    for _ in range(1200):
        if results.exists() and results.read_text().count("\n") > 2:
            break
        time.sleep(0.1)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    results.write_bytes(results.read_bytes() + b'{"run": {"arm": "smo')  # as a kill may leave it
    whole = results.read_text().splitlines()[:-1]
    assert 3 <= len(whole) < 10
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = results.read_text().splitlines()
    assert lines[: len(whole)] == whole
    assert len(lines) == 1 + 9
    assert all(json.loads(line) for line in lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--arm is missing"),
        (["--arm=a=nothing.yaml"], "there is no file nothing.yaml"),
        (["--arm=baseline=trainer.max_epochs=3"], "with another name than 'baseline'"),
        (["--arm=a=model.init_args.lr=0.1"], "--arm a: model.init_args.lr=0.1 changes nothing"),
        (
            ["--arm=a=model.init_args.lr=0.2", "--arm=b=model.init_args.lr=0.2"],
            "--arm b and --arm a are the same",
        ),
        (["--arm=a=model.init_args.rate=0.2"], "--arm a: "),
        (["--arm=a=data=lightning_dlopt.Digits"], "--arm a has other data"),
        ([f"--arm={SMOOTH}", "--seeds=1"], "at least two are needed"),
        ([f"--arm={SMOOTH}", "--seeds=1,1"], "be there once"),
        ([f"--arm={SMOOTH}", "--budget=30%"], "--budget '30%' must be epochs (3ep)"),
        ([f"--arm={SMOOTH}", "--metric=val_thing"], "say --direction max or --direction min"),
        ([f"--arm={SMOOTH}", "--tune=3"], "--tune '3' must be factors"),
        ([f"--arm={SMOOTH}", "--workers=0"], "--workers 0 must be at least 1"),
        ([f"--arm={SMOOTH}", "--ray_address=auto"], "--ray_address is for --launcher ray"),
        ([f"--arm={SMOOTH}", "--trainer.devices=2"], "say --trainer.devices=1"),
    ],
    ids=lambda value: str(len(value)) if isinstance(value, list) else None,
)
def test_mistakes_are_told_before_anything_is_trained(
    dlopt: Dlopt, base: Path, arguments: list[str], message: str
) -> None:
    given = ["compare", "--config", base, "--metric=val_loss", "--budget=2ep", *arguments]
    code, printed = dlopt(*given)
    assert code == 2, printed
    assert message in printed.splitlines()[-1]
    assert "Traceback" not in printed


def test_mistakes_that_a_first_step_shows(dlopt: Dlopt, base: Path, tmp_path: Path) -> None:
    given = ["compare", "--config", base, "--budget=2ep", "--arm", SMOOTH]
    code, printed = dlopt(*given, "--metric=val_f1", "--output=a")
    assert code == 2
    assert "validation logs no 'val_f1'; logged are: val_acc, val_loss" in printed.splitlines()[-1]
    two = [f"--arm=x=trainer.callbacks+={name}" for name in ("CosineLR", "LinearLR")]
    code, printed = dlopt(*given, "--metric=val_acc", *two)
    assert code == 2, printed
    assert "x, seed 2000000 (trial): CosineLR() and LinearLR() are" in printed.splitlines()[-1]
    assert not read_study(tmp_path / "compare" / "results.jsonl").runs


def test_results_of_another_comparison_are_left_alone(
    dlopt: Dlopt, base: Path, tmp_path: Path
) -> None:
    given = ["compare", "--config", base, "--arm", SMOOTH, *QUICK, "--seeds=2"]
    assert dlopt(*given)[0] == 0
    before = (tmp_path / "compare" / "results.jsonl").read_bytes()
    for changed in ("--budget=3ep", "--model.init_args.lr=0.3", "--tune=1,2", "--seeds=5,6"):
        code, printed = dlopt(*given, changed)
        assert code == 2
        assert "holds another comparison" in printed.splitlines()[-1]
        assert (tmp_path / "compare" / "results.jsonl").read_bytes() == before


def test_an_arm_with_other_data_is_found(dlopt: Dlopt, base: Path) -> None:
    given = ["compare", "--config", base, *QUICK, "--seeds=2"]
    code, printed = dlopt(*given, "--arm=shifted=data.init_args.shift=2.0")
    assert code == 2
    assert "arm 'shifted' is validated on other data" in printed.splitlines()[-1]
