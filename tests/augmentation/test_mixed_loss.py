from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_dlopt import MixedLabels, mixed_cross_entropy, soften
from lightning_dlopt.augmentation.mixed_loss import CatchMixedLabels
from lightning_dlopt.augmentation.mixture import looks_mixed
from lightning_dlopt.core.errors import ConflictError

torch.manual_seed(0)
LOGITS = torch.randn(8, 5)
FIRST, SECOND = torch.randint(5, (8,)), torch.randint(5, (8,))
SHARES = torch.linspace(0.5, 1, 8)
WEIGHT = torch.rand(5) + 0.5
OPTIONS: list[dict[str, Any]] = [
    {},
    {"weight": WEIGHT},
    {"ignore_index": 2},
    {"label_smoothing": 0.3},
    {"weight": WEIGHT, "ignore_index": 1, "label_smoothing": 0.2},
]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("inner", [(), (3,), (2, 3)])
def test_of_one_share_it_is_the_mixture_of_the_two(
    options: dict[str, Any], reduction: str, inner: tuple[int, ...]
) -> None:
    logits, a = torch.randn(8, 5, *inner), torch.randint(5, (8, *inner))
    b = a.roll(3, 0)
    options = {**options, "reduction": reduction}
    labels = MixedLabels(a, b, torch.full((8,), 0.7))
    one, two = (functional.cross_entropy(logits, y, **options) for y in (a, b))
    torch.testing.assert_close(
        mixed_cross_entropy(logits, labels, **options), 0.7 * one + 0.3 * two
    )


@pytest.mark.parametrize("options", OPTIONS)
def test_of_shares_for_each_it_is_a_loop(options: dict[str, Any]) -> None:
    ignored, weight = options.get("ignore_index"), options.get("weight", torch.ones(5))
    total = torch.zeros(())
    whole = sum(weight[y] for y in [*FIRST, *SECOND] if int(y) != ignored) / 2
    for labels, shares in ((FIRST, SHARES), (SECOND, 1 - SHARES)):
        for x, y, share in zip(LOGITS, labels, shares, strict=True):
            value = functional.cross_entropy(x, y, reduction="sum", **options)
            total = total + share * value / whole
    found = mixed_cross_entropy(LOGITS, MixedLabels(FIRST, SECOND, SHARES), **options)
    torch.testing.assert_close(found, total)


@pytest.mark.parametrize("options", OPTIONS)
def test_it_does_not_matter_which_label_comes_first(options: dict[str, Any]) -> None:
    swapped = torch.tensor([True, False] * 4)
    found = [
        mixed_cross_entropy(LOGITS, MixedLabels(a, b, share), **options)
        for a, b, share in (
            (FIRST, SECOND, SHARES),
            (
                torch.where(swapped, SECOND, FIRST),
                torch.where(swapped, FIRST, SECOND),
                torch.where(swapped, 1 - SHARES, SHARES),
            ),
        )
    ]
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_of_one_label_it_is_the_cross_entropy(options: dict[str, Any], reduction: str) -> None:
    options = {**options, "reduction": reduction}
    for kind in (torch.int64, torch.uint8):
        label = FIRST.to(kind)
        found = mixed_cross_entropy(LOGITS, MixedLabels(label, label, SHARES), **options)
        torch.testing.assert_close(found, functional.cross_entropy(LOGITS, FIRST, **options))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_a_part_in_which_nothing_counts_adds_nothing(smoothing: float) -> None:
    own = torch.tensor([-100, 3])
    shares = torch.tensor([0.6, 0.6])
    labels = MixedLabels(torch.full((2,), -100), torch.tensor([3, 3]), shares)
    found = mixed_cross_entropy(LOGITS[:2], labels, label_smoothing=smoothing)
    values = [functional.cross_entropy(x, own[1], label_smoothing=smoothing) for x in LOGITS[:2]]
    torch.testing.assert_close(found, 0.4 * (values[0] + values[1]))
    weight = torch.tensor([0.0, 0, 0, 1, 1])
    labels = MixedLabels(torch.tensor([0, 1]), torch.tensor([3, 3]), shares)
    found = mixed_cross_entropy(LOGITS[:2], labels, weight=weight)
    expected = 0.4 * functional.cross_entropy(LOGITS[:2], torch.tensor([3, 3]), reduction="sum")
    torch.testing.assert_close(found, expected)


