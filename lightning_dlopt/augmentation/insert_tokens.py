"""Random tokens that are put in between."""

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
    find,
    numbered,
    places,
)
from lightning_dlopt.augmentation.vocabulary import Vocabulary, shortened
from lightning_dlopt.core.batch import Key


def insert(
    sequences: Sequences, rate: float, vocabulary: Vocabulary, generator: torch.Generator
) -> Sequences:
    """Return sequences as :func:`insert_tokens` does."""
    tokens = sequences.tokens
    count, length = tokens.shape
    flat = find(chosen(draw_bits(tokens, generator), rate))
    # new tokens for all that are drawn, also where none is inserted: how many, the CPU knows
    values = vocabulary.draw(len(flat), generator).to(tokens.device, tokens.dtype)
    phase = torch.rand(count, generator=generator).to(tokens.device)
    flat = flat.to(tokens.device)
    row = flat.div(length, rounding_mode="floor")
    wanted = sequences.editable.view(-1).index_select(0, flat)
    inserted, number, many = thinned(wanted, row, length - sequences.lengths, phase)

    # in a row, each insertion moves what follows by one; what isn't inserted goes behind the batch
    to = torch.where(inserted, flat + number, tokens.numel())
    moved = torch.zeros(tokens.numel() + 1, dtype=torch.bool, device=tokens.device)
    moved.scatter_(0, to, True)
    source = (places(tokens) - numbered(moved[:-1].view(count, length))).long()
    edited = tokens.new_empty(tokens.numel() + 1)
    torch.gather(tokens, 1, source, out=edited[:-1].view(count, length))
    edited.scatter_(0, to, values)
    return sequences.with_lengths(edited[:-1].view(count, length), sequences.lengths + many)


