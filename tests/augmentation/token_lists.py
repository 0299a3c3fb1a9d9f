"""The edits of tokens once more, on Python lists, one token at a time.

They take the draws as the package does, in the same order, and nothing else of it.
"""

from collections.abc import Callable, Iterator, Sequence
from math import floor

import torch
from torch import Tensor

from lightning_dlopt.augmentation.tokens import draw_bits

PAD, PROTECTED = 0, (1, 2)

Values = Callable[[int, torch.Generator], Tensor]


def rows(tokens: Tensor) -> list[list[int]]:
    """Return sequences without their padding."""
    return [[token for token in row if token != PAD] for row in tokens.tolist()]


def padded(lists: Sequence[Sequence[int]], like: Tensor) -> Tensor:
    length = like.shape[1]
    full = [[*row, *[PAD] * (length - len(row))] for row in lists]
    return torch.tensor(full, dtype=like.dtype).view(like.shape)


def drawn(tokens: Tensor, rate: float, generator: torch.Generator) -> list[list[bool]]:
    limit = max(round(rate * 32768), 1)
    return [[bit < limit for bit in row] for row in draw_bits(tokens, generator).tolist()]


def delete(tokens: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    limit, out = round(rate * 32768), []
    for row, bits in zip(rows(tokens), draw_bits(tokens, generator).tolist(), strict=True):
        free = [place for place, token in enumerate(row) if token not in PROTECTED]
        gone = {place for place in free if bits[place] < limit}
        if len(gone) == len(free) > 0:
            gone.remove(max(free, key=lambda place: (bits[place], -place)))
        out.append([token for place, token in enumerate(row) if place not in gone])
    return padded(out, tokens)


def crop(tokens: Tensor, keep: tuple[float, float], generator: torch.Generator) -> Tensor:
    out, draws = [], torch.rand(2, len(tokens), generator=generator).t().tolist()
    for row, (share, place) in zip(rows(tokens), draws, strict=True):
        free = [i for i, token in enumerate(row) if token not in PROTECTED]
        size = max(round((keep[0] + (keep[1] - keep[0]) * share) * len(free)), 1)
        begin = floor(place * (max(len(free) - size, 0) + 1))
        window = free[begin : begin + size]
        out.append([t for i, t in enumerate(row) if t in PROTECTED or i in window])
    return padded(out, tokens)


def swap(tokens: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    which, out = drawn(tokens, rate, generator), []
    count = sum(map(sum, which))
    noise = iter(torch.empty(count, dtype=torch.int32).random_(generator=generator).tolist())
    for row, chosen in zip(tokens.tolist(), which, strict=True):
        order = [(next(noise), place) for place, is_drawn in enumerate(chosen) if is_drawn]
        order = sorted(one for one in order if row[one[1]] not in (PAD, *PROTECTED))
        for (_, left), (_, right) in zip(order[::2], order[1::2], strict=False):
            row[left], row[right] = row[right], row[left]
        out.append(row)
    return padded(out, tokens)


def with_values(
    tokens: Tensor, rate: float, values: Values, generator: torch.Generator
) -> list[list[int | None]]:
    """Return a value for each token that is drawn."""
    which = drawn(tokens, rate, generator)
    stream: Iterator[int] = iter(values(sum(map(sum, which)), generator).tolist())
    return [[next(stream) if is_drawn else None for is_drawn in row] for row in which]


def replace(tokens: Tensor, rate: float, values: Values, generator: torch.Generator) -> Tensor:
    new = with_values(tokens, rate, values, generator)
    out = [
        [t if v is None or t in PROTECTED else v for t, v in zip(row, its, strict=False)]
        for row, its in zip(rows(tokens), new, strict=True)
    ]
    return padded(out, tokens)


def insert(tokens: Tensor, rate: float, values: Values, generator: torch.Generator) -> Tensor:
    new, out = with_values(tokens, rate, values, generator), []
    phases = torch.rand(len(tokens), generator=generator).tolist()
    for row, its, phase in zip(rows(tokens), new, phases, strict=True):
        places = [i for i, t in enumerate(row) if t not in PROTECTED and its[i] is not None]
        many, room = len(places), tokens.shape[1] - len(row)
        if many > room:
            # a ruler with `room` marks, laid over the insertions
            marks = [(floor(phase * many) + room * i) // many for i in range(many + 1)]
            places = [p for i, p in enumerate(places) if marks[i + 1] > marks[i]]
        edited: list[int] = []
        for place, token in enumerate(row):
            value = its[place]
            edited += [token] if place not in places or value is None else [token, value]
        out.append(edited)
    return padded(out, tokens)