def test_a_byte_156_is_a_class() -> None:
    logits, label = torch.randn(2, 200), torch.tensor([156, 3], dtype=torch.uint8)
    found = mixed_cross_entropy(logits, MixedLabels(label, label, torch.ones(2)))
    torch.testing.assert_close(found, functional.cross_entropy(logits, label.long()))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_it_is_the_cross_entropy_of_soft_labels(smoothing: float) -> None:
    labels = MixedLabels(FIRST, SECOND, SHARES)
    expected = functional.cross_entropy(LOGITS, soften(labels, 5), label_smoothing=smoothing)
    found = mixed_cross_entropy(LOGITS, labels, label_smoothing=smoothing)
    torch.testing.assert_close(found, expected)
    soft = MixedLabels(*(functional.one_hot(y, 5).float() for y in (FIRST, SECOND)), SHARES)
    torch.testing.assert_close(
        mixed_cross_entropy(LOGITS, soft, label_smoothing=smoothing), expected
    )


def caught(target: Tensor, logits: Tensor = LOGITS, first: Tensor = FIRST) -> bool:
    labels = MixedLabels(first, SECOND.reshape(first.shape), SHARES[: len(first)])
    logits = logits.clone().requires_grad_()
    with CatchMixedLabels(labels, "MixUp") as catcher:
        loss = nn.CrossEntropyLoss()(logits, target)
    share = (1.0 * catcher._labels.share).reshape(-1, *(1,) * (first.dim() - 1)).expand_as(first)
    flat = MixedLabels(first.reshape(-1).long(), SECOND, share.reshape(-1))
    if catcher.mixed:
        torch.testing.assert_close(loss, mixed_cross_entropy(logits, flat))
    else:
        torch.testing.assert_close(loss, functional.cross_entropy(logits, target))
    return bool(catcher.mixed)


def test_labels_are_known_in_other_types_and_shapes() -> None:
    assert caught(FIRST)
    assert caught(FIRST.clone())
    assert caught(FIRST.to(torch.uint8), first=FIRST.int())
    assert caught(FIRST, first=FIRST[:, None])
    assert caught(FIRST, first=FIRST.reshape(4, 2))


def test_other_targets_are_left_alone() -> None:
    assert not caught((FIRST + 1) % 5)
    assert not caught(FIRST[:4], LOGITS[:4])
    assert not caught(functional.one_hot(FIRST, 5).float())


@pytest.mark.parametrize("ours_first", [True, False])
def test_a_module_that_mixes_is_refused(ours_first: bool) -> None:
    logits = LOGITS.clone().requires_grad_()
    before, after = [FIRST, FIRST.roll(1)][:: 1 if ours_first else -1]
    catcher = CatchMixedLabels(MixedLabels(FIRST, SECOND, SHARES), "MixUp")
    with catcher:
        functional.cross_entropy(logits, before)
    with catcher, pytest.raises(ConflictError, match="mixes the labels itself"):
        functional.cross_entropy(logits, after)
    with catcher, pytest.raises(ConflictError, match="mixes the labels itself"):
        functional.cross_entropy(logits, soften(MixedLabels(FIRST, FIRST.roll(1), SHARES), 5))


def test_which_probabilities_look_mixed() -> None:
    one_hot = functional.one_hot(FIRST, 5).float()
    mixed = 0.3 * one_hot + 0.7 * one_hot.roll(1, 0)
    assert looks_mixed(mixed)
    assert looks_mixed(0.9 * mixed + 0.1 / 5)
    others = [one_hot, 0.9 * one_hot + 0.1 / 5, LOGITS.softmax(1), LOGITS, mixed * 2, one_hot[:0]]
    assert not any(looks_mixed(other) for other in others)


def test_soft_labels_of_what_is_no_class_are_refused() -> None:
    labels = MixedLabels(torch.tensor([0, -100]), torch.tensor([0, 1]), torch.ones(2))
    with pytest.raises(ValueError, match=r"from -100 to 0 don't all lie in 0 to num_classes=5"):
        soften(labels, 5)
    with pytest.raises(ValueError, match="num_classes="):
        soften(labels)
