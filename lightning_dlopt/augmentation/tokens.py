"""Padded sequences of tokens, and what all edits of them share."""

import copy
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from lightning_dlopt.core.checks import check_number, owner_name
from lightning_dlopt.core.errors import ArgumentError, ArgumentTypeError

_STEPS = 1 << 15  # of a rate: draws have 15 bits


class EditedTokens(NamedTuple):
    """Tokens ``(B, L)`` after an edit, and how many of each sequence aren't padding, ``(B,)``."""

    tokens: Tensor
    lengths: Tensor


class Sequences:
    """Sequences of tokens, padded on the right, between two edits.

    Args:
        tokens: ``(B, L)`` integers.
        pad_id: the id of padding.
        protected_ids: ids of tokens that no edit touches.
        real: ``(B, L)``, true where a token is; where the id isn't ``pad_id`` by default.
        lengths: ``(B,)``, the number of tokens, for those who know it.
        by_id: whether every token with the id ``pad_id`` is padding; if neither ``real`` nor
            ``lengths`` says which are by default.
    """

    def __init__(
        self,
        tokens: Tensor,
        pad_id: int = 0,
        protected_ids: Sequence[int] = (),
        real: Tensor | None = None,
        lengths: Tensor | None = None,
        by_id: bool | None = None,
    ) -> None:
        self.tokens = tokens.contiguous()
        self.pad_id = pad_id
        self.protected_ids = protected_ids
        self._real = None if real is None else real.contiguous()
        self._lengths = lengths
        self._by_id = real is None and lengths is None if by_id is None else by_id

    @cached_property
    def real(self) -> Tensor:
        """``(B, L)``: where tokens are, rather than padding."""
        if self._real is not None:
            return self._real
        if self._by_id or self._lengths is None:
            return differ(self.tokens, self.pad_id)
        return negative(places(self.tokens) - self._lengths.int()[:, None])

    @cached_property
    def lengths(self) -> Tensor:
        """``(B,)``: the number of tokens of each sequence."""
        return self.real.sum(1) if self._lengths is None else self._lengths

    @cached_property
    def editable(self) -> Tensor:
        """``(B, L)``: where tokens are that may be edited."""
        editable = self.real
        # a token may have the padding's id, where a mask or lengths say that it is one
        also = () if self._by_id else (self.pad_id,)
        for spared in (*self.protected_ids, *also):
            editable = editable & differ(self.tokens, spared)
        return editable

    @cached_property
    def extremes(self) -> tuple[int, int]:
        """The least and the greatest id; a GPU must be waited for."""
        least, greatest = self.tokens.aminmax()
        return int(least), int(greatest)

    def with_tokens(self, tokens: Tensor) -> "Sequences":
        """Return sequences with other tokens in the same places, of which as many are editable."""
        other = copy.copy(self)  # with all that is known of the places
        other.tokens = tokens
        return other

    def with_lengths(self, tokens: Tensor, lengths: Tensor) -> "Sequences":
        """Return sequences with other tokens in other places, so many of each."""
        return Sequences(
            tokens, self.pad_id, self.protected_ids, lengths=lengths, by_id=self._by_id
        )

    def without(self, drop: Tensor) -> "Sequences":
        """Return the sequences without the tokens where ``drop``, ``(B, L)``, is true."""
        count, length = self.tokens.shape
        keep = self.real ^ drop
        column = numbered(keep)
        lengths = column[:, -1].long()
        # what isn't kept goes to a column 0 that is cut off
        padding = self.tokens.new_full((count, length + 1), self.pad_id)
        tokens = padding.scatter_(1, (column * keep).long(), self.tokens)
        return self.with_lengths(tokens[:, 1:].contiguous(), lengths)


#: One edit; its draws come from a generator that it brings along.
Edit: TypeAlias = Callable[[Sequences], Sequences]


def places(tokens: Tensor) -> Tensor:
    """Return the numbers of the columns, in int32."""
    return torch.arange(tokens.shape[1], dtype=torch.int32, device=tokens.device)


def differ(tokens: Tensor, value: int) -> Tensor:
    """Return ``tokens != value``, in half the time."""
    return (tokens - value if value else tokens).bool()


def negative(numbers: Tensor) -> Tensor:
    """Return ``numbers < 0`` for integers, in half the time."""
    return (numbers >> (8 * numbers.element_size() - 1)).bool()


def numbered(mask: Tensor) -> Tensor:
    """Return how many of each row are true so far, ``(B, L)`` of int32, cheaper than int64."""
    return mask.cumsum(1, dtype=torch.int32)


def any_in_row(mask: Tensor) -> Tensor:
    """Return ``mask.any(1)``, in a quarter of the time."""
    return mask.view(torch.int8).amax(1).bool()


def find(mask: Tensor) -> Tensor:
    """Return where a mask on the CPU is true, as numbers into it when it is flattened."""
    return torch.from_numpy(np.flatnonzero(mask.numpy()))


def check_tokens(owner: object, tokens: Tensor) -> Tensor:
    """Return ``tokens`` if they are a batch ``(B, L)`` of int32 or int64 with L above 0."""
    if not isinstance(tokens, Tensor):
        raise ArgumentTypeError(
            f"{owner_name(owner)}: tokens must be a tensor (B, L) of integers, not a "
            f"{type(tokens).__name__}"
        )
    if tokens.dtype not in (torch.int32, torch.int64):
        raise ArgumentTypeError(
            f"{owner_name(owner)}: tokens of {tokens.dtype} must be int64 or int32"
        )
    if tokens.dim() != 2 or tokens.shape[1] == 0:
        raise ArgumentError(
            f"{owner_name(owner)}: tokens of shape {tuple(tokens.shape)} must be a batch (B, L) "
            "of padded sequences, L at least 1"
        )
    return tokens


