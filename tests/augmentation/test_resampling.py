"""What is done to pixels, against torchvision's functions with the same numbers."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from lightning_dlopt import (
    Geometry,
    draw_geometry,
    keyed_generator,
    transform_images,
    transform_masks,
)
from lightning_dlopt.augmentation import resampling

SIZES = [(8, 8), (7, 7), (9, 14), (12, 5)]
EXACT: dict[str, Any] = {"flip": 0.5, "vertical_flip": 0.5, "crop": 3}
ALL: dict[str, Any] = {**EXACT, "rotation": 60, "scale": (0.6, 1.7)}
KINDS = [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64]
PAD = 30  # so much that nothing is pushed out between the steps


def draw(count: int, **arguments: Any) -> Geometry:
    return draw_geometry(count, generator=keyed_generator(3), **arguments)


def pictures(size: tuple[int, int], kind: torch.dtype = torch.float32, channels: int = 3) -> Tensor:
    pixels = torch.rand(12, channels, *size, generator=keyed_generator(0), dtype=torch.float64)
    return (pixels * 255).to(kind) if kind == torch.uint8 else pixels.to(kind)


def reference(images: Tensor, geometry: Geometry, fill: float, mode: str = "bilinear") -> Tensor:
    """Pad, turn and zoom, flip, crop: one image and one step at a time."""
    results = []
    for i, image in enumerate(images):
        image = tv.pad(image, [PAD], fill=fill)
        if geometry.angle is not None or geometry.scale is not None:
            image = tv.affine(
                image,
                # torchvision's affine turns clockwise, its rotate counter-clockwise
                angle=0.0 if geometry.angle is None else -float(geometry.angle[i]),
                translate=[0, 0],
                scale=1.0 if geometry.scale is None else float(geometry.scale[i]),
                shear=[0.0],
                interpolation=InterpolationMode(mode),
            )
        image = tv.horizontal_flip(image) if geometry.flip[i] else image
        image = tv.vertical_flip(image) if geometry.vertical_flip[i] else image
        top, left = PAD + int(geometry.top[i]), PAD + int(geometry.left[i])
        results.append(tv.crop(image, top, left, images.shape[-2], images.shape[-1]))
    return torch.stack(results)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("fill", [0.0, 0.7])
@pytest.mark.parametrize("configured", [ALL, {"rotation": 60}, {"scale": (0.6, 1.7), "crop": 2}])
def test_images_move_as_torchvision_moves_them(
    size: tuple[int, int], channels: int, fill: float, configured: dict[str, Any]
) -> None:
    images, geometry = pictures(size, torch.float64, channels), draw(12, **configured)
    expected = reference(images, geometry, fill)
    torch.testing.assert_close(
        transform_images(images, geometry, fill), expected, rtol=0, atol=1e-12
    )
    single = transform_images(images.float(), geometry, fill)
    torch.testing.assert_close(single.double(), expected, rtol=0, atol=5e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fill", [0, 3])
def test_each_type_is_kept_and_rounded_once(kind: torch.dtype, fill: float) -> None:
    images, geometry = pictures((9, 14), kind), draw(12, **ALL)
    before = images.clone()
    result = transform_images(images, geometry, fill)
    assert result.dtype == kind
    assert torch.equal(images, before)
    exact = reference(images.double(), geometry, fill)
    expected = exact.round() if kind == torch.uint8 else exact
    off = (result.double() - expected).abs()
    if kind == torch.uint8:  # halves may be rounded to either side
        assert off.max() <= 1
        assert off.gt(0).double().mean() < 1e-3
    else:
        digits = {torch.float64: 1e-12, torch.float32: 5e-6, torch.float16: 2e-3}.get(kind, 1.6e-2)
        assert off.max() < digits


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fill", [0, 3])
@pytest.mark.parametrize("size", SIZES)
def test_pixels_that_only_change_places_are_exact(
    kind: torch.dtype, fill: float, size: tuple[int, int]
) -> None:
    images, geometry = pictures(size, kind), draw(12, **EXACT)
    assert torch.equal(transform_images(images, geometry, fill), reference(images, geometry, fill))


@pytest.mark.parametrize("size", [8, 9, 31])
@pytest.mark.parametrize("quarters", [-1, 0, 1, 2])
def test_quarter_turns_of_squares_are_exact_up_to_rounding(size: int, quarters: int) -> None:
    images, no = pictures((size, size), torch.float64), torch.zeros(12, dtype=torch.bool)
    angle = torch.full((12,), 90.0 * quarters)
    result = transform_images(images, Geometry(no, no, no.long(), no.long(), angle=angle))
    expected = tv.rotate(images, 90.0 * quarters)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-12)


def test_inside_the_border_torchvisions_fill_is_the_same_and_at_the_border_it_weighs_twice() -> (
    None
):
    images, fill = torch.ones(1, 1, 9, 9, dtype=torch.float64), 3.0
    no = torch.tensor([False])
    geometry = Geometry(no, no, no.long(), no.long(), angle=torch.tensor([30.0]))
    ours = transform_images(images, geometry, fill)
    theirs = tv.rotate(images, 30.0, InterpolationMode.BILINEAR, fill=[fill])
    share = tv.rotate(images, 30.0, InterpolationMode.BILINEAR)  # how much of a pixel is image
    torch.testing.assert_close(ours, share + (1 - share) * fill)
    torch.testing.assert_close(theirs, share * share + (1 - share) * fill)


@pytest.mark.parametrize("configured", [EXACT, ALL])
@pytest.mark.parametrize("kind", [torch.float32, torch.uint8, torch.float16])
def test_the_memory_format_is_kept_and_changes_nothing(
    configured: dict[str, Any], kind: torch.dtype
) -> None:
    images, geometry = pictures((9, 14), kind), draw(12, **configured)
    last = transform_images(images.to(memory_format=torch.channels_last), geometry, 3)
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last, transform_images(images, geometry, 3), rtol=0, atol=5e-6)


@pytest.mark.parametrize("configured", [EXACT, ALL])
@pytest.mark.parametrize("fill", [0, 3])
def test_parts_of_a_batch_make_the_same_as_the_whole(
    configured: dict[str, Any], fill: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, geometry = pictures((9, 14)), draw(12, **configured)
    masks = (images * 9).long()
    whole = transform_images(images, geometry, fill), transform_masks(masks, geometry, fill)
    monkeypatch.setattr(resampling, "BYTES_AT_ONCE", 5 * 9 * 14 * 32)  # 5, 5 and 2 images
    assert [part.stop - part.start for part in resampling._parts(images)] == [5, 5, 5]
    parts = transform_images(images, geometry, fill), transform_masks(masks, geometry, fill)
    assert all(torch.equal(part, one) for part, one in zip(parts, whole, strict=True))


@pytest.mark.parametrize("kind", [torch.bool, torch.int64, torch.uint8, torch.float16])
@pytest.mark.parametrize("layers", [None, 1, 2])
@pytest.mark.parametrize("configured", [EXACT, ALL])
def test_masks_go_along(kind: torch.dtype, layers: int | None, configured: dict[str, Any]) -> None:
    large = 2**40 if kind == torch.int64 else 0  # no float of 32 bits holds these labels
    masks = (pictures((9, 14), torch.float64, layers or 1) * 5 + large).to(kind)
    geometry = draw(12, **configured)
    # bool can't be sampled by torchvision, and a float of 64 bits holds all that is here
    expected = reference(masks.double(), geometry, 1, "nearest").to(kind)
    if layers is None:
        masks, expected = masks[:, 0], expected[:, 0]
    result = transform_masks(masks, geometry, fill=1)
    assert result.dtype == kind
    assert torch.equal(result, expected)


def test_gradients_flow_back_to_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "BYTES_AT_ONCE", 1)
    images = pictures((5, 4), torch.float64, 1)[:3].requires_grad_()
    geometry = draw(3, **ALL)
    assert torch.autograd.gradcheck(lambda x: transform_images(x, geometry, 0.5), images)


def test_no_images_and_one() -> None:
    for configured in (EXACT, ALL):
        assert transform_images(torch.zeros(0, 3, 5, 6), draw(0, **configured)).shape[0] == 0
        assert transform_masks(torch.zeros(0, 5, 6), draw(0, **configured)).shape == (0, 5, 6)
        one = transform_images(torch.zeros(1, 3, 1, 1), draw(1, **configured))
        assert torch.equal(one, torch.zeros(1, 3, 1, 1))


@pytest.mark.parametrize(
    ("kind", "fill"), [(torch.uint8, -1), (torch.uint8, 256), (torch.float16, 1e6)]
)
def test_a_fill_that_the_type_cannot_hold_is_refused(kind: torch.dtype, fill: float) -> None:
    with pytest.raises(ValueError, match=rf"of {kind}: fill={fill!r} is not in \["):
        transform_images(torch.zeros(2, 1, 4, 4, dtype=kind), draw(2), fill)
    with pytest.raises(ValueError, match=rf"of {kind}: fill={fill!r} is not in \["):
        transform_masks(torch.zeros(2, 4, 4, dtype=kind), draw(2), fill)


@pytest.mark.parametrize("kind", [torch.uint8, torch.int64, torch.bool])
def test_a_fill_between_two_whole_numbers_is_refused_for_integers(kind: torch.dtype) -> None:
    with pytest.raises(ValueError, match=f"of {kind}: fill=0.5 must be a whole number"):
        transform_masks(torch.zeros(2, 4, 4, dtype=kind), draw(2), 0.5)
    for fill in (0.0, 1.0):
        moved = transform_masks(torch.zeros(2, 4, 4, dtype=kind), draw(2), fill)
        assert moved.dtype == kind


def test_a_fill_above_the_largest_integer_is_refused() -> None:
    masks = torch.zeros(2, 4, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"fill=9\.22337"):
        transform_masks(masks, draw(2), 2.0**63)  # as a float it is equal to the largest one
    assert transform_masks(masks, draw(2), -(2.0**63)).dtype == torch.int64


def test_other_masks_and_other_counts_are_refused() -> None:
    with pytest.raises(ValueError, match=r"masks of shape \(2, 4\) must be \(B, H, W\)"):
        transform_masks(torch.zeros(2, 4), draw(2))
    with pytest.raises(TypeError, match="must be a tensor, not a list"):
        transform_masks([[1]], draw(1))  # type: ignore[arg-type]
    for transform in (transform_images, transform_masks):
        with pytest.raises(ValueError, match="geometry of 3 images doesn't fit 2"):
            transform(torch.zeros(2, 1, 4, 4), draw(3))
    with pytest.raises(ValueError, match=r"must be a batch \(B, C, H, W\)"):
        transform_images(torch.zeros(2, 4, 4), draw(2))
