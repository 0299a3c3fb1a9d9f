"""Random flips, rotations, zooms and crops, and where they take their pixels from."""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Geometry(NamedTuple):
    """What is done to each image of a batch, in this order; each field has one entry an image.

    Attributes:
        flip: whether left and right are exchanged.
        vertical_flip: whether top and bottom are exchanged.
        top: the row of the image, turned and flipped, that becomes the first; may be negative.
        left: the column that becomes the first; may be negative.
        angle: degrees by which the image is turned before it is flipped, counter-clockwise, or
            None if no image is.
        scale: how many times larger what is seen is made before it is flipped, or None if no
            image is.
    """

    flip: Tensor
    vertical_flip: Tensor
    top: Tensor
    left: Tensor
    angle: Tensor | None = None
    scale: Tensor | None = None

    def whole_pixels(self) -> bool:
        """Return whether every pixel goes to the place of another one, without interpolation."""
        return self.angle is None and self.scale is None


def draw_geometry(
    count: int,
    *,
    flip: float = 0.0,
    vertical_flip: float = 0.0,
    rotation: float = 0.0,
    scale: tuple[float, float] | None = None,
    crop: int = 0,
    generator: torch.Generator,
) -> Geometry:
    """Draw what is done to each image of a batch.

    Args:
        count: how many images.
        flip: probability of exchanging left and right.
        vertical_flip: probability of exchanging top and bottom.
        rotation: most degrees in each direction, drawn evenly.
        scale: least and most scale, drawn evenly; more than 1 zooms in.
        crop: most pixels by which the image is shifted along each axis, drawn evenly.
        generator: what the draws come from; the same number whatever is asked for, so that
            one argument changes no other's draws.

    Example:
        >>> geometry = draw_geometry(3, flip=1.0, rotation=10, generator=torch.Generator())
        >>> geometry.flip, geometry.top
        (tensor([True, True, True]), tensor([0, 0, 0]))
        >>> bool((geometry.angle.abs() <= 10).all())
        True
    """
    flips, vertical_flips, tops, lefts, angles, scales = torch.rand(
        6, count, generator=generator, dtype=torch.float64
    )
    low, high = scale or (1.0, 1.0)
    turns, zooms = rotation != 0, (low, high) != (1.0, 1.0)
    return Geometry(
        flips < flip,
        vertical_flips < vertical_flip,
        (tops * (2 * crop + 1)).long() - crop,
        (lefts * (2 * crop + 1)).long() - crop,
        angles * (2 * rotation) - rotation if turns else None,
        scales * (high - low) + low if zooms else None,
    )


def source_positions(geometry: Geometry, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return where the pixels of the result lie in the images.

    A position is a complex number, ``x`` pixels to the right and ``y`` below the image's center,
    so that to turn and to zoom is to multiply. It is a sum of what the pixel's column adds and
    what its row adds, and no more than these two has to be computed for each image.

    Args:
        geometry: what is done to ``B`` images.
        height: of the images.
        width: of the images.

    Returns:
        ``(B, width)`` for the columns and ``(B, height)`` for the rows, in complex128.

    Example:
        >>> no = torch.tensor([False])
        >>> shift = Geometry(no, no, top=torch.tensor([1]), left=torch.tensor([0]))
        >>> columns, rows = source_positions(shift, 2, 2)
        >>> columns + rows[:, :1]
        tensor([[-0.5000+0.5000j,  0.5000+0.5000j]], dtype=torch.complex128)
    """
    angle, scale = geometry.angle, geometry.scale
    one = torch.ones(len(geometry.top), dtype=torch.float64)
    turn = torch.polar(
        one if scale is None else 1 / scale.double(),
        one - 1 if angle is None else angle.double() * (math.pi / 180),
    )
    back = -turn
    right = torch.where(geometry.flip, back, turn)
    below = torch.where(geometry.vertical_flip, back, turn) * 1j
    across = geometry.left[:, None] + torch.arange(width, dtype=torch.float64)
    down = geometry.top[:, None] + torch.arange(height, dtype=torch.float64)
    return (
        right[:, None] * across.sub_((width - 1) / 2),
        below[:, None] * down.sub_((height - 1) / 2),
    )
