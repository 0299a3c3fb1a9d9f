"""Training images that begin small and grow."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.nn import functional

from lightning_dlopt.augmentation.images import check_images, find_masks
from lightning_dlopt.core.batch import (
    Key,
    check_key,
    find_key,
    get_field,
    get_tensor,
    replace_fields,
)
from lightning_dlopt.core.batch_technique import BatchTechnique, RunStep
from lightning_dlopt.core.checks import check_integer, check_number
from lightning_dlopt.core.errors import ArgumentError, UserError, one_line
from lightning_dlopt.core.log_interval import is_logging_step
from lightning_dlopt.core.run_length import RunLength, round_half_up
from lightning_dlopt.core.spans import Span, parse_period, steps_within


def resize_images(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Return images of another size: bilinear, and free of aliasing where they get smaller.

    Args:
        images: ``(B, C, H, W)``, floats or uint8, on any device; stays as it is.
        size: height and width in pixels.

    Returns:
        Images of the same type, device and memory format; uint8 is rounded to the nearest.

    Raises:
        ArgumentError: for images of another shape, or a size below 1.
        ArgumentTypeError: for images of another type of numbers.

    Example:
        >>> resize_images(torch.tensor([[[[0, 0, 100, 200]]]], dtype=torch.uint8), (1, 2))
        tensor([[[[ 14, 129]]]], dtype=torch.uint8)
    """
    check_images("resize_images", images)
    height, width = (check_integer("resize_images", "size", side, "[1, inf)") for side in size)
    last = images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
    wide = images.dtype in (torch.float32, torch.float64)  # others have no kernel everywhere
    floats = images if wide else images.float()
    if images.numel() == 0:
        resized = floats.new_empty(len(images), images.shape[1], height, width)
    else:
        resized = functional.interpolate(floats, (height, width), mode="bilinear", antialias=True)
    if images.dtype == torch.uint8:
        resized = resized.round().clamp(0, 255)
    form = torch.channels_last if last else torch.contiguous_format
    return resized.to(images.dtype).contiguous(memory_format=form)