def thinned(
    wanted: Tensor, row: Tensor, room: Tensor, phase: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return which insertions stay, as many of a sequence as there is room for.

    They are evenly spread over all of them, from a random start on: each is as likely to stay as
    any other.

    Args:
        wanted: ``(N,)``, which of the places that are drawn want an insertion.
        row: ``(N,)``, the sequence of each place, in order.
        room: ``(B,)``, how many insertions there may be.
        phase: ``(B,)``, in [0, 1).

    Returns:
        Which stay, ``(N,)``, how many of the same sequence do so up to each that stays, ``(N,)``,
        and how many of each sequence, ``(B,)``.
    """
    many = torch.zeros_like(room).scatter_add_(0, row, wanted.long())
    number = wanted.cumsum(0) - (many.cumsum(0) - many).index_select(0, row)
    room, many = room.minimum(many), many.clamp(min=1)
    start = (phase * many).long().minimum(many - 1)
    # a ruler with `room` marks, laid over the insertions: those with a mark stay
    share, parts = room.index_select(0, row), many.index_select(0, row)
    ruler = number * share + start.index_select(0, row)
    marks = ruler.div(parts, rounding_mode="floor")
    return wanted & (ruler - marks * parts < share), marks, room


def insert_tokens(
    tokens: Tensor,
    rate: float,
    *,
    generator: torch.Generator,
    vocab_size: int | None = None,
    frequencies: Sequence[float] | Tensor | None = None,
    pad_id: int = 0,
    protected_ids: Sequence[int] = (),
    lengths: Tensor | None = None,
) -> EditedTokens:
    """Return sequences with random tokens put in between.

    Args:
        tokens: ``(B, L)``, int32 or int64, padded on the right; stays as it is.
        rate: how probably a new token follows each token, in [1/32768, 1], in steps of 1/32768.
        generator: what the draws come from, on the CPU.
        vocab_size: new tokens are drawn evenly from the ids below it,
        frequencies: or by these weights, one for each id from 0 on.
        pad_id: the id of padding, which is never drawn.
        protected_ids: ids that are never drawn, and that no new token follows.
        lengths: ``(B,)``; see :func:`edit_tokens`, also for the errors.

    Returns:
        The tokens, of the same shape and type, and their new lengths. Where a sequence would get
        longer than L, as many insertions as don't fit are left out, spread over all of it.

    Example:
        >>> tokens = torch.tensor([[1, 5, 6, 7, 2, 0, 0]])
        >>> generator = torch.Generator().manual_seed(0)
        >>> insert_tokens(tokens, 0.5, generator=generator, vocab_size=9, protected_ids=(1, 2))
        EditedTokens(tokens=tensor([[1, 5, 6, 6, 7, 4, 2]]), lengths=tensor([7]))
    """
    check_rate("insert_tokens", rate, "(0, 1]")
    vocabulary = Vocabulary("insert_tokens", vocab_size, frequencies, (pad_id, *protected_ids))
    edits = [lambda sequences: insert(sequences, rate, vocabulary, generator)]
    return edit_tokens(tokens, edits, pad_id=pad_id, protected_ids=protected_ids, lengths=lengths)


class InsertTokens(TokenTechnique):
    """Put random tokens between those of each training sequence.

    After each token there is a new one with the probability ``rate``, but not after padding or a
    protected token: a [CLS] stays first and a [SEP] last, and without protected tokens the first
    token stays the first. The batch doesn't grow: in a sequence with less padding than new tokens,
    those that don't fit are left out, evenly spread, and a full one stays as it is. Where batches
    are made of sequences of about one length, as by ``group_by_length``, there is hardly any
    padding: then far fewer than ``rate`` are inserted, of 10% as few as 1%. To make room, say
    ``group_by_length=False``, or put :class:`DeleteTokens` or :class:`CropTokens` before. Where no
    sequence of the first epoch has room, there is a NoEffectWarning.

    With padding on the left all is mirrored: the new token comes before a token, the last one
    stays the last, and without protected tokens the first may be a new one.

    Source: J. Wei, K. Zou, EDA: Easy Data Augmentation Techniques for Boosting Performance on
    Text Classification Tasks, 2019, arXiv:1901.11196 (random insertion, there of synonyms of the
    sentence's words), and Z. Xie et al., Data Noising as Smoothing in Neural Network Language
    Models, 2017, arXiv:1703.02573 (tokens from the unigram distribution). We insert what the
    latter replaces with.

    When:
        Classification of few texts, in batches with padding to put tokens into.

    When not:
        Texts of one length, which leave no room; labels that belong to tokens or places; much data.

    Args:
        rate: how probably a new token follows a token, 0 (none does) or in [1/32768, 1],
            in steps of 1/32768.
        vocab_size: new tokens are drawn evenly from the ids below it; one of this and the next
            is needed.
        frequencies: or by these weights, one for each id from 0 on: a list or a tensor.
        pad_id: the id of padding, which is never drawn.
        protected_ids: ids that are never drawn or followed, such as those of [CLS] and [SEP].
        padding_side: ``"right"`` or ``"left"``.
        input_key: where the tokens are in the batch.
        mask_key: where their attention mask is, ``"auto"``, or None.
        lengths_key: where their lengths are, ``"auto"``, or None.
        ignore: further fields of one entry for each token that may go out of line.

    Raises:
        TechniqueError: in the first step, for what isn't a batch of padded tokens, or has ids that
            the vocabulary hasn't.

    The checkpoint keeps the arguments; of a long table, its checksum.

    Example:
        >>> InsertTokens(0.1, vocab_size=30_000)
        InsertTokens(vocab_size=30000)
    """

    def __init__(
        self,
        rate: float = 0.1,
        vocab_size: int | None = None,
        frequencies: Sequence[float] | Tensor | None = None,
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
        self.vocab_size, self.frequencies = vocab_size, shortened(frequencies)
        self._vocabulary = Vocabulary(self, vocab_size, frequencies, self.spared)

    def neutral(self) -> str | None:
        """Return why there is nothing to do, if the rate is 0."""
        return "rate is 0" if self.rate == 0 else None

    def check_values(self, sequences: Sequences) -> None:
        """Refuse ids that the vocabulary hasn't."""
        self._vocabulary.check(self, sequences)

    def hindrance(self, sequences: Sequences) -> str | None:
        """Return why nothing can be inserted into these sequences, or None if it can."""
        if why := super().hindrance(sequences):
            return why
        if bool(
            (any_in_row(sequences.editable) & (sequences.lengths < sequences.tokens.shape[1])).any()
        ):
            return None
        return (
            "no sequence has padding that would make room: say group_by_length=False, or put "
            "DeleteTokens or CropTokens before"
        )

    def edit(self, sequences: Sequences, generator: torch.Generator) -> Sequences:
        """Return sequences with new tokens in between."""
        return insert(sequences, self.rate, self._vocabulary, generator)
