from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from torch import Tensor
from torchvision.transforms.v2 import functional as tv  # type: ignore[import-untyped]

from lightning_dlopt import (
    ArgumentError,
    ConvNet,
    ImageClassifier,
    NoEffectWarning,
    ProgressiveResize,
    TensorLoader,
    keyed_generator,
    resize_images,
    resize_masks,
    scaled_size,
)
from tests.quiet import QUIET


def rand(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=keyed_generator(0))


@pytest.mark.parametrize("size", [(12, 7), (1, 1), (5, 15), (30, 22)])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_resized_as_torchvision_resizes(kind: torch.dtype, size: tuple[int, int]) -> None:
    images = rand(4, 3, 24, 15).to(kind)
    before = images.clone()
    resized = resize_images(images, size)
    wide = torch.promote_types(kind, torch.float32)
    expected = tv.resize(images.to(wide), list(size), antialias=True).to(kind)
    assert torch.equal(resized, expected)
    assert torch.equal(images, before)


def test_integers_are_rounded_and_stay_in_range() -> None:
    images = (rand(4, 3, 24, 15) * 256).to(torch.uint8)
    images[0] = 255
    resized = resize_images(images, (11, 9))
    expected = tv.resize(images.double(), [11, 9], antialias=True)
    assert resized.dtype == torch.uint8
    assert (resized[0] == 255).all()
    assert (resized.double() - expected).abs().max() <= 0.5 + 1e-4


def test_the_memory_format_is_kept_and_an_empty_batch_stays_empty() -> None:
    images = rand(4, 3, 9, 7).to(memory_format=torch.channels_last)
    assert resize_images(images, (5, 4)).is_contiguous(memory_format=torch.channels_last)
    assert resize_images(rand(4, 3, 9, 7), (5, 4)).is_contiguous()
    assert resize_images(images[:0], (5, 4)).shape == (0, 3, 5, 4)


@pytest.mark.parametrize("kind", [torch.int64, torch.uint8, torch.bool, torch.float32])
@pytest.mark.parametrize("size", [(5, 4), (3, 9), (20, 20)])
def test_masks_as_torchvision_resizes_them(kind: torch.dtype, size: tuple[int, int]) -> None:
    masks = (rand(2, 1, 11, 9) * 5).to(torch.uint8)
    expected = tv.resize(masks, list(size), interpolation=tv.InterpolationMode.NEAREST_EXACT)
    assert torch.equal(resize_masks(masks.to(kind), size), expected.to(kind))
    assert torch.equal(resize_masks(masks.to(kind)[:, 0], size), expected[:, 0].to(kind))


@pytest.mark.parametrize("multiple", [1, 4, 32])
def test_sizes_only_grow_and_end_full(multiple: int) -> None:
    sizes = [scaled_size((224, 50), i / 1000, multiple) for i in range(1, 1001)]
    assert sizes == sorted(sizes)
    assert sizes[-1] == (224, 50)
    assert all(side % multiple == 0 or side == 50 for size in sizes for side in size)
    assert sizes[0] == (multiple, min(50, multiple))


class Sees(ImageClassifier):
    """Notes the batches that its training step gets."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seen: list[Tensor] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.seen.append(batch[0])
        return super().training_step(batch, batch_idx)


def fit(technique: ProgressiveResize, network: Any = None, **arguments: Any) -> Sees:
    seed_everything(1, verbose=False)
    module = Sees(network or ConvNet([1, 4, 4], 3), 3)
    loader = TensorLoader(rand(24, 1, 8, 6), torch.arange(24) % 3, batch_size=4)
    trainer = Trainer(**{**QUIET, "max_epochs": 2, "callbacks": [technique], **arguments})
    trainer.fit(module, loader)
    return module


def heights(module: Sees) -> list[int]:
    return [images.shape[2] for images in module.seen]


def test_images_grow_over_the_span_and_then_pass_as_they_are() -> None:
    module = fit(ProgressiveResize(0.5, span="50%"))
    assert heights(module) == [4, 5, 5, 6, 7, 7, *[8] * 6]
    again = TensorLoader(rand(24, 1, 8, 6), torch.arange(24) % 3, batch_size=4)
    for images, (expected, _) in zip(module.seen[6:], again, strict=True):
        assert torch.equal(images, expected)


def test_batches_of_one_step_have_one_size() -> None:
    module = fit(ProgressiveResize(0.5, span=4), accumulate_grad_batches=2)
    assert heights(module) == [4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 8, 8]


def test_the_height_is_logged_at_the_interval() -> None:
    class Notes(Sees):
        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            noted.append(self.trainer.callback_metrics.get("image_height", torch.tensor(0)).item())

    noted: list[float] = []
    loader = TensorLoader(rand(24, 1, 8, 6), torch.arange(24) % 3, batch_size=4)
    arguments: dict[str, Any] = {**QUIET, "max_epochs": 1, "log_every_n_steps": 3}
    trainer = Trainer(**arguments, callbacks=[ProgressiveResize(0.5, span=4)])
    trainer.fit(Notes(ConvNet([1, 4], 3), 3), loader)
    assert noted == [0, 0, 6, 6, 6, 8]


def test_masks_follow_their_images() -> None:
    technique = ProgressiveResize(0.5, mask_key="mask")
    masks = (rand(3, 8, 6) * 4).long()
    batch = {"image": rand(3, 2, 8, 6), "mask": masks, "name": ["a", "b", "c"]}
    changed = technique.change(batch, keyed_generator(0))
    assert changed["image"].shape == (3, 2, 4, 3)
    assert torch.equal(changed["mask"], resize_masks(masks, (4, 3)))
    assert changed["name"] is batch["name"]
    assert batch["mask"] is masks
    with pytest.raises(ArgumentError, match=r"masks, \(3, 7, 6\), must be \(B, ..., 8, 6\)"):
        technique.change({**batch, "mask": masks[:, 1:]}, keyed_generator(0))
    with pytest.raises(ArgumentError, match="mask_key='mask' isn't in the batch"):
        technique.change({"image": batch["image"]}, keyed_generator(0))


def test_a_span_longer_than_the_run_is_refused() -> None:
    with pytest.raises(ArgumentError, match="span=13 is 13 steps, but the run has only 12"):
        fit(ProgressiveResize(span=13))


def test_sizes_that_are_full_from_the_start_are_told() -> None:
    with pytest.warns(NoEffectWarning, match="8 x 6 are full-sized at start=0.5, multiple=8"):
        module = fit(ProgressiveResize(multiple=8))
    assert heights(module) == [8] * 12
