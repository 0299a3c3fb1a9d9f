"""How many channels each group loses so that a module costs so much less."""

import heapq
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_dlopt.core.errors import ArgumentError
from lightning_dlopt.structure.channels.cost import Cost
from lightning_dlopt.structure.channels.dims import places
from lightning_dlopt.structure.channels.graph import Group, Width
from lightning_dlopt.structure.channels.widths import joined, named_tensors
from lightning_dlopt.structure.replacing import part_names

#: How far from the wanted cost is close enough.
TOLERANCE = 0.05


@dataclass
class Ladder:
    """A group's steps: at each, more of its channels are gone, the least important first."""

    group: Group
    rank: Tensor
    steps: list[int]
    widths: list[Counter[Width]]
    left: list[float]

    def mask(self, level: int) -> Tensor:
        """Return which channels are gone at a level."""
        return self.rank < self.steps[level]


def importances(module: nn.Module, group: Group, kind: str) -> Tensor:
    """Return how important each of a group's channels is.

    ``"magnitude"`` is the L2 norm of all weights that belong to the channel, in whatever layer;
    ``"taylor"`` the sum over the tensors of ``|sum of weight times gradient|``.
    """
    parts, tensors = part_names(module), named_tensors(module)
    scores = torch.zeros(len(group.units), dtype=torch.float64)

    def add(tensor: Tensor, dim: int, where: Tensor, roots: Tensor) -> None:
        if not isinstance(tensor, nn.Parameter):
            return
        values = tensor.detach().double()
        if kind == "magnitude":
            values = values.square()
        elif tensor.grad is None:
            raise ArgumentError(
                f"importance='taylor' needs the gradients of a backward pass, and a parameter of "
                f"{group.name!r} has none"
            )
        else:
            values = values * tensor.grad
        per_index = values.movedim(dim, 0).reshape(values.shape[dim], -1).sum(1).cpu()
        if kind == "taylor":
            per_index = per_index.abs()
        for row in where:
            scores.index_add_(0, roots, per_index[row])

    for (name, side), (index, roots) in group.sides.items():
        for tensor, dim, where in places(parts[name], side):
            add(tensors[joined(name, tensor)], dim, where[:, index], roots)
    for (name, dim), (index, roots) in group.alone.items():
        add(tensors[name], dim, index.unsqueeze(0), roots)
    return scores.sqrt() if kind == "magnitude" else scores


