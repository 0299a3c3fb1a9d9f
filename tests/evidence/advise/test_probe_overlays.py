"""The overlays of the probes, read by the command that applies them."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lightning_dlopt.cli.compared_arms import resolve
from lightning_dlopt.evidence.advise.config_changes import change_arguments
from lightning_dlopt.evidence.advise.finding import Finding
from lightning_dlopt.evidence.advise.probes.gradient_noise import batch_overlay
from lightning_dlopt.evidence.advise.probes.label_invariance import overlay_of
from lightning_dlopt.evidence.advise.probes.one_shot_pruning import OneShotPruning
from lightning_dlopt.evidence.advise.subject import Subject
from lightning_dlopt.evidence.advise.trial_transforms import transforms_for
from tests.evidence.advise.planted import Model, Tensors, blobs, network


@pytest.fixture
def base(tmp_path: Path, recipes: Path) -> Path:
    """A configuration with a callback that has arguments."""
    config = yaml.safe_load((recipes / "quickstart.yaml").read_text())
    geometry = {"class_path": "RandomGeometry", "init_args": {"flip": 0.5, "rotation": 5}}
    config["trainer"]["callbacks"].append(geometry)
    path = tmp_path / "base.yaml"
    path.write_text(yaml.safe_dump(config))
    shutil.copy(recipes / "quickstart.yaml", tmp_path / "quickstart.yaml")
    return path


def resolved(base: Path, overlay: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return what a run would be made from."""
    changes = []
    if overlay is not None:
        path = base.with_name("overlay.yaml")
        path.write_text(yaml.safe_dump(overlay))
        changes = [str(path)]
    found: dict[str, Any] = yaml.safe_load(resolve(["--config", str(base)], changes))
    return found


def callbacks(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        one["class_path"].split(".")[-1]: one["init_args"] for one in config["trainer"]["callbacks"]
    }


def test_transforms_of_images(base: Path) -> None:
    images = torch.full((2, 1, 8, 8), -0.5)
    overlay = overlay_of(transforms_for(images))
    added = callbacks(resolved(base.with_name("quickstart.yaml"), overlay))["RandomGeometry"]
    assert (added["flip"], added["vertical_flip"], added["rotation"]) == (0.5, 0.5, 10.0)
    assert (added["scale"], added["crop"], added["fill"]) == ([0.9, 1.1], 1, -0.5)


def test_transforms_of_texts(base: Path) -> None:
    overlay = overlay_of(transforms_for(torch.ones(2, 5, dtype=torch.long), pad_id=7))
    found = callbacks(resolved(base, overlay))
    assert found["DeleteTokens"]["rate"] == found["SwapTokens"]["rate"] == 0.1
    assert found["DeleteTokens"]["pad_id"] == found["SwapTokens"]["pad_id"] == 7


def test_a_harmful_argument_is_taken_out_of_the_resolved_configuration(base: Path) -> None:
    before = resolved(base)
    overlay = change_arguments(before, "RandomGeometry", {"flip": 0.0})
    after = resolved(base, overlay)
    geometry = callbacks(after)["RandomGeometry"]
    assert (geometry["flip"], geometry["rotation"]) == (0.0, 5.0)
    assert list(callbacks(after)) == list(callbacks(before))
    geometry["flip"] = 0.5
    assert after == before  # nothing else has changed


def test_batches(base: Path) -> None:
    config = resolved(base)
    model, data = Model(network(16, 4)), Tensors(*blobs())
    overlay, _ = batch_overlay(Subject(model, data, config=config), 128)
    assert resolved(base, overlay)["data"]["init_args"]["batch_size"] == 128
    overlay, _ = batch_overlay(Subject(model, data), 128)
    assert resolved(base, overlay)["trainer"]["accumulate_grad_batches"] == 4
    assert batch_overlay(Subject(model, data), 8)[0] is None


@pytest.mark.parametrize(("sizes", "name"), [((16, 8, 4), "ChannelPruning"), ((16, 4), "Magn")])
def test_pruning(base: Path, sizes: tuple[int, ...], name: str) -> None:
    finding: Finding = OneShotPruning()._finding(network(*sizes), 0.78, 1000, 300.0, 50)
    found = callbacks(resolved(base, finding.overlay))
    (added,) = (arguments for kind, arguments in found.items() if kind.startswith(name))
    assert added.get("speed_up") == 2.0 or added.get("sparsity") == 0.7
