"""ProgressiveResize around training steps that fail."""

from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional

from lightning_dlopt import (
    MLP,
    ArgumentError,
    ConvNet,
    NoEffectWarning,
    ProgressiveResize,
    TechniqueError,
    TensorLoader,
    keyed_generator,
)
from tests.quiet import QUIET


class UNet(nn.Module):
    """Halves its images and enlarges them again: an odd side doesn't come back."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(1, 4, 2, stride=2), nn.ConvTranspose2d(4, 4, 2, stride=2)
        self.head = nn.Conv2d(5, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(torch.cat([images, self.up(self.down(images))], 1))  # type: ignore[no-any-return]


class Trains(LightningModule):
    def __init__(self, network: nn.Module, error: Exception | None = None) -> None:
        super().__init__()
        self.network, self.error, self.sizes = network, error, list[int]()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.sizes.append(batch[0].shape[2])
        if self.error is not None:
            raise self.error
        return functional.cross_entropy(self.network(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(technique: ProgressiveResize, module: Trains, masks: bool = False) -> None:
    generator = keyed_generator(0)
    images = torch.rand(32, 1, 16, 16, generator=generator)
    target = torch.randint(3, (32, 16, 16) if masks else (32,), generator=generator)
    trainer = Trainer(**{**QUIET, "max_epochs": 2, "callbacks": [technique]})
    trainer.fit(module, TensorLoader(images, target, batch_size=4))


def test_a_network_that_takes_one_size_only_is_refused_before_its_first_step() -> None:
    with pytest.raises(TechniqueError, match=r"on images of 8 x 8, .*AdaptiveAvgPool2d") as raised:
        fit(ProgressiveResize(), Trains(MLP([256, 3])))
    assert isinstance(raised.value.__cause__, RuntimeError)
    assert "mask_key" not in str(raised.value)


def test_a_network_that_fails_on_a_later_size_is_told_of_multiple() -> None:
    module = Trains(UNet())
    with pytest.raises(TechniqueError, match=r"9 x 9, resized from 16 x 16: RuntimeError: .*mult"):
        fit(ProgressiveResize(mask_key=1), module, masks=True)
    assert module.sizes == [8, 9]
    module = Trains(UNet())
    fit(ProgressiveResize(mask_key=1, multiple=2), module, masks=True)
    assert sorted(set(module.sizes)) == [8, 10, 12, 14, 16]


def test_a_target_that_kept_its_size_is_named() -> None:
    with pytest.raises(TechniqueError, match=r"the batch has at 1 kept its size \(say mask_key="):
        fit(ProgressiveResize(), Trains(UNet()), masks=True)


@pytest.mark.parametrize("kind", [RuntimeError, ValueError, AssertionError])
def test_an_error_that_may_have_another_reason_is_shown_and_not_explained(
    kind: type[Exception],
) -> None:
    error = kind("labels file missing")
    message = f"{kind.__name__}: labels file missing. If it runs at full size, maybe "
    with pytest.raises(TechniqueError, match=message) as raised:
        fit(ProgressiveResize(), Trains(ConvNet([1, 4], 3), error))
    assert raised.value.__cause__ is error


@pytest.mark.parametrize(
    "error", [KeyError("x"), OSError("x"), torch.OutOfMemoryError("x"), ArgumentError("x")]
)
def test_other_errors_pass_as_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        fit(ProgressiveResize(), Trains(ConvNet([1, 4], 3), error))
    assert raised.value is error


def test_an_error_at_full_size_passes_as_it_is() -> None:
    error = ValueError("labels file missing")
    with (
        pytest.warns(NoEffectWarning, match="16 x 16 are full-sized"),
        pytest.raises(ValueError, match=r"^labels file missing$"),
    ):
        fit(ProgressiveResize(0.99), Trains(ConvNet([1, 4], 3), error))
