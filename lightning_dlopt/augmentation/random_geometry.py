"""Random flips, rotations, zooms and crops of a batch of images."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_dlopt.augmentation.geometry import Geometry, draw_geometry
from lightning_dlopt.augmentation.images import check_images, check_value, find_masks
from lightning_dlopt.augmentation.resampling import transform_images, transform_masks
from lightning_dlopt.core.batch import Key, check_key, find_key, get_tensor, replace_fields
from lightning_dlopt.core.batch_technique import BatchTechnique
from lightning_dlopt.core.checks import check_integer, check_number, check_range
from lightning_dlopt.core.errors import ArgumentError


class RandomGeometry(BatchTechnique):
    """Turn, zoom, flip and crop each training image at random.

    Each image has its own draw of each. All of them are one affine matrix and one bilinear sampling
    for the batch: the result is ``crop(flip(zoom(turn(image))))``, interpolated once, with nothing
    cut off in between. If there is neither a rotation nor a scale, pixels only change places and
    keep their exact values. Labels stay.

    Source: flips and crops are those of A. Krizhevsky, I. Sutskever, G. Hinton, ImageNet
    Classification with Deep Convolutional Neural Networks, 2012 (crops of padded images are later
    practice); sampling a batch by one affine matrix an image is that of M. Jaderberg, K. Simonyan,
    A. Zisserman, K. Kavukcuoglu, Spatial Transformer Networks, 2015, arXiv:1506.02025. Angles,
    scales and crops are distributed as those of torchvision's ``RandomAffine(rotation,
    scale=scale)`` and ``RandomCrop(size, padding=crop)``. At the border we blend the image with
    ``fill`` as if the image were padded with it; torchvision weighs the image twice there (it is
    darker, or more of ``fill``, in a seam of one pixel).

    When:
        A turned, shifted, zoomed or mirrored image is one of the same class: most photographs. The
        fewer images and the longer the run, the more it helps.

    When not:
        Where or which way round something is decides: arrows, digits and letters must not be
        flipped. Images that are centered and aligned in use as in training gain less.

    Args:
        flip: probability of exchanging left and right, in [0, 1].
        vertical_flip: probability of exchanging top and bottom, in [0, 1].
        rotation: most degrees in each direction, in [0, 180].
        scale: least and most scale, above 0; more than 1 zooms in. None leaves the size.
        crop: most pixels by which the image is shifted along each axis, less than its height
            and its width.
        fill: the color of what lies outside the image, in the units of the batch (after
            normalization); a whole number within 0 to 255 for uint8.
        mask_fill: the value of what lies outside the mask; whole for masks of integers.
        input_key: where the images are in the batch: a position, a key, or a field's name.
        mask_key: where masks are that must go along: ``(B, H, W)`` or ``(B, C, H, W)`` of any
            type, for which the nearest pixel is taken. None leaves everything else.

    Raises:
        TechniqueError: in the first step, if the input is no batch of images ``(B, C, H, W)`` of
            floats or uint8, or isn't found; if the masks have another size; if the crop is as
            large as the image; if the type of the images or the masks can't hold their fill.

    Warns:
        UserWarning: once a run, if there is no ``mask_key`` and the batch's target or mask has the
            images' height and width, as that of a segmentation.

    The checkpoint keeps the arguments.

    Example:
        >>> RandomGeometry(flip=0.5, rotation=10, scale=(0.9, 1.1))
        RandomGeometry(flip=0.5, rotation=10.0, scale=[0.9, 1.1])
    """

    _has_warned = False

    def __init__(
        self,
        flip: float = 0.0,
        vertical_flip: float = 0.0,
        rotation: float = 0.0,
        scale: Sequence[float] | None = None,
        crop: int = 0,
        fill: float = 0.0,
        mask_fill: float = 0.0,
        input_key: Key | None = None,
        mask_key: Key | None = None,
    ) -> None:
        self.flip = check_number(self, "flip", flip, "[0, 1]")
        self.vertical_flip = check_number(self, "vertical_flip", vertical_flip, "[0, 1]")
        self.rotation = check_number(self, "rotation", rotation, "[0, 180]")
        self.scale = None if scale is None else check_range(self, "scale", scale, "(0, inf)")
        self.crop = check_integer(self, "crop", crop, "[0, inf)")
        self.fill = check_number(self, "fill", fill, "(-inf, inf)")
        self.mask_fill = check_number(self, "mask_fill", mask_fill, "(-inf, inf)")
        self.input_key = check_key(self, "input_key", input_key)
        self.mask_key = check_key(self, "mask_key", mask_key)

    def neutral(self) -> str | None:
        """Return why there is nothing to do, if no image would be changed."""
        if self.flip or self.vertical_flip or self.rotation or self.crop:
            return None
        return "nothing is flipped, turned, zoomed or cropped" if self._keeps_size() else None

    def _keeps_size(self) -> bool:
        return self.scale is None or self.scale == (1.0, 1.0)

    def draw(self, count: int, generator: torch.Generator) -> Geometry:
        """Return what is done to each of ``count`` images."""
        return draw_geometry(
            count,
            flip=self.flip,
            vertical_flip=self.vertical_flip,
            rotation=self.rotation,
            scale=self.scale,
            crop=self.crop,
            generator=generator,
        )

    def change(self, batch: Any, generator: torch.Generator) -> Any:
        """Return the batch with its images, and its masks, moved."""
        images = check_images(self, get_tensor(batch, "input", self.input_key, self))
        check_value(self, "fill", self.fill, images.dtype)
        size = images.shape[2:]
        if self.crop >= min(size):
            raise ArgumentError(
                f"RandomGeometry: crop={self.crop} must be less than the height and the width of "
                f"the images, {tuple(size)}: nothing of an image might be left"
            )
        geometry = self.draw(len(images), generator)
        where = find_key(batch, "input", self.input_key, self)
        changes = {where: transform_images(images, geometry, self.fill)}
        if self.mask_key is not None:
            masks = get_tensor(batch, "mask", self.mask_key, self)
            if masks is images:
                raise ArgumentError(f"RandomGeometry: mask_key={self.mask_key!r} are the images")
            if masks.shape[-2:] != size:
                raise ArgumentError(
                    f"RandomGeometry: masks of shape {tuple(masks.shape)} don't fit images of "
                    f"{tuple(images.shape)}"
                )
            check_value(self, "mask_fill", self.mask_fill, masks.dtype)
            changes[self.mask_key] = transform_masks(masks, geometry, self.mask_fill)
        else:
            self._look_for_masks(batch, images)
        return replace_fields(batch, changes)

    def _look_for_masks(self, batch: Any, images: Tensor) -> None:
        if self._has_warned:
            return
        where = find_masks(batch, images)
        if where is not None:
            self._has_warned = True
            warnings.warn(
                f"{self!r} moves the images and not what the batch has at {where!r}, which has "
                f"their height and width: if it belongs to their pixels, say mask_key={where!r}",
                stacklevel=2,
            )

    def prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go around the training step, and look out for masks anew."""
        self._has_warned = False
        super().prepare(trainer, pl_module)
