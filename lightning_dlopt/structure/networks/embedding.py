"""How networks over sequences read token ids and images: as ``(batch, length, width)``."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_dlopt.core.checks import check_integer
from lightning_dlopt.core.errors import ArgumentError, ArgumentTypeError


class TokenEmbedding(nn.Embedding):
    """An embedding of token ids that says which id is too large; padding becomes zeros."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the vectors, ``(batch, length, width)``.

        Raises:
            ArgumentError: if an id isn't in the table (on the CPU; other devices have errors of
                their own, and looking would make them wait).
        """
        looks = tokens.device.type == "cpu" and not torch.compiler.is_compiling()
        if looks and tokens.numel():
            low, high = (int(end) for end in tokens.aminmax())
            if low < 0 or high >= self.num_embeddings:
                wrong = low if low < 0 else high
                raise ArgumentError(
                    f"token id {wrong} is outside of the network's table of "
                    f"vocab_size={self.num_embeddings}: give the network and the data the same "
                    "vocab_size"
                )
        return super().forward(tokens)

    def real(self, tokens: Tensor) -> Tensor | None:
        """Return which positions hold a token and no padding, ``(batch, length)``."""
        return tokens.ne(self.padding_idx or 0)


class PatchEmbedding(nn.Linear):
    """One linear layer for every patch of an image; patches don't overlap, and cover it.

    Args:
        image_size: the images' channels, height and width.
        patch: the patches' height and width.
        width: the width of the vectors.

    Example:
        >>> PatchEmbedding([3, 8, 12], (4, 4), 5)(torch.zeros(2, 3, 8, 12)).shape
        torch.Size([2, 6, 5])
    """

    def __init__(self, image_size: Sequence[int], patch: tuple[int, int], width: int) -> None:
        channels, *sides = image_size
        super().__init__(channels * patch[0] * patch[1], width)
        self.image_size = list(image_size)
        self.patch = patch
        self.length = (sides[0] // patch[0]) * (sides[1] // patch[1])

    def forward(self, images: Tensor) -> Tensor:
        """Return the patches' vectors, row by row, ``(batch, length, width)``.

        Raises:
            ArgumentError: if the images have another size.
        """
        if list(images.shape[1:]) != self.image_size:
            raise ArgumentError(
                f"images of shape {list(images.shape[1:])} were given to a network of "
                f"image_size={self.image_size}"
            )
        patches = functional.unfold(images, self.patch, stride=self.patch)
        return super().forward(patches.transpose(1, 2))

    def real(self, images: Tensor) -> Tensor | None:
        """Return None: every position is."""
        return None


def build_embedding(
    owner: object,
    width: int,
    vocab_size: int | None,
    pad_id: int,
    image_size: Sequence[int] | None,
    patch: int | None = None,
) -> TokenEmbedding | PatchEmbedding:
    """Return the embedding of token ids, or of an image's patches.

    Args:
        owner: the network, for messages.
        width: the width of the vectors.
        vocab_size: number of token ids, at least 2.
        pad_id: the id of padding, below ``vocab_size``.
        image_size: the images' channels, height and width, in place of ``vocab_size``.
        patch: the side of a patch; None for whole rows.

    Raises:
        ArgumentError: if an argument is outside its range.
    """
    check_one_input(owner, vocab_size=vocab_size, image_size=image_size)
    if vocab_size is not None:
        check_integer(owner, "vocab_size", vocab_size, "[2, inf)")
        check_integer(owner, "pad_id", pad_id, f"[0, {vocab_size})")
        return TokenEmbedding(vocab_size, width, padding_idx=pad_id)
    name = type(owner).__name__
    if not isinstance(image_size, Sequence) or isinstance(image_size, str) or len(image_size) != 3:
        raise ArgumentTypeError(f"{name}: {image_size=} must be [channels, height, width]")
    sizes = [check_integer(owner, "image_size", size, "[1, inf)") for size in image_size]
    if patch is None:
        return PatchEmbedding(sizes, (1, sizes[2]), width)
    check_integer(owner, "patch", patch, "[1, inf)")
    if sizes[1] % patch or sizes[2] % patch:
        raise ArgumentError(
            f"{name}: image_size={sizes} must have a height and a width that are multiples of "
            f"patch={patch}"
        )
    return PatchEmbedding(sizes, (patch, patch), width)


def check_one_input(owner: object, **given: object) -> None:
    """Raise an ArgumentError unless exactly one of the arguments is given."""
    if sum(value is not None for value in given.values()) != 1:
        values = " and ".join(f"{name}={value!r}" for name, value in given.items())
        raise ArgumentError(f"{type(owner).__name__}: {values}: exactly one of them must be given")


def masked_mean(values: Tensor, real: Tensor | None) -> Tensor:
    """Return the mean of ``values`` ``(B, L, W)`` where ``real`` ``(B, L)``; zeros where none is.

    Example:
        >>> values = torch.tensor([[[1.0], [3.0], [8.0]]])
        >>> masked_mean(values, torch.tensor([[True, True, False]])), masked_mean(values, None)
        (tensor([[2.]]), tensor([[4.]]))
    """
    if real is None:
        return values.mean(1)
    weights = real.unsqueeze(2).to(values.dtype)
    return (values * weights).sum(1) / weights.sum(1).clamp(min=1)
