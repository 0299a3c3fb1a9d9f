"""Which transforms are tried, and overlays that turn them off."""

import copy

import pytest
import torch

from lightning_dlopt import DeleteTokens, RandomGeometry
from lightning_dlopt.evidence.advise.config_changes import change_arguments
from lightning_dlopt.evidence.advise.finding import NotDoneError
from lightning_dlopt.evidence.advise.trial_transforms import background, transforms_for


def test_each_trial_changes_every_kind_of_image() -> None:
    images = torch.randn(8, 3, 14, 28, generator=torch.Generator().manual_seed(0))
    for one in transforms_for(images):
        batch = one.trial.change((images, 0), torch.Generator().manual_seed(0))
        assert batch[0].shape == images.shape
        changed = (batch[0] != images).flatten(1).any(1)
        assert changed.sum() >= (8 if "flip" in one.argument else 5)
        RandomGeometry(**one.usual)


def test_the_crop_grows_with_the_image() -> None:
    crops = {}
    for size in (4, 8, 28, 56):
        crop = transforms_for(torch.randn(2, 1, size, size))[-1]
        assert crop.argument == "crop"
        crops[size] = crop.usual["crop"]
    assert crops == {4: 1, 8: 1, 28: 2, 56: 4}


def test_the_background_fills_what_comes_in() -> None:
    images = torch.full((4, 1, 8, 8), -0.75)
    images[:, :, 3:5, 3:5] = 2.0
    assert background(images) == -0.75
    crop = transforms_for(images)[-1]
    assert crop.usual == {"crop": 1, "fill": -0.75}
    moved = crop.trial.change((torch.full((9, 1, 8, 8), -0.75), 0), torch.Generator())[0]
    assert bool((moved == -0.75).all())
    assert background(torch.randn(4, 3, 8, 8)) == 0.0


def test_what_is_used_is_known() -> None:
    flip, vertical, rotation, scale, crop = transforms_for(torch.randn(2, 1, 8, 8))
    used = [RandomGeometry(flip=0.1, scale=(1.0, 1.0))]
    assert flip.is_used_by(used)
    assert not any(one.is_used_by(used) for one in (vertical, rotation, scale, crop))
    delete, swap = transforms_for(torch.ones(2, 5, dtype=torch.long), pad_id=3)
    assert delete.usual == {"rate": 0.1, "pad_id": 3}
    assert delete.is_used_by([DeleteTokens(0.2)])
    assert not swap.is_used_by([DeleteTokens(0.2)])
    assert not delete.is_used_by([DeleteTokens(0.0)])


@pytest.mark.parametrize(
    "inputs",
    [
        torch.randn(2, 16),
        torch.randn(2, 3, 16),
        torch.randn(2, 9, 8, 8),
        torch.ones(2, 3, 4, dtype=torch.long),
        torch.randn(2, 1, 1, 8),
    ],
    ids=lambda inputs: str(tuple(inputs.shape)),
)
def test_other_inputs_are_refused(inputs: torch.Tensor) -> None:
    with pytest.raises(NotDoneError, match="neither images"):
        transforms_for(inputs)


def test_arguments_are_changed_wherever_the_class_is() -> None:
    flip = {"class_path": "lightning_dlopt.augmentation.RandomGeometry", "init_args": {"flip": 0.5}}
    other = {"class_path": "EMA"}
    config = {
        "seed_everything": 1,
        "trainer": {"max_epochs": 2, "callbacks": [other, flip]},
        "model": {"class_path": "M", "init_args": {"augmentation": flip, "width": 3}},
        "data": {"class_path": "D", "init_args": {"augmentation": [[flip], {"deep": [flip]}]}},
    }
    before = copy.deepcopy(config)
    off = {**flip, "init_args": {"flip": 0.0}}
    assert change_arguments(config, "RandomGeometry", {"flip": 0.0}) == {
        "trainer": {"callbacks": [other, off]},
        "model": {"init_args": {"augmentation": off}},
        "data": {"init_args": {"augmentation": [[off], {"deep": [off]}]}},
    }
    assert config == before
    assert change_arguments(config, "MixUp", {"alpha": 1}) is None
    bare = {"trainer": {"callbacks": [{"class_path": "MixUp"}]}}
    assert change_arguments(bare, "MixUp", {"alpha": 1.0}) == {
        "trainer": {"callbacks": [{"class_path": "MixUp", "init_args": {"alpha": 1.0}}]}
    }
