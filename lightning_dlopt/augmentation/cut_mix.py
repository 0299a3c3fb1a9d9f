"""Images in which a rectangle is another image's."""

import torch
from torch import Tensor

from lightning_dlopt.augmentation.batch_mixer import BatchMixer
from lightning_dlopt.augmentation.images import check_images, inside_boxes
from lightning_dlopt.augmentation.mixture import Mixture, draw_shares, draw_shift
from lightning_dlopt.core.batch import Key
from lightning_dlopt.core.checks import check_number
from lightning_dlopt.core.errors import ArgumentError


def draw_cuts(share: Tensor, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Draw rectangles of the image's shape and an area of ``1 - share``.

    Their centers are anywhere in the image, drawn evenly; what sticks out of it is cut off, and
    edges are rounded to whole pixels.

    Args:
        share: ``(B,)`` in [0, 1], what is to be left of each image.
        height: of the image, in pixels.
        width: of the image, in pixels.
        generator: what the draws come from.

    Returns:
        ``(B, 4)`` integers: top, left, bottom, right, the last two excluded.

    Example:
        >>> top, left, bottom, right = draw_cuts(torch.ones(1), 8, 8, torch.Generator())[0]
        >>> bool(top == bottom), bool(left == right)
        (True, True)
    """
    size = torch.tensor([[height], [width]], dtype=torch.float64)
    half = size * (1 - share.double()).sqrt() / 2
    center = size * torch.rand(2, len(share), generator=generator, dtype=torch.float64)
    low, high = (center - half).round().clamp_min(0), (center + half).round()
    return torch.cat([low, torch.minimum(high, size)]).t().long()


def kept_shares(boxes: Tensor, height: int, width: int) -> Tensor:
    """Return which part of each image is outside of its rectangle, in float64.

    Example:
        >>> kept_shares(torch.tensor([[0, 0, 2, 4]]), 8, 4)
        tensor([0.7500], dtype=torch.float64)
    """
    top, left, bottom, right = boxes.double().t()
    share: Tensor = 1 - (bottom - top) * (right - left) / (height * width)
    return share


def cut_mix(images: Tensor, boxes: Tensor, shift: int) -> Tensor:
    """Return images whose rectangles are those of the images ``shift`` places further on.

    Args:
        images: ``(B, …, H, W)`` of any type, on any device; they stay as they are.
        boxes: ``(B, 4)`` integers: top, left, bottom, right, the last two excluded.
        shift: image ``i`` gets pixels of image ``(i + shift) % B``.

    Returns:
        Images of the same shape, type, device and memory format.

    Raises:
        ArgumentError: for images or boxes of another shape.

    Example:
        >>> cut_mix(torch.tensor([[[1, 1]], [[2, 2]]]), torch.tensor([[0, 0, 1, 1]] * 2), shift=1)
        tensor([[[2, 1]],
        <BLANKLINE>
                [[1, 2]]])
    """
    count = len(images)
    if images.dim() < 3 or boxes.shape != (count, 4):
        raise ArgumentError(
            f"cut_mix: images of shape {tuple(images.shape)} and boxes of {tuple(boxes.shape)} "
            "must be (B, ..., H, W) and (B, 4)"
        )
    inside = inside_boxes(boxes.to(images.device), *images.shape[-2:])
    inside = inside.reshape(count, *(1,) * (images.dim() - 3), *inside.shape[1:])
    shift = shift % count if count else 0
    if images.requires_grad and torch.is_grad_enabled():
        return torch.where(inside, images.roll(-shift, 0), images)
    mixed, rest = torch.empty_like(images), count - shift
    torch.where(inside[:rest], images[shift:], images[:rest], out=mixed[:rest])
    torch.where(inside[rest:], images[:shift], images[rest:], out=mixed[rest:])
    return mixed


class CutMix(BatchMixer):
    """Put a rectangle of another image of the batch into each training image, and mix the labels.

    The labels' shares are the areas: ``share`` is the part of the image that is left. See
    :class:`BatchMixer` for how the loss is mixed on a module which knows nothing of it. A target
    with a value for each pixel ``(B, …, H, W)`` is cut in the same way, and no loss is mixed; each
    image has its own rectangle then.

    Source: S. Yun, D. Han, S. J. Oh, S. Chun, J. Choe, Y. Yoo, CutMix: Regularization Strategy to
    Train Strong Classifiers with Localizable Features, 2019, arXiv:1905.04899. There shares are
    Beta(alpha, alpha), and share, rectangle and a permutation of the batch are drawn once for a
    batch. Here each image has its own share and rectangle, and the partners are the batch moved on
    by a random number of places, so that none is mixed with itself. As there, a rectangle may stick
    out of the image, and the share is that of the pixels really left.

    When:
        Image classifiers that overfit in long runs, and look at one part of an object only.

    When not:
        A small detail decides, which the rectangle may hide or leave out; short runs, networks that
        underfit.

    Args:
        alpha: how much is mixed, in [0, inf). At 0 nothing is; at 1 areas are even.
        labels: how both labels come into the loss: ``"loss"`` mixes the cross-entropy where it is
            computed, ``"twice"`` runs the step with either label, ``"soft"`` hands over mixed
            labels, ``"auto"`` takes the first that is right; see :class:`BatchMixer`.
        num_classes: for ``"soft"`` labels of classes, at least 1.
        input_key: where the input is in the batch: a position, a key, or a field's name.
        target_key: where the target is.

    Raises:
        TechniqueError: in the first step, if the input is no batch of images ``(B, C, H, W)`` of
            floats or uint8, or the target has three dimensions or more and another height or
            width; and for what :class:`BatchMixer` says.

    Example:
        >>> CutMix(alpha=0.5, labels="loss")
        CutMix(alpha=0.5, labels='loss')
    """

    def __init__(
        self,
        alpha: float = 1.0,
        labels: str = "auto",
        num_classes: int | None = None,
        input_key: Key | None = None,
        target_key: Key | None = None,
    ) -> None:
        super().__init__(labels, num_classes, input_key, target_key)
        self.alpha = check_number(self, "alpha", alpha, "[0, inf)")

    def neutral(self) -> str | None:
        """Return why there is nothing to do, if alpha is 0."""
        return "alpha is 0" if self.alpha == 0 else None

    def check_inputs(self, inputs: Tensor) -> None:
        """Refuse what are no images."""
        check_images(self, inputs)

    def mix(
        self, inputs: Tensor, generator: torch.Generator, one_share: bool = False
    ) -> tuple[Tensor, Mixture]:
        """Return mixed inputs and how; draws the shares, the centers, then the shift."""
        self.check_inputs(inputs)
        count, _, height, width = inputs.shape
        wanted = draw_shares(1 if one_share else count, self.alpha, generator)
        boxes = draw_cuts(wanted, height, width, generator).expand(count, 4)
        mixture = Mixture(draw_shift(count, generator), kept_shares(boxes, height, width), boxes)
        return cut_mix(inputs, boxes, mixture.shift), mixture

    def has_pixels(self, target: Tensor, inputs: Tensor) -> bool:
        """Return whether the target has a value for each pixel."""
        if target.dim() < 3:
            return False
        if target.shape[-2:] != inputs.shape[-2:]:
            raise ArgumentError(
                f"the target, of shape {tuple(target.shape)}, must have the height and width of "
                f"the images, {tuple(inputs.shape)}, to be cut like them"
            )
        return True

    def mix_pixels(self, target: Tensor, inputs: Tensor, mixture: Mixture) -> Tensor | None:
        """Return the target cut like the images, if it has a value for each pixel."""
        if mixture.boxes is None or not self.has_pixels(target, inputs):
            return None
        return cut_mix(target, mixture.boxes, mixture.shift)
