"""Images and masks whose pixels come from other places, one pass for a whole batch."""

import torch
from torch import Tensor
from torch.nn import functional

from lightning_dlopt.augmentation.geometry import Geometry, source_positions
from lightning_dlopt.augmentation.images import check_images, check_value
from lightning_dlopt.core.errors import ArgumentError, ArgumentTypeError

#: What some images may take while they are computed. It stays in the processor's cache, and to
#: ask the system for memory anew would take longer than the computing.
BYTES_AT_ONCE = 4 << 20


def transform_images(images: Tensor, geometry: Geometry, fill: float = 0.0) -> Tensor:
    """Return images that are turned, zoomed, flipped and cropped, in one pass.

    Where pixels only change places, they do so exactly. Else they are interpolated bilinearly, in
    float64 if the images are, in float32 if they are of another type. It is as if each image went
    on without end in the color ``fill``: nothing is cut off between the steps.

    Args:
        images: ``(B, C, H, W)``, floats or uint8, on any device; stay as they are.
        geometry: what is done to each; on the CPU.
        fill: the color of what lies outside, in the images' units; a whole number for uint8.

    Returns:
        New images of the same shape, type, device and memory format; uint8 is rounded.

    Raises:
        ArgumentError: for images of another shape, or another number of them than the geometry
            has; for a ``fill`` that their type can't hold.
        ArgumentTypeError: for images of another type of numbers.

    Example:
        >>> from lightning_dlopt.augmentation import draw_geometry
        >>> geometry = draw_geometry(1, flip=1.0, generator=torch.Generator())
        >>> transform_images(torch.tensor([[[[1.0, 2.0, 3.0]]]]), geometry)
        tensor([[[[3., 2., 1.]]]])
    """
    check_images("transform_images", images)
    _check_fit("transform_images", images, geometry, fill)
    kind = torch.promote_types(images.dtype, torch.float32)
    columns, rows = _positions(images, geometry, kind.to_complex())
    # grid_sample counts from -1 at one edge of the image to 1 at the other
    half = torch.tensor([images.shape[3] / 2, images.shape[2] / 2], device=images.device)
    torch.view_as_real(columns).div_(half)
    torch.view_as_real(rows).div_(half)
    result, grid = torch.empty_like(images), None
    for some in _parts(images):
        across, down = columns[some, None], rows[some, :, None]
        grid = torch.add(across, down, out=None if grid is None else grid[: len(across)])
        sampled = _sample(
            images[some].to(kind), torch.view_as_real(grid), fill, geometry.whole_pixels()
        )
        if not images.is_floating_point():
            sampled.round_()
        if len(sampled) == len(images) and _is_like(sampled, result):
            return sampled
        result[some] = sampled
    return result


def _is_like(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.stride() == other.stride()


def _sample(images: Tensor, grid: Tensor, fill: float, whole_pixels: bool) -> Tensor:
    if not whole_pixels:
        if fill == 0:  # that is what grid_sample takes for the pixels outside
            return functional.grid_sample(images, grid, align_corners=False)
        return functional.grid_sample(images - fill, grid, align_corners=False).add_(fill)
    sampled = functional.grid_sample(images, grid, mode="nearest", align_corners=False)
    if fill == 0:
        return sampled
    return sampled.masked_fill_((grid.abs() > 1).any(3)[:, None], fill)


def transform_masks(masks: Tensor, geometry: Geometry, fill: float = 0) -> Tensor:
    """Return masks that go along with images of :func:`transform_images`.

    Each pixel is the nearest of the mask's, or ``fill``; nothing is interpolated.

    Args:
        masks: ``(B, H, W)`` or ``(B, C, H, W)`` of any type, on any device; stay as they are.
        geometry: what is done to each; on the CPU.
        fill: the value of what lies outside.

    Returns:
        New masks of the same shape, type, device and memory format.

    Raises:
        ArgumentError: for masks of another shape, or another number of them than the geometry
            has; for a ``fill`` that their type can't hold.
        ArgumentTypeError: if they are no tensor.

    Example:
        >>> from lightning_dlopt.augmentation import draw_geometry
        >>> geometry = draw_geometry(1, flip=1.0, generator=torch.Generator())
        >>> transform_masks(torch.tensor([[[1, 2, 3]]]), geometry)
        tensor([[[3, 2, 1]]])
    """
    if not isinstance(masks, Tensor):
        raise ArgumentTypeError(
            f"transform_masks: masks must be a tensor, not a {type(masks).__name__}"
        )
    if masks.dim() not in (3, 4):
        raise ArgumentError(
            f"transform_masks: masks of shape {tuple(masks.shape)} must be (B, H, W) or "
            "(B, C, H, W)"
        )
    _check_fit("transform_masks", masks, geometry, fill)
    layers = masks[:, None] if masks.dim() == 3 else masks
    height, width = layers.shape[2:]
    columns, rows = _positions(layers, geometry, torch.complex64)
    center = complex((width - 1) / 2, (height - 1) / 2)
    result = torch.empty_like(layers)
    for some in _parts(layers):
        place = columns[some, None] + rows[some, :, None] + center
        x, y = torch.view_as_real(place).round_().long().unbind(3)
        outside = (x < 0) | (x >= width) | (y < 0) | (y >= height)
        index = (y * width + x).masked_fill_(outside, 0)[:, None].expand_as(layers[some])
        moved = layers[some].flatten(2).gather(2, index.flatten(2)).view(index.shape)
        result[some] = moved.masked_fill_(outside[:, None], fill)
    return result.view(masks.shape) if masks.dim() == 3 else result


def _positions(images: Tensor, geometry: Geometry, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    columns, rows = source_positions(geometry, images.shape[2], images.shape[3])
    return columns.to(images.device, kind), rows.to(images.device, kind)


def _parts(images: Tensor) -> list[slice]:
    """Return which images are computed at once; every core gets one, and a gradient all."""
    count = len(images)
    each = images[:1].numel() * 8 + images.shape[2] * images.shape[3] * 8
    size = max(BYTES_AT_ONCE // max(each, 1), torch.get_num_threads())
    if images.requires_grad or images.device.type != "cpu":
        size = max(count, 1)
    return [slice(begin, begin + size) for begin in range(0, count, size)]


def _check_fit(owner: str, images: Tensor, geometry: Geometry, fill: float) -> None:
    if len(images) != len(geometry.top):
        raise ArgumentError(
            f"{owner}: a geometry of {len(geometry.top)} images doesn't fit {len(images)}"
        )
    check_value(owner, "fill", fill, images.dtype)
