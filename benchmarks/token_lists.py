"""The edits as one writes them by hand: a loop over sequences as Python lists."""

import random
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

SPARED = {1, 2}

Edit = Callable[[list[int], random.Random], list[int]]


def delete(rate: float) -> Edit:
    def edit(row: list[int], rng: random.Random) -> list[int]:
        draw = rng.random
        kept = [t for t in row if t in SPARED or draw() >= rate]
        if len(kept) > 2 or len(row) <= 2:
            return kept
        return [row[0], rng.choice(row[1:-1]), row[-1]]

    return edit


def insert(rate: float, size: int, length: int) -> Edit:
    def edit(row: list[int], rng: random.Random) -> list[int]:
        draw = rng.random
        new: list[int] = []
        room = length - len(row)
        for token in row:
            new.append(token)
            if token not in SPARED and draw() < rate and room:
                new.append(3 + int(draw() * (size - 3)))
                room -= 1
        return new

    return edit


def replace(rate: float, size: int) -> Edit:
    def edit(row: list[int], rng: random.Random) -> list[int]:
        draw = rng.random
        return [
            3 + int(draw() * (size - 3)) if t not in SPARED and draw() < rate else t for t in row
        ]

    return edit


def swap(rate: float) -> Edit:
    def edit(row: list[int], rng: random.Random) -> list[int]:
        draw = rng.random
        drawn = [i for i, t in enumerate(row) if t not in SPARED and draw() < rate]
        rng.shuffle(drawn)
        new = row[:]
        for left, right in zip(drawn[::2], drawn[1::2], strict=False):
            new[left], new[right] = new[right], new[left]
        return new

    return edit


def crop(keep: float) -> Edit:
    def edit(row: list[int], rng: random.Random) -> list[int]:
        free = len(row) - 2
        size = max(round(keep * free), 1)
        begin = 1 + rng.randrange(free - size + 1)
        return [row[0], *row[begin : begin + size], row[-1]]

    return edit


def edited(tokens: Tensor, edits: Sequence[Edit], rng: random.Random) -> Tensor:
    """Return the edited batch."""
    length = tokens.shape[1]
    rows = []
    for row, size in zip(tokens.tolist(), (tokens != 0).sum(1).tolist(), strict=True):
        new = row[:size]
        for edit in edits:
            new = edit(new, rng)
        rows.append(new + [0] * (length - len(new)))
    return torch.tensor(rows)
