"""Tokens that others stand for."""

from collections.abc import Mapping, Sequence

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
from lightning_dlopt.augmentation.vocabulary import (
    Synonyms,
    Vocabulary,
    check_synonyms,
    shortened,
)
from lightning_dlopt.core.batch import Key
from lightning_dlopt.core.checks import owner_name
from lightning_dlopt.core.errors import ArgumentError


def replace(
    sequences: Sequences,
    rate: float,
    source: Vocabulary | Synonyms,
    generator: torch.Generator,
) -> Sequences:
    """Return sequences as :func:`replace_tokens` does."""
    tokens = sequences.tokens.reshape(-1)
    flat = find(chosen(draw_bits(tokens, generator), rate)).to(tokens.device)
    old = tokens.index_select(0, flat)
    if isinstance(source, Synonyms):
        new = source.draw(old, generator)
    else:
        new = source.draw(len(flat), generator).to(tokens.device, tokens.dtype)
    new = torch.where(sequences.editable.view(-1).index_select(0, flat), new, old)
    return sequences.with_tokens(tokens.scatter(0, flat, new).view(sequences.tokens.shape))


def make_source(
    owner: object,
    vocab_size: int | None,
    frequencies: Sequence[float] | Tensor | None,
    synonyms: Mapping[int, Sequence[int]] | None,
    spared: Sequence[int],
) -> Vocabulary | Synonyms:
    """Return what new tokens are drawn from, or raise."""
    if synonyms is None:
        return Vocabulary(owner, vocab_size, frequencies, spared)
    if vocab_size is not None or frequencies is not None:
        raise ArgumentError(
            f"{owner_name(owner)}: synonyms={shortened(synonyms)!r} stands instead of "
            f"vocab_size={vocab_size!r} and frequencies={shortened(frequencies)!r}: give one"
        )
    table = check_synonyms(owner, synonyms)
    for token, others in table.items():
        if found := set(others) & set(spared):
            raise ArgumentError(
                f"{owner_name(owner)}: synonyms={shortened(synonyms)!r} has for {token} the id "
                f"{found.pop()}, which is the padding or protected"
            )
    if set(table) <= set(spared):
        raise ArgumentError(
            f"{owner_name(owner)}: synonyms={shortened(synonyms)!r} has only tokens that are "
            f"padding or protected, {sorted(table)}, and stay as they are"
        )
    if all(set(others) == {token} for token, others in table.items()):
        raise ArgumentError(
            f"{owner_name(owner)}: synonyms={shortened(synonyms)!r} has for each token only itself"
        )
    return Synonyms(table)


def replace_tokens(
    tokens: Tensor,
    rate: float,
    *,
    generator: torch.Generator,
    vocab_size: int | None = None,
    frequencies: Sequence[float] | Tensor | None = None,
    synonyms: Mapping[int, Sequence[int]] | None = None,
    pad_id: int = 0,
    protected_ids: Sequence[int] = (),
    lengths: Tensor | None = None,
) -> EditedTokens:
    """Return sequences with a random share of their tokens replaced.

    Args:
        tokens: ``(B, L)``, int32 or int64, padded on the right; stays as it is.
        rate: how probably each token is replaced, in [1/32768, 1], in steps of 1/32768.
        generator: what the draws come from, on the CPU.
        vocab_size: new tokens are drawn evenly from the ids below it (now and then, the old one),
        frequencies: or by these weights, one for each id from 0 on,
        synonyms: or evenly from the list that this table has for a token; others stay.
        pad_id: the id of padding, which is never drawn.
        protected_ids: ids that stay, and are never drawn.
        lengths: ``(B,)``; see :func:`edit_tokens`, also for the errors.

    Example:
        >>> tokens = torch.tensor([[1, 5, 6, 7, 5, 2, 0]])
        >>> generator = torch.Generator().manual_seed(0)
        >>> replace_tokens(tokens, 1.0, generator=generator, synonyms={5: [8, 9], 7: [4]}).tokens
        tensor([[1, 9, 6, 4, 8, 2, 0]])
    """
    check_rate("replace_tokens", rate, "(0, 1]")
    spared = (pad_id, *protected_ids)
    source = make_source("replace_tokens", vocab_size, frequencies, synonyms, spared)
    edits = [lambda sequences: replace(sequences, rate, source, generator)]
    return edit_tokens(tokens, edits, pad_id=pad_id, protected_ids=protected_ids, lengths=lengths)