def ladder(group: Group, scores: Tensor, align: int, max_ratio: float) -> Ladder:
    """Return the steps by which a group may lose channels.

    Args:
        group: the channels.
        scores: how important each of them is.
        align: at each step but the first the number that is left is a multiple of it.
        max_ratio: the largest share that may go.
    """
    size = len(group.units)
    members, unit = torch.unique(group.units, return_inverse=True)
    per_unit = torch.zeros(len(members), dtype=scores.dtype).index_add_(0, unit, scores)
    order = torch.argsort(per_unit, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    rank = rank[unit]  # of each channel: how many units go before it
    gone_after = torch.bincount(rank, minlength=len(order)).cumsum(0)
    align *= group.align
    least = max(align, math.ceil(size * (1 - max_ratio)))
    steps = [0] + [k + 1 for k, gone in enumerate(gone_after.tolist()) if size - gone >= least]
    # layers behind a split have other widths than the first, and are to be aligned, too
    wholes = Counter({key: len(torch.unique(index)) for key, (index, _) in group.everywhere()})
    steps = [
        k
        for k, gone in zip(steps, _widths(group, rank, steps), strict=True)
        if all((wholes[key] - lost) % align == 0 for key, lost in gone.items())
    ]
    shares = per_unit[order].cumsum(0) / per_unit.sum().clamp(min=1e-30)
    left = [max(1 - float(shares[k - 1]), 1e-9) if k else 1.0 for k in steps]
    return Ladder(group, rank, steps, _widths(group, rank, steps), left)


def _widths(group: Group, rank: Tensor, steps: list[int]) -> list[Counter[Width]]:
    """Return how many channels of each layer's side are gone at each step."""
    widths: list[Counter[Width]] = [Counter() for _ in steps]
    for key, (index, roots) in group.everywhere():
        different, inverse = torch.unique(index, return_inverse=True)
        own_rank = torch.empty_like(different)
        own_rank[inverse] = rank[roots]
        gone_after = torch.bincount(own_rank, minlength=len(rank)).cumsum(0).tolist()
        for counter, k in zip(widths, steps, strict=True):
            if k and gone_after[k - 1]:
                counter[key] = gone_after[k - 1]
    return widths


class Search:
    """Goes down the ladders until the cost is what is wanted.

    Args:
        cost: what is to be reduced.
        ladders: the steps of each group.
        scope: which block goes next: of ``"layer"`` that of the group which then has lost the
            smallest share of its channels; of ``"global"`` that which takes the least of its
            group's remaining importance (as a logarithm, so that no group is emptied while others
            stay full) for what it saves.
    """

    def __init__(self, cost: Cost, ladders: Sequence[Ladder], scope: str) -> None:
        self.cost, self.ladders, self.scope = cost, ladders, scope
        self.levels = [0] * len(ladders)
        self.gone: Counter[Width] = Counter()
        self.full = self.now = cost.total(self.gone)

    def least(self) -> list[int]:
        """Return the levels at which nothing more can go."""
        return [len(ladder.steps) - 1 for ladder in self.ladders]

    def to(self, target: float) -> None:
        """Go down until the cost is within the tolerance of ``target``, or as close as it gets."""
        self._set([0] * len(self.ladders))
        heap = [
            (price, i) for i in range(len(self.ladders)) if (price := self._price(i)) < math.inf
        ]
        heapq.heapify(heap)
        while heap and self.now > target:
            price, i = heapq.heappop(heap)
            # what others lost since has only made this one save less
            if (now := self._price(i)) > price * (1 + 1e-9) and heap and now > heap[0][0]:
                heapq.heappush(heap, (now, i))
                continue
            if self._cost_after([(i, 1)]) < target * (1 - TOLERANCE / 2):
                # too large a block for what is left to save
                if self.scope == "layer":
                    break  # smaller ones of other groups alone would make the shares unequal
                continue
            self._move(i, 1)
            if (now := self._price(i)) < math.inf:
                heapq.heappush(heap, (now, i))
        self._mend(target)

    def masks(self) -> list[tuple[Group, Tensor]]:
        """Return what each group that loses anything loses."""
        return [
            (ladder.group, ladder.mask(level))
            for ladder, level in zip(self.ladders, self.levels, strict=True)
            if level
        ]

    def _mend(self, target: float) -> None:
        """Give back and take single blocks, or one of each, while that comes closer."""
        while abs(self._off(target)) > TOLERANCE / 4:
            moves = [(i, d) for i in range(len(self.ladders)) for d in (1, -1) if self._can(i, d)]
            costs = {move: self._cost_after([move]) for move in moves}
            best = min(costs, key=lambda m: abs(math.log(costs[m] / target)), default=None)
            chosen = [best] if best is not None else []
            if best is None or abs(math.log(costs[best] / target)) >= abs(self._off(target)):
                chosen = self._pair(target, costs)
            if not chosen:
                return
            for i, direction in chosen:
                self._move(i, direction)

    def _pair(self, target: float, costs: dict[tuple[int, int], float]) -> list[tuple[int, int]]:
        down = sorted((value - self.now, i) for (i, d), value in costs.items() if d == 1)
        best, chosen = abs(self._off(target)), []
        for (i, d), value in costs.items():
            if d == 1:
                continue
            # by how much the other has to lower the cost
            wanted = target - value
            near = sorted((abs(change - wanted), j) for change, j in down if j != i)[:3]
            for _, j in near:
                off = abs(math.log(self._cost_after([(i, -1), (j, 1)]) / target))
                if off < best:
                    best, chosen = off, [(i, -1), (j, 1)]
        return chosen

    def _off(self, target: float) -> float:
        return math.log(self.now / target)

    def _can(self, i: int, direction: int) -> bool:
        return 0 <= self.levels[i] + direction < len(self.ladders[i].steps)

    def _cost_after(self, moves: list[tuple[int, int]]) -> float:
        before, now = list(self.levels), self.now
        gone = self.gone.copy()
        for i, direction in moves:
            self._move(i, direction)
        after = self.now
        self.levels, self.now, self.gone = before, now, gone
        return after

    def _move(self, i: int, direction: int) -> None:
        ladder, level = self.ladders[i], self.levels[i]
        low, high = sorted((level, level + direction))
        more = ladder.widths[high] - ladder.widths[low]
        if direction < 0:
            self.gone -= more
            self.now += self.cost.saving(self.gone, more)
        else:
            self.now -= self.cost.saving(self.gone, more)
            self.gone += more
        self.levels[i] += direction

    def _set(self, levels: list[int]) -> None:
        self.levels = levels
        self.gone = Counter()
        for ladder, level in zip(self.ladders, levels, strict=True):
            self.gone += ladder.widths[level]
        self.now = self.cost.total(self.gone)

    def to_least(self) -> None:
        """Remove all that may go."""
        self._set(self.least())

    def _price(self, i: int) -> float:
        if not self._can(i, 1):
            return math.inf
        ladder, level = self.ladders[i], self.levels[i]
        saved = self.cost.saving(self.gone, ladder.widths[level + 1] - ladder.widths[level])
        if saved <= 1e-12 * self.full:
            return math.inf
        if self.scope == "layer":
            return float(ladder.mask(level + 1).float().mean())
        return math.log(ladder.left[level] / ladder.left[level + 1]) / saved
