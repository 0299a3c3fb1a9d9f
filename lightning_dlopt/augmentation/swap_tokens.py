"""Tokens that change places."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_dlopt.augmentation.token_technique import TokenTechnique
from lightning_dlopt.augmentation.tokens import (
    EditedTokens,
    Sequences,
    check_rate,
    chosen,
    draw_bits,
    edit_tokens,
    find,
)
from lightning_dlopt.core.batch import Key


def draw_pairs(editable: Tensor, rate: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw which tokens change places.

    Args:
        editable: ``(B, L)``, true where a token may be drawn.
        rate: how probably each is, in [1/32768, 1], in steps of 1/32768.
        generator: what the draws come from, on the CPU.

    Returns:
        Numbers of places in the flattened batch, each at most once, and for each the place its
        token comes from. Both are in one sequence; a place without a partner has itself.
    """
    drawn = find(chosen(draw_bits(editable, generator), rate))
    noise = torch.empty(len(drawn), dtype=torch.int32).random_(generator=generator)
    drawn, noise = drawn.to(editable.device), noise.to(editable.device)
    # in a random order within each sequence, neighbors are random pairs; what may not be moved
    # stands behind, as if it were another sequence, of an even number
    group = drawn.div(editable.shape[1], rounding_mode="floor").add_(1).mul_(2)
    group -= editable.view(-1).index_select(0, drawn).view(torch.int8)
    keys, order = (group * 2**31 + noise).sort(stable=True)
    drawn, group = drawn.index_select(0, order), keys >> 31
    number = torch.arange(len(drawn), device=editable.device)
    last = (group[1:] - group[:-1]).bool()
    begin = torch.zeros_like(number)
    torch.mul(number[1:], last, out=begin[1:])
    rank = number - begin.cummax(0).values if len(drawn) else number
    # one of even rank in an odd group changes places with the next, if that is of its group
    step = group & ~rank & 1
    step[:-1].masked_fill_(last, 0)
    step[-1:] = 0
    partner = number + step
    partner[1:] -= step[:-1]
    return drawn, drawn.index_select(0, partner)


def swap(sequences: Sequences, rate: float, generator: torch.Generator) -> Sequences:
    """Return sequences as :func:`swap_tokens` does."""
    to, source = draw_pairs(sequences.editable, rate, generator)
    flat = sequences.tokens.reshape(-1)
    swapped = flat.scatter(0, to, flat.index_select(0, source))
    return sequences.with_tokens(swapped.view(sequences.tokens.shape))


def swap_tokens(
    tokens: Tensor,
    rate: float,
    *,
    generator: torch.Generator,
    pad_id: int = 0,
    protected_ids: Sequence[int] = (),
    lengths: Tensor | None = None,
) -> EditedTokens:
    """Return sequences in which random pairs of tokens have changed places.

    Args:
        tokens: ``(B, L)``, int32 or int64, padded on the right; stays as it is.
        rate: how probably a token is drawn, in (0, 1]. Those that are drawn in a sequence form
            random pairs; of an odd number one stays where it is.
        generator: what the draws come from, on the CPU.
        pad_id: the id of padding.
        protected_ids: ids that stay where they are.
        lengths: ``(B,)``; see :func:`edit_tokens`, also for the errors.

    Example:
        >>> tokens = torch.tensor([[1, 5, 6, 7, 8, 2, 0]])
        >>> generator = torch.Generator().manual_seed(0)
        >>> swap_tokens(tokens, 1.0, generator=generator, protected_ids=(1, 2)).tokens
        tensor([[1, 8, 7, 6, 5, 2, 0]])
    """
    check_rate("swap_tokens", rate, "(0, 1]")
    edits = [lambda sequences: swap(sequences, rate, generator)]
    return edit_tokens(tokens, edits, pad_id=pad_id, protected_ids=protected_ids, lengths=lengths)


class SwapTokens(TokenTechnique):
    """Let random pairs of tokens change places within each training sequence.

    Each token has its own draw of whether it takes part; those that do form random pairs, and of
    an odd number one stays. So a little less than ``rate`` of the tokens move, in short sequences
    clearly less. Pairs are drawn over the whole sequence, also across a [SEP] in its middle.

    Source: J. Wei, K. Zou, EDA: Easy Data Augmentation Techniques for Boosting Performance on
    Text Classification Tasks, 2019, arXiv:1901.11196 (random swap). It makes n swaps one after
    the other, of which a later one may undo an earlier; our pairs have no token in common.

    When:
        Few texts, whose network reads the order of the tokens more closely than the label needs.

    When not:
        The order decides: grammar, who did what to whom. Networks that are blind to it don't
        notice.

    Args:
        rate: how probably a token takes part, 0 (none does) or in [1/32768, 1],
            in steps of 1/32768.
        pad_id: the id of padding.
        protected_ids: ids of tokens that stay where they are, such as those of [CLS] and [SEP].
        padding_side: ``"right"`` or ``"left"``.
        input_key: where the tokens are in the batch.
        mask_key: where their attention mask is, ``"auto"``, or None.
        lengths_key: where their lengths are, ``"auto"``, or None.
        ignore: further fields of one entry for each token that may go out of line.

    Raises:
        TechniqueError: in the first step, for what isn't a batch of padded tokens.

    The checkpoint keeps the arguments.

    Example:
        >>> SwapTokens(0.2)
        SwapTokens(rate=0.2)
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

    def hindrance(self, sequences: Sequences) -> str | None:
        """Return why nothing can be swapped in these sequences, or None if it can."""
        if bool((sequences.editable.sum(1) > 1).any()):
            return None
        return "no sequence has two tokens that may be edited: the rest is padding or protected"

    def edit(self, sequences: Sequences, generator: torch.Generator) -> Sequences:
        """Return sequences in which some tokens have changed places."""
        return swap(sequences, self.rate, generator)