def resize_masks(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Return masks of another size, each pixel the nearest one's; no class comes in between.

    Args:
        masks: ``(B, ..., H, W)`` of any type; stays as it is.
        size: height and width in pixels.

    Raises:
        ArgumentError: for masks with fewer than three dimensions, or a size below 1.

    Example:
        >>> resize_masks(torch.tensor([[[1, 1, 7, 7]]]), (1, 2))
        tensor([[[1, 7]]])
    """
    if masks.dim() < 3:
        raise ArgumentError(
            f"resize_masks: masks of shape {tuple(masks.shape)} must be (B, ..., H, W)"
        )
    for dim, side in zip((-2, -1), size, strict=True):
        check_integer("resize_masks", "size", side, "[1, inf)")
        places = (torch.arange(side, dtype=torch.float64) + 0.5) * (masks.shape[dim] / side)
        masks = masks.index_select(dim, places.long().to(masks.device))
    return masks


def image_scale(step: int, total: int, start: float) -> float:
    """Return the size at a step: from ``start`` to 1 over ``total`` steps, then 1.

    Example:
        >>> [image_scale(step, 4, 0.5) for step in (0, 2, 4, 9)]
        [0.5, 0.75, 1.0, 1.0]
    """
    return 1.0 if step >= total else start + (1 - start) * step / total


def scaled_size(size: tuple[int, int], scale: float, multiple: int = 1) -> tuple[int, int]:
    """Return ``scale`` times a size, each side rounded to a multiple, but never above its own.

    Args:
        size: height and width in pixels.
        scale: above 0; from 1 on the size stays.
        multiple: what both sides are multiples of, unless they keep their full length.

    Example:
        >>> scaled_size((28, 30), 0.5), scaled_size((224, 30), 0.6, multiple=32)
        ((14, 15), (128, 30))
    """
    if scale >= 1:
        return size
    height, width = (
        min(side, max(1, round_half_up(side * scale / multiple)) * multiple) for side in size
    )
    return height, width


class ProgressiveResize(BatchTechnique):
    """Train on small images first, which is faster, and let them grow to their full size.

    They begin at ``start`` times their height and width and grow linearly with the optimizer
    steps over ``span``; from then on batches pass as they are. All batches of one step have one
    size, on every rank. ``image_height``, in pixels, is logged at the Trainer's logging interval.

    The network must take images of any size: convolutions with a global pooling before the linear
    layers (:class:`~lightning_dlopt.structure.ConvNet`, torchvision's convolutional networks). One
    that flattens its images, or has embeddings of their positions, fails on small ones; one that
    halves them and enlarges them again, such as a U-Net, may fail on sides that aren't a
    ``multiple`` of its stride. An error in the first step of any size is raised with the size and
    these possible reasons. Validation has full size throughout. A compiled network is
    compiled again for new sizes: let ``multiple`` keep them few.

    Source: M. Tan, Q. Le, EfficientNetV2: Smaller Models and Faster Training, 2021,
    arXiv:2104.00298, whose images grow in stages, together with dropout and augmentation; these
    can be scheduled by ``ScheduledDropout``. We grow at every step that makes a whole pixel, or
    ``multiple``, of difference. MosaicML Composer's ProgressiveResizing grows from 50 % to 80 % of
    training and can crop instead. Small objects look smaller to a network that was trained on
    full-sized ones: some training at full size at the end makes up for that (H. Touvron,
    A. Vedaldi, M. Douze, H. Jégou, Fixing the train-test resolution discrepancy, 2019,
    arXiv:1906.06423), so leave a part of the run after ``span``.

    When:
        Convolutional networks on large images, whose computation is most of a step.

    When not:
        Small images, of which a step costs little but its overhead; networks of a fixed input size;
        tasks whose details are gone at half the size.

    Args:
        start: what the sizes begin with, relative to full size, in (0, 1]. At 1 nothing is done.
        span: how long they grow: steps, ``"5ep"``, ``"50%"``; not longer than the run.
        multiple: both sides are rounded to a multiple of it, such as a network's total stride.
        input_key: where the images are in the batch: a position, a key, or a field's name.
        mask_key: where masks ``(B, ..., H, W)`` are that must keep the images' size, such as the
            target of a segmentation; they take the nearest pixel's value.

    Raises:
        ArgumentError: if an argument is out of range, or the span longer than the run.
        ArgumentTypeError: if an argument has another type.
        TechniqueError: in the first step, if the input is no batch of images ``(B, C, H, W)`` of
            floats or uint8, or isn't found; in the first step of a size below the full one, if the
            training step raises a RuntimeError, ValueError or AssertionError, which may or may not
            be because of the size. Errors of other types pass as they are.

    Warns:
        NoEffectWarning: if the images are full-sized at ``start`` because of ``multiple``.

    Under manual optimization a batch counts as a step. The checkpoint keeps the arguments only.

    Example:
        >>> ProgressiveResize(start=0.6, multiple=32)
        ProgressiveResize(start=0.6, multiple=32)
    """

    def __init__(
        self,
        start: float = 0.5,
        span: Span = "50%",
        multiple: int = 1,
        input_key: Key | None = None,
        mask_key: Key | None = None,
    ) -> None:
        self.start = check_number(self, "start", start, "(0, 1]")
        self._span = parse_period(span, self, "span")
        self.span = span
        self.multiple = check_integer(self, "multiple", multiple, "[1, inf)")
        self.input_key = check_key(self, "input_key", input_key)
        self.mask_key = check_key(self, "mask_key", mask_key)
        self._scale = self.start  # of the present step

    def neutral(self) -> str | None:
        """Return why there is nothing to do, if the images begin with full size."""
        return "start is 1" if self.start == 1 else None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Resolve the span now that the length of the run is known."""
        run = RunLength.of(trainer, automatic=pl_module.automatic_optimization)
        self._steps = steps_within(run, self._span, self, "span")
        self._is_first = True
        self._proven: set[tuple[int, int]] = set()  # sizes on which the training step has run

    def change(self, batch: Any, generator: torch.Generator) -> Any:
        """Return the batch with images, and masks, of the present size."""
        images = check_images(self, get_tensor(batch, "input", self.input_key, self))
        full = int(images.shape[2]), int(images.shape[3])
        size = scaled_size(full, self._scale, self.multiple)
        masks = self._masks(batch, full)
        if size == full:
            return batch
        where = find_key(batch, "input", self.input_key, self)
        return replace_fields(
            batch,
            {
                where: resize_images(images, size),
                **{key: resize_masks(mask, size) for key, mask in masks.items()},
            },
        )

    def _masks(self, batch: Any, full: tuple[int, int]) -> dict[Key, Tensor]:
        if self.mask_key is None:
            return {}
        try:
            masks = get_field(batch, self.mask_key)
        except (KeyError, IndexError, AttributeError, TypeError) as error:
            raise ArgumentError(
                f"ProgressiveResize: mask_key={self.mask_key!r} isn't in the batch, a "
                f"{type(batch).__name__}"
            ) from error
        if not isinstance(masks, Tensor) or tuple(masks.shape[-2:]) != full or masks.dim() < 3:
            found = tuple(masks.shape) if isinstance(masks, Tensor) else type(masks).__name__
            raise ArgumentError(
                f"ProgressiveResize: the masks, {found}, must be (B, ..., {full[0]}, {full[1]}), "
                "of the images' size"
            )
        return {self.mask_key: masks}

    def step(self, trainer: Trainer, pl_module: LightningModule, run: RunStep, batch: Any) -> Any:
        """Run the training step on images of the present size."""
        manual = not pl_module.automatic_optimization
        step = trainer.fit_loop.total_batch_idx if manual else trainer.global_step
        self._scale = image_scale(step, self._steps, self.start)
        changed = self.changed(batch, self.generator(trainer))
        full, now = (get_tensor(one, "input", self.input_key, self) for one in (batch, changed))
        if is_logging_step(trainer):
            pl_module.log("image_height", float(now.shape[2]), batch_size=1)
        if self._is_first:
            self._is_first = False
            self._look_at(full)
        size = int(now.shape[2]), int(now.shape[3])
        if changed is batch or size in self._proven:
            return run(changed)
        output = self._prove(run, batch, changed, size)
        self._proven.add(size)
        return output

    def _look_at(self, images: Tensor) -> None:
        full = int(images.shape[2]), int(images.shape[3])
        if scaled_size(full, self.start, self.multiple) == full:
            self.warn_no_effect(
                f"images of {full[0]} x {full[1]} are full-sized at start={self.start}, "
                f"multiple={self.multiple}"
            )

    def _prove(self, run: RunStep, batch: Any, changed: Any, size: tuple[int, int]) -> Any:
        """Run the step; an error in it is raised with what the size may have to do with it."""
        try:
            return run(changed)
        except (RuntimeError, ValueError, AssertionError) as error:
            if isinstance(error, torch.OutOfMemoryError | UserError):
                raise
            images = get_tensor(batch, "input", self.input_key, self)
            reasons = [
                "the network takes images of one size only (a pooling such as "
                "nn.AdaptiveAvgPool2d before its linear layers lets it take any)",
                "it needs sides that are multiples of its stride (say multiple=, now "
                f"{self.multiple})",
            ]
            where = find_masks(batch, images) if self.mask_key is None else None
            if where is not None:
                reasons.append(f"what the batch has at {where!r} kept its size (say mask_key=)")
            raise self.refuse(
                f"the training step failed on images of {size[0]} x {size[1]}, resized from "
                f"{images.shape[2]} x {images.shape[3]}: {type(error).__name__}: "
                f"{one_line(error).rstrip('.')}. If it runs at full size, maybe "
                + "; or ".join(reasons)
            ) from error

    def let_go(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew in another run."""
        self._scale = self.start
