"""Rectangles of an image that are painted over."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_dlopt.augmentation.images import check_images, check_value, inside_boxes
from lightning_dlopt.core.batch import Key, check_key, find_key, get_tensor, replace_fields
from lightning_dlopt.core.batch_technique import BatchTechnique
from lightning_dlopt.core.checks import check_number, check_range
from lightning_dlopt.core.errors import ArgumentError


def draw_boxes(
    count: int,
    height: int,
    width: int,
    *,
    area: tuple[float, float],
    ratio: tuple[float, float],
    generator: torch.Generator,
) -> Tensor:
    """Draw rectangles that lie within an image.

    Args:
        count: how many.
        height: of the image, in pixels.
        width: of the image, in pixels.
        area: least and most share of the image's area.
        ratio: least and most height over width, drawn evenly on a logarithmic scale. A rectangle
            of its area that would be longer than the image is made as long as the image.
        generator: what the draws come from.

    Returns:
        ``(count, 4)`` integers: top, left, bottom, right, the last two excluded.

    Example:
        >>> draw_boxes(1, 8, 6, area=(1, 1), ratio=(1, 1), generator=torch.Generator())
        tensor([[0, 0, 8, 6]])
    """
    share, shape, down, across = torch.rand(4, count, generator=generator, dtype=torch.float64)
    size = height * width * (area[0] + (area[1] - area[0]) * share)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    # between the ratios at which the rectangle is as wide, and as high, as the image
    shape = (low + (high - low) * shape).exp().clamp(size / width**2, height**2 / size)
    tall = (size * shape).sqrt().round().clamp(1, height)
    wide = (size / shape).sqrt().round().clamp(1, width)
    top, left = (down * (height - tall + 1)).floor(), (across * (width - wide + 1)).floor()
    return torch.stack([top, left, top + tall, left + wide], 1).long()


def erase_boxes(images: Tensor, boxes: Tensor, value: float = 0.0) -> Tensor:
    """Return images in which one rectangle each is painted over.

    Args:
        images: ``(B, C, H, W)``, floats or uint8, on any device; stays as it is.
        boxes: ``(B, 4)`` integers: top, left, bottom, right, the last two excluded. An empty one
            (bottom no more than top) leaves its image as it is.
        value: the color, in the images' units; a whole number for uint8.

    Returns:
        Images of the same shape, type, device and memory format.

    Raises:
        ArgumentError: for images or boxes of another shape; for a ``value`` that the images' type
            can't hold.
        ArgumentTypeError: for images of another type of numbers.

    Example:
        >>> erase_boxes(torch.ones(1, 1, 2, 3), torch.tensor([[0, 1, 2, 3]]))
        tensor([[[[1., 0., 0.],
                  [1., 0., 0.]]]])
    """
    check_images("erase_boxes", images)
    check_value("erase_boxes", "value", value, images.dtype)
    if boxes.shape != (len(images), 4):
        raise ArgumentError(
            f"erase_boxes: boxes of shape {tuple(boxes.shape)} must be {(len(images), 4)}"
        )
    inside = inside_boxes(boxes.to(images.device), *images.shape[2:])[:, None]
    return images.clone().masked_fill_(inside, value)  # a clone keeps the memory format


class RandomErase(BatchTechnique):
    """Paint over a random rectangle of each training image.

    Each image has its own draw of whether, where, how large and in which shape. Labels stay.

    Source: Z. Zhong, L. Zheng, G. Kang, S. Li, Y. Yang, Random Erasing Data Augmentation, 2017,
    arXiv:1708.04896. Its Algorithm 1 draws area and shape again until the rectangle fits; we keep
    the area and let the shape follow, so that an area of up to the whole image works. It paints
    with noise or the mean; we with one value, and the mean of normalized images is 0.

    When:
        Objects may be partly hidden in use; the network relies on one part of them.

    When not:
        What decides is small, and may be painted over altogether while its label stays.

    Args:
        probability: how often an image is changed, in [0, 1]. At 0 nothing is.
        area: least and most share of the image's area, in (0, 1].
        ratio: least and most height over width of the rectangle, above 0.
        value: what it is painted with, in the units of the batch (after normalization); a whole
            number within 0 to 255 for uint8.
        input_key: where the images are in the batch: a position, a key, or a field's name.

    Raises:
        TechniqueError: in the first step, if the input is no batch of images ``(B, C, H, W)`` of
            floats or uint8, or isn't found; if the type of the images can't hold ``value``.

    The checkpoint keeps the arguments.

    Example:
        >>> RandomErase(0.25, area=(0.1, 0.2))
        RandomErase(probability=0.25, area=[0.1, 0.2])
    """

    def __init__(
        self,
        probability: float = 0.5,
        area: Sequence[float] = (0.02, 0.33),
        ratio: Sequence[float] = (0.3, 3.3),
        value: float = 0.0,
        input_key: Key | None = None,
    ) -> None:
        self.probability = check_number(self, "probability", probability, "[0, 1]")
        self.area = check_range(self, "area", area, "(0, 1]")
        self.ratio = check_range(self, "ratio", ratio, "(0, inf)")
        self.value = check_number(self, "value", value, "(-inf, inf)")
        self.input_key = check_key(self, "input_key", input_key)

    def neutral(self) -> str | None:
        """Return why there is nothing to do, if the probability is 0."""
        return "probability is 0" if self.probability == 0 else None

    def change(self, batch: Any, generator: torch.Generator) -> Any:
        """Return the batch with rectangles painted over."""
        images = check_images(self, get_tensor(batch, "input", self.input_key, self))
        check_value(self, "value", self.value, images.dtype)
        count, _, height, width = images.shape
        boxes = draw_boxes(
            count, height, width, area=self.area, ratio=self.ratio, generator=generator
        )
        boxes[torch.rand(count, generator=generator) >= self.probability] = 0
        where = find_key(batch, "input", self.input_key, self)
        return replace_fields(batch, {where: erase_boxes(images, boxes, self.value)})
