"""A window of each sequence."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_dlopt.augmentation.token_technique import TokenTechnique
from lightning_dlopt.augmentation.tokens import (
    EditedTokens,
    Sequences,
    edit_tokens,
    negative,
    numbered,
)
from lightning_dlopt.core.batch import Key
from lightning_dlopt.core.checks import check_number, check_range


def draw_windows(
    counts: Tensor, keep: tuple[float, float], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw a window for each sequence.

    Args:
        counts: ``(B,)``, how many tokens there are to choose from.
        keep: least and most share of them in the window.
        generator: what the draws come from, on the CPU.

    Returns:
        ``(B,)`` each: how many tokens are before the window, and how many in it, at least one.
    """
    draws = torch.rand(2, len(counts), generator=generator).to(counts.device)
    share = keep[0] + (keep[1] - keep[0]) * draws[0]
    size = (share * counts).round_().to(counts.dtype).clamp_(min=1)
    gaps = (counts - size).clamp_(min=0)
    return (draws[1] * (gaps + 1)).to(counts.dtype).minimum(gaps), size


def crop(sequences: Sequences, keep: tuple[float, float], generator: torch.Generator) -> Sequences:
    """Return sequences as :func:`crop_tokens` does."""
    editable = sequences.editable
    number = numbered(editable)  # from 1
    before, size = draw_windows(number[:, -1], keep, generator)
    # how many are between a token and the first of the window, and the last: negative outside
    behind = number - (before + 1)[:, None]
    ahead = (size - 1)[:, None] - behind
    return sequences.without(negative(behind | ahead) & editable)


def crop_tokens(
    tokens: Tensor,
    keep: float | Sequence[float],
    *,
    generator: torch.Generator,
    pad_id: int = 0,
    protected_ids: Sequence[int] = (),
    lengths: Tensor | None = None,
) -> EditedTokens:
    """Return a random window of each sequence.

    Args:
        tokens: ``(B, L)``, int32 or int64, padded on the right; stays as it is.
        keep: share of the tokens in the window, in (0, 1], or the least and most share.
        generator: what the draws come from, on the CPU.
        pad_id: the id of padding.
        protected_ids: ids that stay, also outside of the window, and don't count.
        lengths: ``(B,)``; see :func:`edit_tokens`, also for the errors.

    Returns:
        The tokens, of the same shape and type, and their new lengths.

    Example:
        >>> tokens = torch.tensor([[1, 5, 6, 7, 8, 2, 0]])
        >>> generator = torch.Generator().manual_seed(0)
        >>> crop_tokens(tokens, 0.5, generator=generator, protected_ids=(1, 2))
        EditedTokens(tokens=tensor([[1, 7, 8, 2, 0, 0, 0]]), lengths=tensor([4]))
    """
    window = check_keep("crop_tokens", keep)
    edits = [lambda sequences: crop(sequences, window, generator)]
    return edit_tokens(tokens, edits, pad_id=pad_id, protected_ids=protected_ids, lengths=lengths)


def check_keep(owner: object, keep: float | Sequence[float]) -> tuple[float, float]:
    """Return the least and the most share."""
    if isinstance(keep, Sequence):
        return check_range(owner, "keep", keep, "(0, 1]")
    share = check_number(owner, "keep", keep, "(0, 1]")
    return share, share


class CropTokens(TokenTechnique):
    """Keep one random window of each training sequence's tokens.

    The window holds a share of the tokens, to the nearest whole number, at least one; every place
    for it is as probable. Protected tokens stay wherever they are, and don't count.

    Source: the common random crop of text, as in Y. Meng et al., COCO-LM: Correcting and
    Contrasting Text Sequences for Language Model Pretraining, 2021, arXiv:2102.08473, which keeps
    90% of a sequence as a contiguous span. We crop in every batch anew, and with any share.

    When:
        Long texts, every part of which shows the label.

    When not:
        Short ones; texts of which one passage decides, as the window may leave it out.

    Args:
        keep: share of the tokens in the window, in (0, 1], or a range of shares, of which each
            sequence draws its own, evenly. At 1 nothing is cut.
        pad_id: the id of padding.
        protected_ids: ids of tokens that stay, such as those of [CLS] and [SEP].
        padding_side: ``"right"`` or ``"left"``.
        input_key: where the tokens are in the batch.
        mask_key: where their attention mask is, ``"auto"``, or None.
        lengths_key: where their lengths are, ``"auto"``, or None.
        ignore: further fields of one entry for each token that may go out of line.

    Raises:
        TechniqueError: in the first step, for what isn't a batch of padded tokens.

    The checkpoint keeps the arguments.

    Example:
        >>> CropTokens([0.7, 1.0])
        CropTokens(keep=[0.7, 1.0])
    """

    def __init__(
        self,
        keep: float | Sequence[float] = 0.9,
        pad_id: int = 0,
        protected_ids: Sequence[int] = (),
        padding_side: str = "right",
        input_key: Key | None = None,
        mask_key: Key | None = "auto",
        lengths_key: Key | None = "auto",
        ignore: Sequence[Key] = (),
    ) -> None:
        self._window = check_keep(self, keep)
        self.keep = self._window if isinstance(keep, Sequence) else self._window[0]
        self.set_tokens(
            pad_id, protected_ids, padding_side, input_key, mask_key, lengths_key, ignore
        )

    def neutral(self) -> str | None:
        """Return why there is nothing to do, if all is kept."""
        return "keep is 1" if self._window[0] == 1 else None

    def edit(self, sequences: Sequences, generator: torch.Generator) -> Sequences:
        """Return a window of each sequence."""
        return crop(sequences, self._window, generator)
