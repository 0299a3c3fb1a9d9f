"""A DataModule that brings techniques; the contract suite has those of a LightningModule."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer, seed_everything
from torch import Tensor

from lightning_dlopt import (
    L1,
    MLP,
    AugmentationMixin,
    ConflictError,
    ImageClassifier,
    RandomErase,
    TensorLoader,
)
from tests.quiet import QUIET


class Data(AugmentationMixin, LightningDataModule):
    """Overrides ``setup`` and calls nobody."""

    def setup(self, stage: str) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.rand(24, 1, 6, 6, generator=generator)
        self.labels = torch.randint(3, (24,), generator=generator)

    def train_dataloader(self) -> Any:
        return TensorLoader(self.images, self.labels, batch_size=8, shuffle=True)

    val_dataloader = train_dataloader


def fit(data: Data, *callbacks: Any, module: Any = None, **arguments: Any) -> dict[str, Tensor]:
    seed_everything(1, verbose=False)
    module = module or ImageClassifier(MLP([36, 8, 3]), 3)
    trainer = Trainer(**{**QUIET, "max_epochs": 3, "callbacks": list(callbacks), **arguments})
    trainer.fit(module, datamodule=data)
    state: dict[str, Tensor] = module.state_dict()
    return state


def assert_equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_data_that_bring_a_technique_train_as_with_the_callback() -> None:
    callback = fit(Data(), RandomErase(1.0))
    assert_equal(fit(Data(augmentation=RandomErase(1.0))), callback)
    plain = fit(Data())
    assert any(not torch.equal(plain[name], callback[name]) for name in plain)


def test_data_serve_several_trainers_and_a_trainer_several_data() -> None:
    data = Data(augmentation=[RandomErase(1.0)])
    first, second = fit(data), fit(data)
    assert_equal(first, second)
    trainer = Trainer(**QUIET, max_epochs=1)
    for brought in (data, data, Data(augmentation=RandomErase(0.5)), Data()):
        trainer.fit_loop.epoch_progress.reset()
        trainer.fit(ImageClassifier(MLP([36, 8, 3]), 3), datamodule=brought)
        found = [c for c in trainer.callbacks if isinstance(c, RandomErase)]  # type: ignore[attr-defined]
        assert found == brought.augmentation


def test_validation_and_test_get_plain_batches() -> None:
    seen: list[Tensor] = []

    class Sees(ImageClassifier):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            seen.append(batch[0])

    data = Data(augmentation=RandomErase(1.0))
    fit(data, module=Sees(MLP([36, 8, 3]), 3), max_epochs=1)
    assert seen
    assert all((images > 0).all() for images in seen)


def test_a_checkpoint_keeps_the_technique_and_a_resume_is_exact(tmp_path: Path) -> None:
    whole = fit(Data(augmentation=RandomErase(1.0)))
    module = ImageClassifier(MLP([36, 8, 3]), 3)
    data = Data(augmentation=RandomErase(1.0))
    seed_everything(1, verbose=False)
    module = ImageClassifier(MLP([36, 8, 3]), 3)
    trainer = Trainer(**QUIET, max_epochs=1)
    trainer.fit(module, datamodule=data)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    saved = torch.load(tmp_path / "one.ckpt", weights_only=True)
    assert "RandomErase(probability=1.0)" in saved["callbacks"]
    again = ImageClassifier(MLP([36, 8, 3]), 3)
    Trainer(**QUIET, max_epochs=3).fit(
        again, datamodule=Data(augmentation=RandomErase(1.0)), ckpt_path=tmp_path / "one.ckpt"
    )
    assert_equal(again.state_dict(), whole)


@pytest.mark.parametrize("where", ["trainer", "module"])
def test_the_same_technique_twice_is_refused(where: str) -> None:
    data = Data(augmentation=RandomErase(1.0))
    module = ImageClassifier(MLP([36, 8, 3]), 3)
    callbacks = [RandomErase(0.25)] if where == "trainer" else []
    if where == "module":
        module = ImageClassifier(MLP([36, 8, 3]), 3, augmentation=RandomErase(0.25))
    with pytest.raises(ConflictError, match=r"0\.25.*1\.0|1\.0.*0\.25"):
        fit(data, *callbacks, module=module)


def test_hyperparameters_of_data_are_saved_without_the_techniques() -> None:
    class Saves(Data):
        def __init__(self, size: int = 3, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.save_hyperparameters()

    assert dict(Saves(5, augmentation=RandomErase()).hparams) == {"size": 5}


def test_a_mixin_after_the_data_is_refused() -> None:
    with pytest.raises(TypeError, match="the mixins come before LightningDataModule"):
        type("Late", (LightningDataModule, AugmentationMixin), {})


def test_other_things_than_techniques_are_refused() -> None:
    with pytest.raises(TypeError, match=r"augmentation=\['flip'\] must be a technique"):
        Data(augmentation=["flip"])  # type: ignore[list-item]


def test_techniques_that_change_no_batch_are_refused() -> None:
    with pytest.raises(TypeError, match=r"augmentation holds L1\(strength=0.1\)"):
        Data(augmentation=[L1(0.1)])


@pytest.mark.parametrize("owner", [Data, lambda: ImageClassifier(MLP([36, 8, 3]), 3)])
def test_setting_the_techniques_later_is_an_error(owner: Any) -> None:
    with pytest.raises(AttributeError, match="augmentation"):
        owner().augmentation = [RandomErase(0.25)]
