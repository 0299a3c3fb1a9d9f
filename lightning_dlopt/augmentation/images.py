"""Checks of batches of images, and of the values that are put into them."""

import math
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from lightning_dlopt.core.batch import Key, Role, find_key, get_field
from lightning_dlopt.core.checks import check_number, owner_name
from lightning_dlopt.core.errors import ArgumentError, ArgumentTypeError, TechniqueError


def check_images(owner: object, images: Tensor, name: str = "images") -> Tensor:
    """Return ``images`` if they are a batch ``(B, C, H, W)`` of floats or uint8.

    Args:
        owner: what the images are for.
        images: to be checked; a batch of none is one, too.
        name: what a message calls them.

    Raises:
        ArgumentTypeError: if they are no tensor, or of another type of numbers.
        ArgumentError: if they have another number of dimensions, or no pixels.

    Example:
        >>> check_images("flip", torch.zeros(3, 8, 8))
        Traceback (most recent call last):
        ...
        lightning_dlopt.core.errors.ArgumentError: flip: images of shape (3, 8, 8) must be a \
batch (B, C, H, W)
    """
    if not isinstance(images, Tensor):
        raise ArgumentTypeError(
            f"{owner_name(owner)}: {name} must be a tensor (B, C, H, W), not a "
            f"{type(images).__name__}"
        )
    if images.dim() != 4:
        raise ArgumentError(
            f"{owner_name(owner)}: {name} of shape {tuple(images.shape)} must be a batch "
            "(B, C, H, W)"
            + ("" if isinstance(owner, str) else ": say by input_key= where the images are")
        )
    if not (images.is_floating_point() or images.dtype == torch.uint8):
        raise ArgumentTypeError(
            f"{owner_name(owner)}: {name} of {images.dtype} must be floats, or uint8 of 0 to 255: "
            "convert them with images.float() or images.to(torch.uint8)"
        )
    if 0 in images.shape[1:]:
        raise ArgumentError(
            f"{owner_name(owner)}: {name} of shape {tuple(images.shape)} have no pixels"
        )
    return images


def inside_boxes(boxes: Tensor, height: int, width: int) -> Tensor:
    """Return which pixels are inside of each box, ``(B, height, width)``, on the boxes' device.

    Args:
        boxes: ``(B, 4)`` integers: top, left, bottom, right, the last two excluded.
        height: of the images, in pixels.
        width: of the images, in pixels.

    Example:
        >>> inside_boxes(torch.tensor([[0, 1, 1, 3]]), 2, 3).int()
        tensor([[[0, 1, 1],
                 [0, 0, 0]]], dtype=torch.int32)
    """
    top, left, bottom, right = boxes.t()[:, :, None]
    rows = torch.arange(height, device=boxes.device)
    columns = torch.arange(width, device=boxes.device)
    down = (rows >= top) & (rows < bottom)
    across = (columns >= left) & (columns < right)
    inside: Tensor = down[:, :, None] & across[:, None, :]
    return inside


def check_value(owner: object, name: str, value: float, kind: torch.dtype) -> float:
    """Return ``value`` if pixels of type ``kind`` can hold it.

    Floats must have it in their range, and round it; integers and booleans must hold it exactly.

    Args:
        owner: what the value is for.
        name: of the argument that it is.
        value: to be put into a tensor.
        kind: the tensor's type.

    Raises:
        ArgumentTypeError: if it is no number.
        ArgumentError: if it is out of range, or not whole where it must be.

    Example:
        >>> check_value("erase", "value", 0.5, torch.uint8)
        Traceback (most recent call last):
        ...
        lightning_dlopt.core.errors.ArgumentError: erase of torch.uint8: value=0.5 must be a whole \
number
    """
    owner = f"{owner_name(owner)} of {kind}"
    low: float
    high: float
    if kind.is_floating_point or kind.is_complex:
        low, high = torch.finfo(kind).min, torch.finfo(kind).max
        return check_number(owner, name, value, f"[{low}, {high}]")
    low, high = (0, 1) if kind == torch.bool else (torch.iinfo(kind).min, torch.iinfo(kind).max)
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ArgumentTypeError(f"{owner}: {name}={value!r} must be a number in [{low}, {high}]")
    # compared as it is: the largest integers have no float that is equal
    if not low <= value <= high:
        raise ArgumentError(f"{owner}: {name}={value!r} is not in [{low}, {high}]")
    if value != math.floor(value):
        raise ArgumentError(f"{owner}: {name}={value!r} must be a whole number")
    return value


def find_masks(batch: Any, images: Tensor) -> Key | None:
    """Return where a batch's target or mask is, if it has a value for each of the images' pixels.

    Args:
        batch: of any form.
        images: those of the batch, ``(B, C, H, W)``.

    Example:
        >>> find_masks((torch.zeros(2, 3, 8, 9), torch.zeros(2, 8, 9)), torch.zeros(2, 3, 8, 9))
        1
    """
    roles: tuple[Role, ...] = ("target", "mask")
    for role in roles:
        try:
            key = find_key(batch, role)
        except TechniqueError:
            continue
        found = get_field(batch, key)
        if not isinstance(found, Tensor) or found is images or found.dim() < 3:
            continue
        if len(found) == len(images) and found.shape[-2:] == images.shape[-2:]:
            return key
    return None
