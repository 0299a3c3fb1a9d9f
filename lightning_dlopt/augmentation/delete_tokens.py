"""Tokens that are left out."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_dlopt.augmentation.token_technique import TokenTechnique
from lightning_dlopt.augmentation.tokens import (
    EditedTokens,
    Sequences,
    any_in_row,
    check_rate,
    chosen,
    draw_bits,
    edit_tokens,
    may_skip,
)
from lightning_dlopt.core.batch import Key


def delete(sequences: Sequences, rate: float, generator: torch.Generator) -> Sequences:
    """Return sequences as :func:`delete_tokens` does."""
    bits = draw_bits(sequences.tokens, generator).to(sequences.tokens.device)
    editable = sequences.editable
    drop = chosen(bits, rate) & editable
    bare = ~any_in_row(editable ^ drop)
    if not may_skip(bare):
        # of a sequence that would lose all, the token with the highest draw stays
        last = torch.where(editable, bits, -1).argmax(1, keepdim=True)
        drop = drop.scatter(1, last, drop.gather(1, last) & ~bare[:, None])
    return sequences.without(drop)


def delete_tokens(
    tokens: Tensor,
    rate: float,
    *,
    generator: torch.Generator,
    pad_id: int = 0,
    protected_ids: Sequence[int] = (),
    lengths: Tensor | None = None,
) -> EditedTokens:
    """Return sequences without a random share of their tokens.

    Args:
        tokens: ``(B, L)``, int32 or int64, padded on the right; stays as it is.
        rate: how probably each token is left out, in [1/32768, 1], in steps of 1/32768.
        generator: what the draws come from, on the CPU.
        pad_id: the id of padding.
        protected_ids: ids that stay.
        lengths: ``(B,)``; see :func:`edit_tokens`, also for the errors.

    Returns:
        The tokens, of the same shape and type, and their new lengths. A sequence that had tokens
        to choose from keeps one of them.

    Example:
        >>> tokens = torch.tensor([[1, 5, 6, 7, 8, 2, 0]])
        >>> generator = torch.Generator().manual_seed(0)
        >>> delete_tokens(tokens, 0.5, generator=generator, protected_ids=(1, 2))
        EditedTokens(tokens=tensor([[1, 8, 2, 0, 0, 0, 0]]), lengths=tensor([3]))
    """
    check_rate("delete_tokens", rate, "(0, 1]")
    edits = [lambda sequences: delete(sequences, rate, generator)]
    return edit_tokens(tokens, edits, pad_id=pad_id, protected_ids=protected_ids, lengths=lengths)


class DeleteTokens(TokenTechnique):
    """Leave out a random share of each training sequence's tokens.

    Each token has its own draw. What follows moves up, and padding fills the end, so the batch
    keeps its shape. A sequence never loses all of its tokens.

    Source: J. Wei, K. Zou, EDA: Easy Data Augmentation Techniques for Boosting Performance on
    Text Classification Tasks, 2019, arXiv:1901.11196 (random deletion). It edits words before
    training; we edit tokens, and anew in every batch.

    When:
        Classification of few texts, where no single token decides.

    When not:
        Single tokens decide, such as a "not"; labels that belong to tokens or places; much data.

    Args:
        rate: how probably a token is left out, 0 (nothing is) or in [1/32768, 1],
            in steps of 1/32768.
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
        >>> DeleteTokens(0.2, protected_ids=(101, 102))
        DeleteTokens(rate=0.2, protected_ids=[101, 102])
    """

    def __init__(
        self,
        rate: float = 0.1,
        pad_id: int = 0,
        protected_ids: Sequence[int] = (),
        padding_side: str = "right",
        input_key: Key | None = None,
        mask_key: Key | None = "auto",
        lengths_key: Key | None = "auto",
        ignore: Sequence[Key] = (),
    ) -> None:
        self.rate = check_rate(self, rate, "[0, 1]")
        self.set_tokens(
            pad_id, protected_ids, padding_side, input_key, mask_key, lengths_key, ignore
        )

    def neutral(self) -> str | None:
        """Return why there is nothing to do, if the rate is 0."""
        return "rate is 0" if self.rate == 0 else None

    def edit(self, sequences: Sequences, generator: torch.Generator) -> Sequences:
        """Return sequences without some of their tokens."""
        return delete(sequences, self.rate, generator)
