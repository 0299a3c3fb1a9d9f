"""What is drawn, and which fields of a batch are moved."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from lightning_dlopt import (
    Geometry,
    RandomGeometry,
    TechniqueError,
    draw_geometry,
    keyed_generator,
    transform_images,
    transform_masks,
)

ALL: dict[str, Any] = {
    "flip": 0.3,
    "vertical_flip": 0.1,
    "rotation": 20,
    "scale": (0.8, 1.1),
    "crop": 2,
}
MANY = 40_000


def draw(count: int = MANY, seed: int = 1, **arguments: Any) -> Geometry:
    return draw_geometry(count, generator=keyed_generator(seed), **arguments)


def as_columns(geometry: Geometry) -> Tensor:
    return torch.stack([field.double() for field in geometry if field is not None])


def assert_even(values: Tensor, low: float, high: float) -> None:
    assert low <= values.min() < values.max() <= high
    steps = np.linspace(0, 1, 9)
    np.testing.assert_allclose(
        np.quantile(values, steps), low + (high - low) * steps, atol=0.01 * (high - low)
    )


def test_draws_are_distributed_as_asked_for() -> None:
    geometry = draw(**ALL)
    assert abs(float(geometry.flip.double().mean()) - 0.3) < 0.01
    assert abs(float(geometry.vertical_flip.double().mean()) - 0.1) < 0.01
    assert geometry.angle is not None
    assert geometry.scale is not None
    assert_even(geometry.angle, -20, 20)
    assert_even(geometry.scale, 0.8, 1.1)
    for shift in (geometry.top, geometry.left):
        values, counts = shift.unique(return_counts=True)
        assert values.tolist() == [-2, -1, 0, 1, 2]
        assert (counts / MANY - 0.2).abs().max() < 0.01


def test_draws_of_images_and_of_arguments_are_independent() -> None:
    drawn = as_columns(draw(**ALL))
    assert (torch.corrcoef(drawn) - torch.eye(6)).abs().max() < 0.02
    for field in drawn:
        neighbors = torch.corrcoef(torch.stack([field[1:], field[:-1]]))
        assert abs(float(neighbors[0, 1])) < 0.02


def test_one_argument_changes_no_other_draws() -> None:
    whole = draw(50, **ALL)
    for name, value in ALL.items():
        alone = draw(50, **{name: value})
        field = {"rotation": "angle", "crop": "top"}.get(name, name)
        assert torch.equal(getattr(alone, field), getattr(whole, field))
        assert alone.whole_pixels() == (name not in ("rotation", "scale"))


def test_certain_and_impossible_flips() -> None:
    geometry = draw(flip=1.0)
    assert geometry.flip.all()
    assert not geometry.vertical_flip.any()
    assert not geometry.top.any()
    assert geometry.angle is None
    assert geometry.scale is None
    assert draw(scale=(1.0, 1.0)).scale is None


def test_a_batch_is_moved_as_torchvision_moves_images_on_average() -> None:
    """The mean image over many draws, ours and torchvision's own classes."""
    image = torch.rand(1, 11, 11, generator=keyed_generator(0))
    batch = image.expand(MANY, 1, 11, 11), torch.zeros(MANY)
    ours, _ = RandomGeometry(flip=0.3, rotation=20, scale=(0.8, 1.0), crop=2).change(
        batch, keyed_generator(1)
    )
    theirs = v2.Compose(
        [
            v2.Pad(2),
            v2.RandomAffine(20, scale=(0.8, 1.0), interpolation=v2.InterpolationMode.BILINEAR),
            v2.RandomHorizontalFlip(0.3),
            v2.RandomCrop(11),
        ]
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        expected = torch.stack([theirs(image) for _ in range(4000)])
    inside = (..., slice(3, 8), slice(3, 8))  # torchvision's border is darker
    difference = (ours.mean(0) - expected.mean(0))[inside]
    assert difference.abs().max() < 5 * float(expected.std(0).max()) / 4000**0.5


def test_every_image_has_its_own_draw_and_the_batch_stays() -> None:
    images = torch.rand(1, 1, 8, 8, generator=keyed_generator(0)).repeat(100, 1, 1, 1)
    before = images.clone()
    moved = RandomGeometry(**ALL).change({"image": images}, keyed_generator(1))["image"]
    assert len(moved.unique(dim=0)) == 100
    assert torch.equal(images, before)
    again = RandomGeometry(**ALL).change({"image": images}, keyed_generator(1))["image"]
    assert torch.equal(moved, again)


@pytest.mark.parametrize("layers", [(), (2,)])
def test_masks_go_along_and_the_rest_stays(layers: tuple[int, ...]) -> None:
    images = torch.rand(6, 3, 8, 9, generator=keyed_generator(0))
    masks = torch.randint(5, (6, *layers, 8, 9), generator=keyed_generator(1))
    labels = torch.arange(6)
    technique = RandomGeometry(**ALL, fill=0.5, mask_fill=-1, mask_key="mask")
    moved = technique.change({"x": images, "y": labels, "mask": masks}, keyed_generator(2))
    geometry = draw_geometry(6, **ALL, generator=keyed_generator(2))
    assert torch.equal(moved["x"], transform_images(images, geometry, 0.5))
    assert torch.equal(moved["mask"], transform_masks(masks, geometry, -1))
    assert moved["y"] is labels
    pair = RandomGeometry(**ALL, fill=0.5, mask_fill=-1, mask_key=1).change(
        (images, masks), keyed_generator(2)
    )
    assert torch.equal(pair[1], moved["mask"])


MASKED: list[tuple[Any, Any]] = [
    ((torch.zeros(2, 1, 5, 4), torch.zeros(2, 5, 4)), 1),
    ((torch.zeros(2, 1, 5, 4), torch.zeros(2), torch.zeros(2, 3, 5, 4)), 2),
    ({"image": torch.zeros(2, 1, 5, 4), "labels": torch.zeros(2, 5, 4)}, "labels"),
    ({"image": torch.zeros(2, 1, 5, 4), "mask": torch.zeros(2, 5, 4)}, "mask"),
]
UNMASKED: list[Any] = [
    (torch.zeros(5, 1, 5, 4), torch.zeros(5, 4)),  # soft labels of four classes
    (torch.zeros(2, 1, 5, 4), torch.zeros(2, 4, 5)),
    {"image": torch.zeros(2, 1, 5, 4), "names": ["a", "b"]},
    [torch.zeros(2, 1, 5, 4)],
]


@pytest.mark.parametrize(("batch", "key"), MASKED)
def test_masks_that_do_not_go_along_are_told_once(batch: Any, key: Any) -> None:
    technique = RandomGeometry(1.0)
    with pytest.warns(UserWarning, match=f"say mask_key={key!r}"):
        technique.change(batch, keyed_generator(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        technique.change(batch, keyed_generator(0))
        RandomGeometry(1.0, mask_key=key).change(batch, keyed_generator(0))


@pytest.mark.parametrize("batch", UNMASKED)
def test_without_masks_nothing_is_told(batch: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        RandomGeometry(1.0).change(batch, keyed_generator(0))


@pytest.mark.parametrize(
    ("technique", "batch", "message"),
    [
        (RandomGeometry(crop=8), {"x": torch.zeros(2, 1, 9, 8)}, r"crop=8 must be less .*\(9, 8\)"),
        (RandomGeometry(1.0), {"x": torch.zeros(2, 8)}, r"must be a batch \(B, C, H, W\)"),
        (
            RandomGeometry(1.0, mask_key="mask"),
            {"x": torch.zeros(2, 1, 4, 4)},
            "mask_key='mask' isn",
        ),
        (RandomGeometry(1.0, mask_key="x"), {"x": torch.zeros(2, 1, 4, 4)}, "are the images"),
        (
            RandomGeometry(1.0, mask_key=1),
            (torch.zeros(2, 1, 4, 4), torch.zeros(2, 8, 8)),
            r"masks of shape \(2, 8, 8\) don't fit images of \(2, 1, 4, 4\)",
        ),
        (
            RandomGeometry(1.0, fill=300),
            (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), 0),
            r"uint8: fill=300\.0 is not in \[0, 255\]",
        ),
        (
            RandomGeometry(1.0, fill=0.5),
            (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), 0),
            r"uint8: fill=0\.5 must be a whole number",
        ),
        (
            RandomGeometry(1.0, mask_fill=-0.5, mask_key=1),
            (torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4, dtype=torch.int64)),
            r"int64: mask_fill=-0\.5 must be a whole number",
        ),
    ],
)
def test_what_does_not_fit_is_refused(technique: RandomGeometry, batch: Any, message: str) -> None:
    with pytest.raises(TechniqueError, match=message):
        technique.changed(batch, keyed_generator(0))
