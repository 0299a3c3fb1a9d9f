"""Checks of batches of images."""

import torch
from torch import Tensor

from lightning_dlopt.core.checks import owner_name
from lightning_dlopt.core.errors import ArgumentError, ArgumentTypeError


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
