from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from lightning_dlopt import (
    RandomErase,
    TechniqueError,
    draw_boxes,
    erase_boxes,
    keyed_generator,
)


def draw(count: int, height: int = 24, width: int = 16, **arguments: Any) -> Tensor:
    options: dict[str, Any] = {"area": (0.1, 0.3), "ratio": (0.5, 2.0), **arguments}
    return draw_boxes(count, height, width, generator=keyed_generator(3), **options)


@pytest.mark.parametrize("kind", [torch.uint8, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("channels", [1, 3])
def test_erased_as_torchvision_erases(kind: torch.dtype, channels: int) -> None:
    images = (torch.rand(8, channels, 24, 15, generator=keyed_generator(0)) * 200).to(kind)
    before, boxes = images.clone(), draw(8, 24, 15)
    value = torch.full((channels, 1, 1), 7).to(kind)
    expected = [
        tv.erase(image, i=top, j=left, h=bottom - top, w=right - left, v=value)
        for image, (top, left, bottom, right) in zip(images, boxes.tolist(), strict=True)
    ]
    erased = erase_boxes(images, boxes, 7)
    assert erased.dtype == kind
    assert torch.equal(erased, torch.stack(expected))
    assert torch.equal(images, before)


def test_the_memory_format_is_kept() -> None:
    images = torch.rand(4, 3, 9, 7).to(memory_format=torch.channels_last)
    assert erase_boxes(images, draw(4, 9, 7)).is_contiguous(memory_format=torch.channels_last)


def test_an_empty_box_and_an_empty_batch_change_nothing() -> None:
    images = torch.rand(2, 1, 5, 5)
    assert torch.equal(erase_boxes(images, torch.zeros(2, 4, dtype=torch.long)), images)
    assert erase_boxes(images[:0], torch.zeros(0, 4, dtype=torch.long)).shape == (0, 1, 5, 5)


def test_boxes_have_the_areas_and_shapes_that_are_asked_for() -> None:
    top, left, bottom, right = draw(20_000, 200, 150).double().t()
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (bottom <= 200).all()
    assert (right <= 150).all()
    tall, wide = bottom - top, right - left
    share = tall * wide / (200 * 150)
    assert 0.095 < share.min() < share.max() < 0.305  # sides are whole pixels
    # even over its range: quantiles of the uniform distribution
    expected = np.linspace(0.1, 0.3, 9)[1:-1]
    np.testing.assert_allclose(np.quantile(share, np.linspace(0, 1, 9)[1:-1]), expected, atol=0.004)
    shape = (tall / wide).log()
    assert abs(float(shape.mean())) < 0.02  # even on a logarithmic scale from 1/2 to 2
    assert abs(float(shape.std()) - np.log(4) / np.sqrt(12)) < 0.01
    # and they come to every corner
    assert top.min() == left.min() == 0
    assert bottom.max() == 200
    assert right.max() == 150


def test_a_box_longer_than_the_image_keeps_its_area() -> None:
    boxes = draw(500, 10, 100, area=(0.5, 0.5), ratio=(1.0, 1.0))
    top, left, bottom, right = boxes.t()
    assert ((bottom - top) == 10).all()
    assert ((right - left) == 50).all()


def test_every_image_has_its_own_draw_and_the_probability_is_kept() -> None:
    batch = torch.ones(4000, 1, 8, 8), torch.zeros(4000)
    images, _ = RandomErase(0.3, area=(0.1, 0.5)).change(batch, keyed_generator(1))
    erased = (images == 0).flatten(1).any(1)
    assert 0.27 < erased.float().mean() < 0.33
    assert len(images.unique(dim=0)) > 100


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(4, 8), r"shape \(4, 8\) must be a batch \(B, C, H, W\)"),
        (torch.zeros(4, 1, 0, 8), "no pixels"),
        (torch.zeros(4, 1, 8, 8, dtype=torch.int64), "int64 must be floats, or uint8"),
    ],
)
def test_other_inputs_are_refused(images: Tensor, message: str) -> None:
    boxes = torch.zeros(4, 4, dtype=torch.long)
    with pytest.raises((ValueError, TypeError), match=message):
        erase_boxes(images, boxes)
    with pytest.raises((ValueError, TypeError), match=message):
        RandomErase(1.0).change((images, boxes), keyed_generator(0))


def test_targets_before_inputs_are_told_by_the_key() -> None:
    batch = torch.zeros(4), torch.zeros(4, 1, 8, 8)
    with pytest.raises(ValueError, match="say by input_key= where the images are"):
        RandomErase(1.0).change(batch, keyed_generator(0))
    images = RandomErase(1.0, value=2.0, input_key=1).change(batch, keyed_generator(0))[1]
    assert (images == 2).any()


def test_boxes_of_another_count_are_refused() -> None:
    with pytest.raises(ValueError, match=r"boxes of shape \(2, 4\) must be \(3, 4\)"):
        erase_boxes(torch.zeros(3, 1, 4, 4), torch.zeros(2, 4, dtype=torch.long))


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (torch.uint8, 300.0, r"value=300.0 is not in \[0, 255\]"),
        (torch.uint8, -1.0, r"value=-1.0 is not in \[0, 255\]"),
        (torch.uint8, 0.5, "value=0.5 must be a whole number"),
        (torch.float16, 1e6, r"value=1000000.0 is not in \["),
    ],
)
def test_a_value_that_the_type_cannot_hold_is_refused(
    kind: torch.dtype, value: float, message: str
) -> None:
    images, boxes = torch.zeros(2, 1, 4, 4, dtype=kind), torch.tensor([[0, 0, 2, 2]] * 2)
    with pytest.raises(ValueError, match=rf"erase_boxes of {kind}: {message}"):
        erase_boxes(images, boxes, value)
    with pytest.raises(TechniqueError, match=rf"RandomErase of {kind}: {message}"):
        RandomErase(1.0, value=value).changed((images, boxes), keyed_generator(0))