class ReplaceTokens(TokenTechnique):
    """Put random tokens, or synonyms, in the place of some of each training sequence's.

    Each token has its own draw. Further fields with one entry for each token stay in line.

    Source: Z. Xie et al., Data Noising as Smoothing in Neural Network Language Models, 2017,
    arXiv:1703.02573 (unigram noising; its rate doesn't depend on the token, as ours), and J. Wei,
    K. Zou, EDA: Easy Data Augmentation Techniques for Boosting Performance on Text Classification
    Tasks, 2019, arXiv:1901.11196 (synonym replacement). The latter replaces n words that have
    synonyms, all occurrences alike; here each token that has synonyms is replaced with the
    probability ``rate``, each occurrence by a synonym of its own. A synonym is a single token.

    When:
        Few texts; input with unknown words or misprints; with ``frequencies``, the smoothing of
        language models.

    When not:
        Single tokens decide, and no table of synonyms is at hand; much data.

    Args:
        rate: how probably a token is replaced, 0 (none is) or in [1/32768, 1],
            in steps of 1/32768.
        vocab_size: new tokens are drawn evenly from the ids below it, the old one included; one of
            this and the next two is needed.
        frequencies: or by these weights, one for each id from 0 on: a list or a tensor.
        synonyms: or evenly from the list that this table has for a token; tokens that have no
            synonyms stay. Keys may be strings of digits, as in JSON.
        pad_id: the id of padding, which is never drawn.
        protected_ids: ids that stay and are never drawn, such as those of [CLS] and [SEP].
        padding_side: ``"right"`` or ``"left"``.
        input_key: where the tokens are in the batch.
        mask_key: where their attention mask is, ``"auto"``, or None.
        lengths_key: where their lengths are, ``"auto"``, or None.
        ignore: without use here, since nothing goes out of line.

    Raises:
        TechniqueError: in the first step, for what isn't a batch of padded tokens, or has ids that
            the vocabulary hasn't.

    The checkpoint keeps the arguments; of a long table, its checksum.

    Example:
        >>> ReplaceTokens(0.2, frequencies=[0, 0, 0, 5, 3, 1])
        ReplaceTokens(rate=0.2, frequencies=[0, 0, 0, 5, 3, 1])
    """

    keeps_places = True

    def __init__(
        self,
        rate: float = 0.1,
        vocab_size: int | None = None,
        frequencies: Sequence[float] | Tensor | None = None,
        synonyms: Mapping[int, Sequence[int]] | None = None,
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
        self.synonyms = shortened(None if synonyms is None else check_synonyms(self, synonyms))
        self._source = make_source(self, vocab_size, frequencies, synonyms, self.spared)

    def neutral(self) -> str | None:
        """Return why there is nothing to do, if the rate is 0."""
        return "rate is 0" if self.rate == 0 else None

    def check_values(self, sequences: Sequences) -> None:
        """Refuse ids that the vocabulary hasn't."""
        if isinstance(self._source, Vocabulary):
            self._source.check(self, sequences)

    def hindrance(self, sequences: Sequences) -> str | None:
        """Return why nothing can be replaced in these sequences, or None if it can."""
        if why := super().hindrance(sequences):
            return why
        if isinstance(self._source, Synonyms):
            ids = sequences.tokens[sequences.editable]
            if not bool(torch.isin(ids, self._source.ids.to(ids)).any()):
                return "no token that occurs has synonyms"
        return None

    def edit(self, sequences: Sequences, generator: torch.Generator) -> Sequences:
        """Return sequences in which some tokens are replaced."""
        return replace(sequences, self.rate, self._source, generator)
