"""Every recipe trains; the source document's example reaches its accuracy on real data."""

import re
import sys
from pathlib import Path

import pytest
import torch
import yaml

from lightning_dlopt.cli import main
from tests.recipes import text

ROOT = Path(__file__).parents[2]
OVERLAYS = sorted((ROOT / "recipes").glob("*/*.yaml"))
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]


def dlopt(*arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == 0


@pytest.mark.filterwarnings("error::lightning_dlopt.core.NoEffectWarning")
@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_each_overlay_lies_over_any_configuration(
    overlay: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    base = yaml.safe_load((ROOT / "recipes" / "quickstart.yaml").read_text())
    base["trainer"]["callbacks"] = base["trainer"]["callbacks"][1:]  # without its own schedule
    entries = yaml.safe_load(overlay.read_text())["trainer"]["callbacks+"]
    if any(entry["class_path"].endswith("Tokens") for entry in entries):
        base["model"]["init_args"].update(text.MODEL)
        base["data"] = text.DATA
    config = tmp_path / "base.yaml"
    config.write_text(yaml.safe_dump(base))
    if any("checkpoint" in entry.get("init_args", {}) for entry in entries):
        # it learns from what the quickstart has trained before, as its comment says
        dlopt("fit", "--config", config, "--trainer.max_epochs=2", *QUIET)
    schedule = overlay.parent.name == "schedules"
    epochs = 8 if schedule else 2
    dlopt("fit", "--config", config, "--config", overlay, f"--trainer.max_epochs={epochs}", *QUIET)
    *_, path = sorted(tmp_path.rglob("last.ckpt"))
    checkpoint = torch.load(path, weights_only=True)
    for entry in entries:
        assert any(key.startswith(entry["class_path"]) for key in checkpoint["callbacks"])
    if schedule:
        position = checkpoint["lr_schedulers"][0]["factor_lr_step"]
        assert position == checkpoint["global_step"] == 8 * 41


def test_the_overlays_cover_the_source_document() -> None:
    names = {f"{path.parent.name}/{path.stem}" for path in OVERLAYS}
    schedules = ["constant", "exponential_decay", "exponential_growth", "step", "piecewise"]
    assert {f"schedules/{name}" for name in schedules} <= names
    assert {f"optimizers/{name}" for name in ("sgd", "momentum", "nag", "adam", "rmsprop")} <= names


@pytest.mark.slow
def test_the_source_example_on_real_fashion_mnist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = ROOT / "recipes" / "source_example.yaml"
    dlopt("fit", "--config", recipe, *QUIET)
    (last,) = tmp_path.rglob("last.ckpt")
    capfd.readouterr()
    dlopt("test", "--config", recipe, "--ckpt_path", last, *QUIET)
    found = re.search(r"test_accuracy\W+([\d.]+)", capfd.readouterr().out)
    assert found is not None
    print(f"test accuracy {found[1]}", file=sys.stderr)
    assert float(found[1]) >= 0.88  # what a hand-written loop of the document's example reaches
