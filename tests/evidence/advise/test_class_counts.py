"""Classes that are counted, and those found rare."""

from collections import Counter

import pytest
import torch
from scipy import stats

from lightning_dlopt.core.errors import ArgumentError
from lightning_dlopt.evidence.advise.class_counts import add_counts, find_imbalance, hard_targets


def test_counts_are_those_of_a_counter() -> None:
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randint(7, (13,), generator=generator) for _ in range(20)]
    counts = torch.zeros(0, dtype=torch.long)
    for batch in batches:
        counts = add_counts(counts, batch)
    expected = Counter(int(value) for batch in batches for value in batch)
    assert {index: int(count) for index, count in enumerate(counts)} == expected


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (torch.tensor([2, 0], dtype=torch.uint8), [2, 0]),
        (torch.tensor([[3], [1]]), [3, 1]),
        (torch.tensor([True, False]), [1, 0]),
        (torch.tensor([0.0, 1.0]), [0, 1]),
        (torch.tensor([[0.2, 0.8], [0.6, 0.4]]), [1, 0]),
        (torch.tensor([0.5, 1.0]), None),  # a regression
        (torch.tensor([[1.0, 1.0], [0.0, 1.0]]), None),  # several labels a sample
        (torch.tensor([[1, 0, 1], [0, 1, 1]]), None),
        (torch.zeros(2, 4, 4, dtype=torch.long), None),  # a segmentation
        (torch.tensor([1_700_000_000, 3]), None),  # times, or other numbers
    ],
)
def test_which_targets_are_classes(targets: torch.Tensor, expected: list[int] | None) -> None:
    found = hard_targets(targets)
    assert (None if found is None else found.tolist()) == expected


def test_a_rare_class_among_fifty_is_found() -> None:
    counts = torch.full((50,), 100)
    counts[17] = 9
    assert find_imbalance(counts).rare == [17]
    counts[17] = 21  # a fifth is the limit
    assert find_imbalance(counts).rare == []


def test_the_rarest_comes_first_and_missing_ones_are_rare() -> None:
    assert find_imbalance(torch.tensor([100, 5, 0, 100, 100])).rare == [2, 1]


def test_a_dominant_class() -> None:
    found = find_imbalance(torch.tensor([900, 20, 30, 25, 25]))
    assert found.dominant == 0
    assert found.rare == []
    assert find_imbalance(torch.tensor([60, 40])).dominant is None
    assert find_imbalance(torch.tensor([1000, 20])).rare == [1]


def test_a_part_of_a_balanced_set_gives_no_alarm() -> None:
    generator = torch.Generator().manual_seed(5)
    alarms = 0
    for _ in range(300):
        sample = torch.randint(20, (64,), generator=generator)
        counts = torch.bincount(sample, minlength=20)
        alarms += bool(find_imbalance(counts, complete=False).rare)
    assert alarms == 0
    assert find_imbalance(counts).rare != []  # as the whole set it would be one


def test_the_chance_is_that_of_poisson() -> None:
    # the median is 40; of 20 expected so few are seen once in so many parts
    for count in range(8):
        counts = torch.tensor([40] * 9 + [count])
        chance = stats.poisson.cdf(count, 20) * 10
        expected = [9] if chance < 1e-3 and count * 5 < 40 else []
        assert find_imbalance(counts, complete=False).rare == expected
    assert stats.poisson.cdf(3, 20) * 10 < 1e-3 < stats.poisson.cdf(7, 20) * 10


def test_one_class_alone_is_not_out_of_proportion() -> None:
    assert find_imbalance(torch.tensor([7])).rare == []
    assert find_imbalance(torch.tensor([7])).dominant is None


def test_a_factor_that_makes_no_sense() -> None:
    with pytest.raises(ArgumentError, match="factor=1"):
        find_imbalance(torch.tensor([1, 2]), factor=1)
