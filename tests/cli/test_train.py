"""``dlopt fit``, ``validate``, ``test`` and ``predict`` on real data."""

import csv
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lightning_dlopt.cli.train import configs_first
from tests.cli.conftest import Run

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]


def checkpoint(folder: Path, name: str = "last.ckpt") -> dict[str, Any]:
    (path,) = folder.rglob(name)
    content: dict[str, Any] = torch.load(path, weights_only=True)
    return content


def overlay(path: Path, callbacks: list[Any]) -> Path:
    path.write_text(yaml.safe_dump({"trainer": {"callbacks+": callbacks}}))
    return path


def test_the_quickstart_trains_tests_and_predicts(
    dlopt: Run, recipes: Path, tmp_path: Path
) -> None:
    quickstart = recipes / "quickstart.yaml"
    code, printed = dlopt("fit", "--config", quickstart)
    assert code == 0, printed
    assert "val_accuracy" in printed, "no progress bar with metrics"
    folder = tmp_path / "runs/quickstart/version_0"
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    losses = [float(row["train_loss"]) for row in rows if row["train_loss"]]
    assert losses[-1] < losses[0] / 10
    assert len([row for row in rows if row["val_accuracy"]]) == 30
    assert (folder / "config.yaml").exists()
    best = folder / "checkpoints/best.ckpt"
    # in a new command, from the configuration that was saved
    for command in ("validate", "test"):
        code, printed = dlopt(command, "--config", quickstart, "--ckpt_path", best, *QUIET)
        assert code == 0, printed
        key = "val" if command == "validate" else command
        line = next(line for line in printed.splitlines() if f"{key}_accuracy" in line)
        assert float(line.split()[-2]) > 0.93
    code, printed = dlopt("predict", "--config", quickstart, "--ckpt_path", best, *QUIET)
    assert code == 0, printed


def test_a_run_is_repeated_bitwise(dlopt: Run, recipes: Path, tmp_path: Path) -> None:
    weights = []
    for name in ("first", "second"):
        out = tmp_path / name
        dlopt(
            *["fit", "--config", recipes / "quickstart.yaml", "--trainer.max_epochs=2"],
            *[f"--trainer.logger.save_dir={out}", *QUIET],
        )
        weights.append(checkpoint(out)["state_dict"])
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_overlays_append_and_options_win_wherever_they_stand(
    dlopt: Run, recipes: Path, tmp_path: Path
) -> None:
    more = overlay(tmp_path / "more.yaml", [{"class_path": "LearningRateMonitor"}])
    code, printed = dlopt(
        *["fit", "--trainer.max_epochs=2", "--trainer.callbacks+=EarlyStopping"],
        *["--trainer.callbacks.monitor=val_loss", "--config", recipes / "quickstart.yaml"],
        *["--config", more, *QUIET],
    )
    assert code == 0, printed
    content = checkpoint(tmp_path)
    keys = " ".join(content["callbacks"])
    assert "CosineLR(warmup='5%')" in keys
    assert "EarlyStopping" in keys
    assert content["epoch"] == 1
    metrics = next(tmp_path.rglob("metrics.csv")).read_text()
    assert "lr-Adam" in metrics, "the overlay's callback is missing"


def test_configs_first_keeps_the_order_of_either_kind() -> None:
    arguments = ["fit", "--a=1", "--config", "x", "--b", "2", "-c", "y", "--config=z", "--c"]
    expected = ["fit", "--config", "x", "-c", "y", "--config=z", "--a=1", "--b", "2", "--c"]
    assert configs_first(arguments) == expected


def test_torch_schedulers_step_with_every_optimizer_step(
    dlopt: Run, recipes: Path, tmp_path: Path
) -> None:
    config = yaml.safe_load((recipes / "quickstart.yaml").read_text())
    config["trainer"]["callbacks"] = config["trainer"]["callbacks"][1:]
    config["trainer"]["max_epochs"] = 2
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    code, printed = dlopt(
        *["fit", "--config", path, "--optimizer=SGD", "--optimizer.lr=0.8", *QUIET],
        *["--lr_scheduler=torch.optim.lr_scheduler.StepLR", "--lr_scheduler.step_size=41"],
        "--lr_scheduler.gamma=0.5",
    )
    assert code == 0, printed
    content = checkpoint(tmp_path)
    assert content["global_step"] == 82
    assert content["lr_schedulers"][0]["last_epoch"] == 82
    assert content["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(0.2)


def test_a_run_resumes_from_the_command_line(dlopt: Run, recipes: Path, tmp_path: Path) -> None:
    common = ["fit", "--config", recipes / "quickstart.yaml", "--trainer.max_epochs=4", *QUIET]
    whole, again = tmp_path / "whole", tmp_path / "again"
    dlopt(*common, f"--trainer.logger.save_dir={whole}")
    (best,) = whole.rglob("best.ckpt")
    assert checkpoint(whole, "best.ckpt")["epoch"] < 3, "nothing is left to resume"
    code, printed = dlopt(*common, f"--trainer.logger.save_dir={again}", f"--ckpt_path={best}")
    assert code == 0, printed
    before, after = checkpoint(whole)["state_dict"], checkpoint(again)["state_dict"]
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_help_is_everywhere(dlopt: Run) -> None:
    for arguments in ([], ["--help"], ["fit", "--help"], ["list", "--help"], ["preview", "--help"]):
        code, printed = dlopt(*arguments)
        assert code == 0
        assert "usage" in printed


def test_a_network_in_a_callback_does_not_change_the_model(
    dlopt: Run, recipes: Path, tmp_path: Path
) -> None:
    teacher = {"class_path": "lightning_dlopt.MLP", "init_args": {"sizes": [64, 32, 10]}}
    arguments = {"teacher": teacher, "temperature": 2.0, "weight": 0.0}
    callback = {"class_path": "Distillation", "init_args": arguments}
    configs = ["--config", recipes / "quickstart.yaml"]
    with_it = ["--config", overlay(tmp_path / "distillation.yaml", [callback])]
    weights = []
    for name, more in (("plain", []), ("taught", with_it)):
        save = f"--trainer.logger.save_dir={tmp_path / name}"
        code, printed = dlopt("fit", *configs, *more, "--trainer.max_epochs=1", save, *QUIET)
        assert code == 0, printed
        weights.append(checkpoint(tmp_path / name)["state_dict"])
    assert all(torch.equal(tensor, weights[1][key]) for key, tensor in weights[0].items())


def test_a_module_in_the_current_folder(dlopt: Run, tmp_path: Path) -> None:
    (tmp_path / "my_own_file.py").write_text(
        "from lightning.pytorch.demos.boring_classes import BoringModel\n"
        "class MyOwnModule(BoringModel):\n    pass\n"
    )
    options = ["--trainer.max_steps=2", "--trainer.logger=false", "--trainer.callbacks+=SAM"]
    code, printed = dlopt("fit", "--model=my_own_file.MyOwnModule", *options)
    assert code == 0, printed
    assert str(tmp_path) not in sys.path
