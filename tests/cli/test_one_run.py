"""One run of a comparison, with modules and data of many kinds."""

import io
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lightning_dlopt.cli.compare_progress import Progress
from lightning_dlopt.cli.compared_arms import resolve
from lightning_dlopt.cli.mistakes import UsageError
from lightning_dlopt.cli.one_run import run_job
from lightning_dlopt.evidence.jobs import Job, RefusedError
from lightning_dlopt.evidence.recorder import scale_rates
from lightning_dlopt.evidence.runs import Run, Study
from tests.evidence.unusual import Scheduled

THIEF = "trainer.callbacks+=tests.evidence.plain.Thief"
SWA = (
    "trainer.callbacks+={class_path: lightning.pytorch.callbacks.StochasticWeightAveraging, "
    "init_args: {swa_lrs: 5.0, swa_epoch_start: 1}}"
)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)

    def made(
        module: str = "plain.Plain",
        data: str = "plain.PlainData",
        *changes: str,
        arguments: dict[str, Any] | None = None,
        trainer: dict[str, Any] | None = None,
        **options: Any,
    ) -> Run:
        content: dict[str, Any] = {
            "model": {"class_path": f"tests.evidence.{module}", "init_args": arguments or {}},
            "data": {"class_path": f"tests.evidence.{data}"},
            "trainer": {"max_epochs": 2, "accelerator": "cpu", "logger": False, **(trainer or {})},
        }
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
        config = resolve(["--config=config.yaml"], list(changes))
        given = {"kind": "report", "metric": "val_loss", "larger_is_better": False, **options}
        threads, folder = torch.get_num_threads(), str(tmp_path)
        try:
            return run_job(Job("arm", pair=0, seed=1, config=config, folder=folder, **given))
        finally:
            torch.set_num_threads(threads)

    return made


def test_a_metric_that_training_logs_too_is_validations(run: Any) -> None:
    made = run("unusual.OneName", metric="acc", larger_is_better=True)
    assert made.metrics["acc"] == made.curve[-1].value >= 0


def test_a_metric_that_only_training_logs_is_refused(run: Any) -> None:
    with pytest.raises(RefusedError, match="validation logs no 'train_loss'; logged are: acc"):
        run("unusual.OneName", metric="train_loss", kind="trial")


def test_what_validates_nothing_is_refused_at_once(run: Any) -> None:
    with pytest.raises(RefusedError, match="nothing is validated"):
        run("unusual.Unvalidated", kind="trial")
    with pytest.raises(UsageError, match="nothing is validated"):
        run(trainer={"limit_val_batches": 0}, kind="trial")


def test_the_best_of_no_validation_is_refused(run: Any) -> None:
    with pytest.raises(RefusedError, match="the budget ends before the first validation"):
        run(select="best", steps=2)


def test_weights_put_in_place_at_the_end_are_those_that_count(run: Any) -> None:
    made = run("plain.Plain", "plain.PlainData", SWA, trainer={"max_epochs": 4})
    # validation and test are of the same data and weights
    assert made.metrics["val_loss"] == made.metrics["test_loss"] == made.curve[-1].value


def test_nothing_is_written_where_the_user_writes(run: Any, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    profiler = {"dirpath": str(theirs), "filename": "profile"}
    made = run(
        "unusual.Saving",
        arguments={"dirpath": str(theirs)},
        trainer={
            "profiler": {
                "class_path": "lightning.pytorch.profilers.SimpleProfiler",
                "init_args": profiler,
            }
        },
    )
    assert made.status == "finished"
    assert not theirs.exists()


def test_a_logger_of_any_kind_can_be_used(run: Any, tmp_path: Path) -> None:
    logs = {"class_path": "tests.evidence.unusual.Drawing", "init_args": {"save_dir": "logs"}}
    made = run("unusual.Drawn", trainer={"logger": logs})
    assert made.status == "finished", made.why
    assert not (tmp_path / "logs").exists()


def test_held_out_data_is_the_same_in_batches_of_any_size(run: Any) -> None:
    sizes = [run("plain.Plain", "unusual.Batched", f"data.init_args.size={n}") for n in (16, 3, 1)]
    assert len({made.held_out for made in sizes}) == 1
    assert sizes[0].held_out.endswith("-32")


def test_rounded_floats_do_not_tell_data_apart(run: Any) -> None:
    double = run("unusual.OfFloats", "unusual.Floats", "trainer.precision=64-true")
    assert double.held_out == ""
    assert run("unusual.OfFloats", "unusual.Floats").held_out.endswith("-32")


def test_loaders_made_between_epochs_are_paired(run: Any) -> None:
    again = {"reload_dataloaders_every_n_epochs": 1}
    pair = [run("plain.Plain", "unusual.Redrawn", *arm, trainer=again) for arm in ([], [THIEF])]
    assert pair[0].batches == pair[1].batches


@pytest.mark.parametrize("kind", ["sequential", "chained", "averaging"])
def test_rates_of_combined_schedules_are_multiplied(kind: str) -> None:
    rates = []
    for rate, factor in ((0.3, 0.5), (0.15, 1.0)):
        module = Scheduled(kind, rate)
        (optimizer,), (config,) = module.configure_optimizers()
        trainer: Any = type("Trainer", (), {"optimizers": [optimizer]})()
        trainer.lr_scheduler_configs = [type("Config", (), {"scheduler": config["scheduler"]})()]
        scale_rates(trainer, factor)
        taken = []
        for _ in range(9):
            taken.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            config["scheduler"].step()
        rates.append(taken)
    assert rates[0] == pytest.approx(rates[1], rel=1e-6)


def test_a_text_that_stands_for_an_object_is_kept(tmp_path: Path, run: Any) -> None:
    pruning = (
        "trainer.callbacks+={class_path: lightning.pytorch.callbacks.ModelPruning, "
        "init_args: {pruning_fn: l1_unstructured, amount: 0.5}}"
    )
    assert run("plain.Plain", "plain.PlainData", pruning).status == "finished"


def test_progress_shows_any_name(monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study("loss", "loss", False, "1ep", "last", [1, 2], ["[/red] ü"], {}, {})
    job = Job("[/red] ü", "report", 0, 1, "", "loss", False)
    run = Run("[/red] ü", "report", 0, job.seed, "finished", metrics={"loss": 0.5})
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    with Progress(lambda: study) as progress:
        progress.planned("compare", [job])
        progress.started(job)
        table = progress._table()
        progress._console.print(table)
        progress.ended(job, run)
    sys.stdout.flush()
    assert raw.getvalue().decode("ascii").count("[/red] \\xfc") >= 2
