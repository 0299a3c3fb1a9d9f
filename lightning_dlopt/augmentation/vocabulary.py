"""Random ids, and tables of ids."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_dlopt.augmentation.tokens import Sequences, find
from lightning_dlopt.core.checks import check_integer, owner_name
from lightning_dlopt.core.errors import ArgumentError, ArgumentTypeError

#: Longer tables are kept in a checkpoint as a checksum.
_SHORT = 16


class Vocabulary:
    """Ids to draw from, evenly or by frequency.

    Args:
        owner: what they are for.
        vocab_size: ids from 0 up to here, excluded, as probable as each other.
        frequencies: or a weight for each id, from 0 on; they needn't add up to 1.
        spared: ids that are never drawn.

    Raises:
        ArgumentError: if both or none of the two are given, or there is no id to draw.
    """

    def __init__(
        self,
        owner: object,
        vocab_size: int | None,
        frequencies: Sequence[float] | Tensor | None,
        spared: Sequence[int],
    ) -> None:
        if (vocab_size is None) == (frequencies is None):
            raise ArgumentError(
                f"{owner_name(owner)}: give one of vocab_size={vocab_size!r} and "
                f"frequencies={shortened(frequencies)!r}, from which new tokens are drawn"
            )
        if frequencies is None:
            self.size = check_integer(owner, "vocab_size", vocab_size, "[1, inf)")
            weights = torch.ones(self.size, dtype=torch.bool)
        else:
            weights = check_frequencies(owner, frequencies)
            self.size = len(weights)
        for one in spared:
            if 0 <= one < self.size:
                weights[one] = 0
        self.ids = find(weights.bool())
        if len(self.ids) == 0:
            raise ArgumentError(
                f"{owner_name(owner)}: vocab_size={vocab_size!r}, "
                f"frequencies={shortened(frequencies)!r} leave no token to draw: all are padding "
                "or protected"
            )
        self._heights = None if frequencies is None else weights[self.ids].cumsum(0)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Return ``count`` ids, on the CPU."""
        if self._heights is None:
            which = torch.randint(len(self.ids), (count,), generator=generator)
            return self.ids.index_select(0, which)
        total = self._heights[-1]
        draws = torch.rand(count, generator=generator, dtype=torch.float64) * total
        return self.ids[torch.searchsorted(self._heights[:-1], draws, right=True)]

    def check(self, owner: object, sequences: Sequences) -> None:
        """Raise an ArgumentError for an id that the vocabulary doesn't have."""
        if sequences.tokens.numel() and (most := sequences.extremes[1]) >= self.size:
            raise ArgumentError(
                f"{owner_name(owner)}: tokens hold the id {most}, and the vocabulary has "
                f"{self.size}: from 0 to {self.size - 1}"
            )


def check_frequencies(owner: object, frequencies: Sequence[float] | Tensor) -> Tensor:
    """Return the weights as a new tensor of float64 on the CPU."""
    try:
        weights = torch.as_tensor(frequencies).detach().to("cpu", torch.float64, copy=True)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentTypeError(
            f"{owner_name(owner)}: frequencies={shortened(frequencies)!r} must be a list of "
            "numbers, or a tensor of one dimension"
        ) from error
    fine = weights.dim() == 1 and bool((weights.isfinite() & (weights >= 0)).all())
    if not fine or not weights.sum() > 0:
        raise ArgumentError(
            f"{owner_name(owner)}: frequencies={shortened(frequencies)!r} must be one weight in "
            "[0, inf) for each id, not all 0"
        )
    return weights


def check_synonyms(owner: object, synonyms: Any) -> dict[int, list[int]]:
    """Return the table with plain integers, or raise."""
    wrong = f"{owner_name(owner)}: synonyms={shortened(synonyms)!r} must be a dict"
    if not isinstance(synonyms, Mapping):
        raise ArgumentTypeError(f"{wrong} of lists of token ids by token id")
    table: dict[int, list[int]] = {}
    for token, others in synonyms.items():
        if not isinstance(others, Sequence) or isinstance(others, str):
            raise ArgumentTypeError(f"{wrong} of lists, but {token!r} has {others!r}")
        if isinstance(token, str) and token.isdecimal():
            token = int(token)  # a key of JSON
        ids = [check_integer(owner, "synonyms", one, "[0, inf)") for one in (token, *others)]
        if ids[0] in table:
            raise ArgumentError(f"{wrong} with each token once, but has {token} twice")
        if ids[1:]:
            table[ids[0]] = ids[1:]
    if not table:
        raise ArgumentError(f"{wrong} with at least one token that has synonyms")
    return table


class Synonyms:
    """A table of synonyms as tensors, one copy for each device.

    Args:
        table: the ids that may stand for an id.
    """

    def __init__(self, table: Mapping[int, Sequence[int]]) -> None:
        first, count = [0] * (max(table) + 2), [0] * (max(table) + 2)
        flat: list[int] = []
        for token, others in table.items():
            first[token], count[token] = len(flat), len(others)
            flat.extend(others)
        self.ids = torch.tensor(
            [token for token, others in table.items() if set(others) != {token}]
        )
        self._tensors = [torch.tensor(one) for one in (first, count, flat)]

    def draw(self, tokens: Tensor, generator: torch.Generator) -> Tensor:
        """Return a random synonym of each token, ``(N,)``, or the token if it has none."""
        draws = torch.rand(len(tokens), generator=generator).to(tokens.device)
        if self._tensors[0].device != tokens.device:
            self._tensors = [one.to(tokens.device) for one in self._tensors]
        first, count, flat = self._tensors
        # the last row is for all ids that are beyond the table
        row = tokens.long().clamp(max=len(first) - 1)
        many = count[row]
        which = (draws * many).long().minimum(many - 1).clamp_(min=0)
        synonym = flat[(first[row] + which).clamp_(max=len(flat) - 1)]
        return torch.where(many > 0, synonym.to(tokens.dtype), tokens)


def shortened(value: Any) -> Any:
    """Return ``value``, a table, as plain data; a long one, or a tensor, as its checksum.

    Example:
        >>> shortened([0.5, 1.0]), shortened(range(1000))
        ([0.5, 1.0], '1000 entries, checksum 3e726f1b')
    """
    if isinstance(value, Tensor):
        value = value.detach().cpu().tolist()
    if isinstance(value, Mapping):
        table: Any = {key: value[key] for key in sorted(value, key=str)}
    elif isinstance(value, Sequence) and not isinstance(value, str):
        table = list(value)
    else:
        return value
    if len(table) <= _SHORT:
        return table
    checksum = hashlib.sha256(repr(table).encode()).hexdigest()[:8]
    return f"{len(table)} entries, checksum {checksum}"
