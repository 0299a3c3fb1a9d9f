"""Every recipe trains; the source document's example reaches its accuracy on real data."""

import re
import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from lightning_dlopt.cli import main
from tests.recipes import text
from tests.recipes.listing import OVERLAYS, ROOT

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]


def dlopt(*arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == 0


def assert_within(part: object, whole: object) -> None:
    """What a recipe says is in the configuration that was used."""
    if isinstance(part, dict):
        assert isinstance(whole, dict)
        for key, value in part.items():
            assert_within(value, whole[key])
    else:
        assert part == whole


@pytest.mark.filterwarnings("error::lightning_dlopt.core.NoEffectWarning")
@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_each_overlay_lies_over_any_configuration(
    overlay: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    base = yaml.safe_load((ROOT / "recipes" / "quickstart.yaml").read_text())
    base["trainer"]["callbacks"] = base["trainer"]["callbacks"][1:]  # without its own schedule
    laid_over = yaml.safe_load(overlay.read_text())
    entries = laid_over.get("trainer", {}).get("callbacks+", [])
    if any(entry["class_path"].endswith("Tokens") for entry in entries):
        base["model"]["init_args"].update(text.MODEL)
        base["data"] = text.DATA
    config = tmp_path / "base.yaml"
    config.write_text(yaml.safe_dump(base))
    assert entries or "data" in laid_over, "it neither adds a callback nor changes the data"
    if any("checkpoint" in entry.get("init_args", {}) for entry in entries):
        # it learns from what the quickstart has trained before, as its comment says
        dlopt("fit", "--config", config, "--trainer.max_epochs=2", *QUIET)
    schedule = overlay.parent.name == "schedules"
    epochs = 8 if schedule else 2
    dlopt("fit", "--config", config, "--config", overlay, f"--trainer.max_epochs={epochs}", *QUIET)
    *_, path = sorted(tmp_path.rglob("last.ckpt"))
    used = yaml.safe_load(path.parents[1].joinpath("config.yaml").read_text())
    for key, value in laid_over.get("data", {}).get("init_args", {}).items():
        assert_within(value, used["data"]["init_args"][key])
    checkpoint = torch.load(path, weights_only=True)
    for entry in entries:
        assert any(key.startswith(entry["class_path"]) for key in checkpoint["callbacks"])
    if schedule:
        position = checkpoint["lr_schedulers"][0]["factor_lr_step"]
        assert position == checkpoint["global_step"] == 8 * 41


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Files of two classes: what is bright on the left, and what is bright on the right."""
    generator = torch.Generator().manual_seed(0)
    for label, name in enumerate(("left", "right")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(10):
            pixels = torch.randint(60, (40, 48, 3), generator=generator, dtype=torch.uint8)
            pixels[:, 24 * label : 24 * label + 24] += 150
            Image.fromarray(pixels.numpy()).save(tmp_path / "photos" / name / f"{index}.jpg")
    return tmp_path / "photos"


def test_photographs_in_a_folder_and_a_resume(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = yaml.safe_load((ROOT / "recipes" / "image_folder.yaml").read_text())
    saving = {"filename": "{step}", "every_n_train_steps": 2, "save_top_k": -1}
    config["trainer"]["callbacks"][-1]["init_args"] = saving
    config["trainer"].update(max_epochs=2, log_every_n_steps=1, accelerator="cpu")
    config["model"]["init_args"]["num_classes"] = 2
    # torch's dropout draws from the global generator, which a resume doesn't restore
    config["model"]["init_args"]["network"]["init_args"] = {"num_classes": 2, "dropout": 0.0}
    data = {"data_dir": str(photographs), "image_size": 32, "batch_size": 6}
    config["data"]["init_args"].update(data)  # three batches in an epoch
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(config))

    def train(name: str, *further: object) -> Path:
        arguments = ["--config", "small.yaml", f"--trainer.logger.init_args.name={name}", *QUIET]
        dlopt("fit", *arguments, *further)
        (folder,) = (tmp_path / "runs" / name).glob("*/checkpoints")
        return folder

    def weights(folder: Path) -> dict[str, torch.Tensor]:
        loaded = torch.load(folder / "step=6.ckpt", weights_only=True)
        state: dict[str, torch.Tensor] = loaded["state_dict"]
        return state

    whole = train("whole")
    begun = whole / "step=2.ckpt"
    resumed = train("resumed", f"--ckpt_path={begun}", "--data.init_args.num_workers=0")
    assert not (resumed / "step=2.ckpt").exists()
    for name, tensor in weights(whole).items():
        assert torch.equal(weights(resumed)[name], tensor), name


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