def check_sequences(owner: object, sequences: Sequences) -> None:
    """Raise an ArgumentError for ids below 0, and for padding that isn't at the end.

    It looks at the values, for which a GPU must be waited for.
    """
    tokens, real = sequences.tokens, sequences.real
    if tokens.numel() == 0:
        return
    if (least := sequences.extremes[0]) < min(sequences.pad_id, 0):
        raise ArgumentError(f"{owner_name(owner)}: tokens hold the id {least}, below 0")
    steps = real.view(torch.int8)
    if steps.shape[1] > 1 and (steps[:, 1:] - steps[:, :-1]).amax() > 0:
        side = "on the left: say padding_side='left'" if real[:, -1].all() else "between tokens"
        raise ArgumentError(
            f"{owner_name(owner)}: tokens have padding (pad_id={sequences.pad_id}) {side}"
        )


def check_lengths(owner: object, lengths: Tensor, tokens: Tensor) -> Tensor:
    """Return ``lengths`` as int64 beside the tokens if they are ``(B,)`` integers in [0, L]."""
    kind = getattr(lengths, "dtype", type(lengths).__name__)
    if not isinstance(lengths, Tensor) or kind not in (torch.int32, torch.int64):
        raise ArgumentTypeError(
            f"{owner_name(owner)}: lengths must be a tensor (B,) of int64 or int32, not {kind}"
        )
    if lengths.shape != tokens.shape[:1]:
        raise ArgumentError(
            f"{owner_name(owner)}: lengths of shape {tuple(lengths.shape)} must be {(len(tokens),)}"
        )
    if ((lengths < 0) | (lengths > tokens.shape[1])).any():
        raise ArgumentError(
            f"{owner_name(owner)}: lengths={lengths.tolist()} must be in [0, {tokens.shape[1]}]"
        )
    return lengths.to(tokens.device, torch.int64)


def check_rate(owner: object, rate: float, interval: str) -> float:
    """Return ``rate`` if it is in ``interval``, and 0 or one that the draws can resolve."""
    rate = check_number(owner, "rate", rate, interval)
    if 0 < rate < 1 / _STEPS:
        raise ArgumentError(
            f"{owner_name(owner)}: rate={rate!r} is below 1/{_STEPS}, the step of the draws"
        )
    return rate


def edit_tokens(
    tokens: Tensor,
    edits: Sequence[Edit],
    *,
    pad_id: int = 0,
    protected_ids: Sequence[int] = (),
    lengths: Tensor | None = None,
) -> EditedTokens:
    """Return sequences after several edits, in their order, in one pass over the batch.

    The result is bitwise that of one edit after another; what they share is done once.

    Args:
        tokens: ``(B, L)``, int32 or int64, padded on the right; stays as it is.
        edits: each a function of :class:`Sequences` that brings its generator along, such as
            ``lambda s: delete(s, 0.1, generator)``.
        pad_id: the id of padding.
        protected_ids: ids that no edit touches, such as those of [CLS] and [SEP].
        lengths: ``(B,)``, how many of each sequence are tokens; by default those that aren't
            ``pad_id``.

    Raises:
        ArgumentError: for another shape, negative ids, padding elsewhere than at the end, lengths
            outside of [0, L] or that leave out what isn't padding.
        ArgumentTypeError: for another type of numbers.

    Example:
        >>> from lightning_dlopt.augmentation.delete_tokens import delete
        >>> from lightning_dlopt.augmentation.swap_tokens import swap
        >>> generator = torch.Generator().manual_seed(0)
        >>> edits = [lambda s: delete(s, 0.2, generator), lambda s: swap(s, 1.0, generator)]
        >>> edit_tokens(torch.tensor([[1, 5, 6, 7, 8, 2, 0]]), edits, protected_ids=(1, 2))
        EditedTokens(tokens=tensor([[1, 8, 2, 0, 0, 0, 0]]), lengths=tensor([3]))
    """
    check_tokens("edit_tokens", tokens)
    if lengths is not None:
        lengths = check_lengths("edit_tokens", lengths, tokens)
    sequences = Sequences(tokens, pad_id, protected_ids, lengths=lengths)
    if lengths is not None and (differ(tokens, pad_id) & ~sequences.real).any():
        raise ArgumentError(f"edit_tokens: lengths leave out tokens that aren't pad_id={pad_id}")
    check_sequences("edit_tokens", sequences)
    for edit in edits:
        sequences = edit(sequences)
    edited = sequences.tokens
    return EditedTokens(edited.clone() if edited is tokens else edited, sequences.lengths)


def draw_bits(tokens: Tensor, generator: torch.Generator) -> Tensor:
    """Return a draw for each token, an int16 in [0, 2**15), on the CPU.

    Four are cut from each number of the generator: that is a fifth of what ``torch.rand`` takes.
    """
    count = tokens.numel()
    numbers = torch.empty(-(-count // 4), dtype=torch.int64).random_(generator=generator)
    bits = numbers.view(torch.int16).bitwise_and_(_STEPS - 1)
    return bits[:count].view(tokens.shape)


def chosen(bits: Tensor, rate: float) -> Tensor:
    """Return which draws choose their token: a share ``rate``, in steps of 1/32768."""
    return negative(bits + -round(rate * _STEPS))


def may_skip(condition: Tensor) -> bool:
    """Return whether a rare condition is nowhere true; on a GPU nobody waits for the answer."""
    return condition.device.type == "cpu" and not condition.any()
