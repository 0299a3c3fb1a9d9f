"""Optimizers from configuration files, and the check that they train what they should."""

import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from tests.cli.conftest import Run

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
SHORT = ["--trainer.max_epochs=1", *QUIET]


class WiderLayer(Callback):
    """Replaces the network's first layer by a fresh one."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        network: Any = pl_module.network
        index = next(i for i, layer in enumerate(network) if isinstance(layer, nn.Linear))
        old = network[index]
        network[index] = nn.Linear(old.in_features, old.out_features, bias=False)


@pytest.fixture
def surgery(monkeypatch: pytest.MonkeyPatch) -> str:
    """Make the callback importable, and return its class path."""
    module = types.ModuleType("surgery_for_tests")
    module.WiderLayer = WiderLayer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "surgery_for_tests", module)
    monkeypatch.setattr(WiderLayer, "__module__", "surgery_for_tests")
    return "surgery_for_tests.WiderLayer"


def overlay(path: Path, *callbacks: Any) -> Path:
    path.write_text(yaml.safe_dump({"trainer": {"callbacks+": list(callbacks)}}))
    return path


def used(optimizer: str, **arguments: Any) -> dict[str, Any]:
    given = {"class_path": optimizer, "init_args": arguments}
    return {"class_path": "UseOptimizer", "init_args": {"optimizer": given}}


def test_an_optimizer_of_the_command_line_that_misses_a_new_layer_is_refused(
    dlopt: Run, recipes: Path, tmp_path: Path, surgery: str
) -> None:
    config = overlay(tmp_path / "surgery.yaml", {"class_path": surgery})
    base = ["fit", "--config", recipes / "quickstart.yaml", "--config", config, *SHORT]
    code, printed = dlopt(*base, "--optimizer=torch.optim.SGD", "--optimizer.lr=0.1")
    assert code == 2
    assert "the optimizer of ImageClassifier was made before the model was changed" in printed
    assert "network" in printed
    assert "--optimizer" in printed
    assert "Traceback" not in printed
    # the module's own optimizer is made afterwards
    code, printed = dlopt(*base)
    assert code == 0, printed
    # as is the one that takes its place
    more = overlay(tmp_path / "more.yaml", used("torch.optim.SGD", lr=0.1))
    code, printed = dlopt(*base, "--config", more)
    assert code == 0, printed


def test_an_optimizer_of_the_command_line_trains_an_unchanged_model(
    dlopt: Run, recipes: Path
) -> None:
    code, printed = dlopt(
        *["fit", "--config", recipes / "quickstart.yaml", *SHORT],
        *["--optimizer=torch.optim.SGD", "--optimizer.lr=0.1"],
    )
    assert code == 0, printed


def test_a_run_is_resumed_with_the_same_optimizer_only(
    dlopt: Run, recipes: Path, tmp_path: Path
) -> None:
    quickstart = ["fit", "--config", recipes / "quickstart.yaml", *QUIET]
    one = overlay(tmp_path / "one.yaml", used("torch.optim.RMSprop", lr=0.002))
    other = overlay(tmp_path / "other.yaml", used("torch.optim.SGD", lr=0.1))
    code, printed = dlopt(*quickstart, "--config", one, "--trainer.max_epochs=1")
    assert code == 0, printed
    (last,) = tmp_path.rglob("last.ckpt")
    content = torch.load(last, weights_only=True)
    (state,) = [s for key, s in content["callbacks"].items() if key.startswith("UseOptimizer")]
    assert state["optimizer_class"] == "torch.optim.rmsprop.RMSprop"
    assert state["arguments"]["optimizer"]["init_args"] == {"lr": 0.002}
    resume = [*quickstart, "--trainer.max_epochs=2", "--ckpt_path", last]
    code, printed = dlopt(*resume, "--config", other)
    assert code == 2
    assert "RMSprop" in printed
    assert "SGD" in printed
    code, printed = dlopt(*resume)
    assert code == 2
    assert "which this run lacks" in printed
    code, printed = dlopt(*resume, "--config", one)
    assert code == 0, printed


@pytest.mark.parametrize(
    ("optimizer", "arguments", "said"),
    [
        ("torch.optim.SGD", {"lr": -1.0}, "Invalid learning rate: -1.0"),
        ("torch.optim.SGD", {"lr": "fast"}, "fast"),
        ("lightning_dlopt.Muon", {"momentum": 2.0}, "Muon: momentum=2.0"),
    ],
)
def test_bad_arguments_are_one_line(
    dlopt: Run, recipes: Path, tmp_path: Path, optimizer: str, arguments: Any, said: str
) -> None:
    config = overlay(tmp_path / "bad.yaml", used(optimizer, **arguments))
    code, printed = dlopt("fit", "--config", recipes / "quickstart.yaml", "--config", config)
    assert code == 2
    assert said in printed
    assert "Traceback" not in printed
