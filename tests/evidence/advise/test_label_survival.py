"""Whether labels survive a transform, from predictions alone."""

import pytest
import torch

from lightning_dlopt.evidence.advise.label_survival import judge_labels


def draw(rows: list[list[float]], each: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return predictions whose rows of the confusion matrix are ``rows``, and the targets."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(len(rows)).repeat_interleave(each)
    chances = torch.tensor(rows)[targets]
    return torch.multinomial(chances, 1, generator=generator)[:, 0], targets


def test_accuracies_and_what_is_kept_by_hand() -> None:
    targets = torch.tensor([0] * 4 + [1] * 4 + [-100])
    plain = torch.tensor([0, 0, 0, 0, 1, 1, 1, 0, 0])
    changed = torch.tensor([0, 0, 0, 1, 1, 1, 1, 0, 0])
    found = judge_labels(plain, changed, targets, 2)
    assert found.plain == 7 / 8
    assert found.changed == 6 / 8
    assert found.kept == pytest.approx((6 / 8 - 1 / 2) / (7 / 8 - 1 / 2))


def test_swapped_classes_are_a_cycle() -> None:
    targets = torch.arange(4).repeat(10)
    mirrored = torch.tensor([1, 0, 2, 3]).repeat(10)
    assert judge_labels(targets, mirrored, targets, 4).cycles == [[0, 1]]
    turned = torch.tensor([1, 2, 3, 0]).repeat(10)
    assert judge_labels(targets, turned, targets, 4).cycles == [[0, 1, 2, 3]]


def test_a_model_that_is_often_wrong_still_shows_it() -> None:
    plain, targets = draw([[0.8, 0.2], [0.2, 0.8]], 50)
    changed, _ = draw([[0.25, 0.75], [0.2, 0.8][::-1]], 50, seed=1)
    assert judge_labels(plain, changed, targets, 2).cycles == [[0, 1]]


@pytest.mark.parametrize("seed", range(20))
def test_guessing_is_no_cycle(seed: int) -> None:
    # what it never saw it calls something, whatever the class
    plain, targets = draw([[0.9, 0.1, 0], [0, 0.9, 0.1], [0.1, 0, 0.9]], 30, seed)
    everything_alike = [[0.45, 0.45, 0.1]] * 3
    changed, _ = draw(everything_alike, 30, seed + 100)
    found = judge_labels(plain, changed, targets, 3)
    assert found.cycles == []
    assert found.kept < 0.4


@pytest.mark.parametrize("seed", range(20))
def test_confusion_that_was_there_before_is_no_cycle(seed: int) -> None:
    plain, targets = draw([[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1.0]], 30, seed)
    changed, _ = draw([[0.4, 0.6, 0], [0.6, 0.4, 0], [0, 0, 1.0]], 30, seed + 100)
    assert judge_labels(plain, changed, targets, 3).cycles == []


def test_one_way_is_no_cycle() -> None:
    targets = torch.arange(3).repeat(20)
    bags = torch.tensor([2, 1, 2]).repeat(20)  # shoes upside down look like bags
    assert judge_labels(targets, bags, targets, 3).cycles == []


def test_a_few_samples_show_nothing() -> None:
    targets = torch.arange(2).repeat(4)
    assert judge_labels(targets, 1 - targets, targets, 2).cycles == []
    targets = torch.arange(2).repeat(5)
    assert judge_labels(targets, 1 - targets, targets, 2).cycles == [[0, 1]]


def test_a_model_that_has_learned_nothing_keeps_nothing() -> None:
    targets = torch.arange(2).repeat(10)
    nothing = torch.zeros_like(targets)
    assert judge_labels(nothing, nothing, targets, 2).kept == 0.0
    none = torch.zeros(0, dtype=torch.long)
    assert judge_labels(none, none, none, 2).plain == 0.0
