"""Fields of a batch that an edit of its tokens would leave wrong."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lightning_dlopt.augmentation.tokens import Sequences
from lightning_dlopt.core.batch import USUAL_NAMES, Key
from lightning_dlopt.core.errors import ArgumentError

#: Positions of an answer in the text, which an edit moves.
POSITION_NAMES = ("start_positions", "end_positions")
#: So many equal numbers are no coincidence.
_ENOUGH = 4


class FieldWatch:
    """What is known of a batch's further fields, from one batch to the next.

    A field that once had another shape, or other numbers, than it would have beside the tokens
    isn't one of them, whatever later batches have by coincidence.
    """

    def __init__(self) -> None:
        self._fine: set[Key] = set()
        self._no_counts: set[Key] = set()
        self._seen: dict[Key, tuple[int, set[int]]] = {}

    def check_shapes(self, fields: dict[Key, Any], tokens: Tensor) -> None:
        """Raise an ArgumentError for a field with one entry for each token.

        A floating-point target ``(B, C)`` isn't one.
        """
        for where, value in fields.items():
            if where in POSITION_NAMES:
                raise ArgumentError(
                    f"the batch has at {where!r} positions in the text, which would be wrong: take "
                    f"it out, or say ignore=[{where!r}] if that doesn't matter"
                )
            if where in self._fine or not isinstance(value, Tensor):
                continue
            shape = tuple(value.shape)
            is_target = where == 1 or where in USUAL_NAMES["target"]
            between = shape[:1] + tuple(one for one in shape[1:] if one != 1)
            if tuple(tokens.shape) not in (shape[:2], between) or (
                is_target and value.is_floating_point() and value.dim() == 2
            ):
                self._fine.add(where)
                continue
            raise ArgumentError(
                f"the batch has at {where!r} a tensor of shape {shape}, one entry for each token, "
                f"which would go out of line: take it out, or say ignore=[{where!r}] if that "
                "doesn't matter"
            )

    def check_values(
        self,
        fields: dict[Key, Any],
        sequences: Sequences,
        turned: Callable[[Tensor], Tensor],
    ) -> None:
        """Raise an ArgumentError for numbers of tokens, or a mask, in a field nobody named.

        Numbers are refused when those of four sequences at least, not all alike, have agreed; at
        a name that speaks of lengths, at once.
        """
        for where, value in fields.items():
            if where in self._no_counts:
                continue
            if not self._counts(where, value, sequences.lengths) and not _is_mask(
                value, turned, sequences
            ):
                self._no_counts.add(where)
                continue
            if isinstance(value, Tensor) and value.dim() == 2:
                said = f"the mask, turned; take it out, or say ignore=[{where!r}]"
            elif not self._is_clear(where):
                continue
            else:
                said = (
                    f"the numbers of tokens: say lengths_key={where!r} for a tensor that is kept "
                    f"right, or ignore=[{where!r}] if they don't matter"
                )
            raise ArgumentError(f"the batch has at {where!r} {said}")

    def _is_clear(self, where: Key) -> bool:
        if isinstance(where, str) and "len" in where.lower():
            return True
        rows, counts = self._seen[where]
        return rows >= _ENOUGH and len(counts) > 1

    def _counts(self, where: Key, value: Any, lengths: Tensor) -> bool:
        """Return whether a field holds the numbers of tokens, and note how many."""
        if isinstance(value, list | tuple) and all(type(one) is int for one in value):
            value = torch.tensor(value, dtype=torch.int64)
        if (
            not isinstance(value, Tensor)
            or value.dim() != 1
            or value.is_floating_point()
            or not value.cpu().long().equal(lengths)
        ):
            return False
        rows, counts = self._seen.get(where, (0, set()))
        self._seen[where] = (rows + len(lengths), counts | set(lengths.tolist()))
        return True


def _is_mask(value: Any, turned: Callable[[Tensor], Tensor], sequences: Sequences) -> bool:
    """Return whether a field is the mask ``(L, B)``, or its opposite."""
    if not isinstance(value, Tensor) or value.shape != sequences.tokens.shape[::-1]:
        return False
    real = turned(sequences.real).t()
    return bool((value == real).all() or (value == ~real).all())
