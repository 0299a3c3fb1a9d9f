"""What a preview takes from data of other people."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_dlopt import MixUp, RandomErase
from lightning_dlopt.cli.first_batch import Preview, image_rows
from tests.cli.augmented import Shuffles

NUMBERS = torch.arange(64)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("transformed", [False, True])
def test_all_rows_are_of_the_same_samples(own: bool, transformed: bool) -> None:
    data = Shuffles(NUMBERS, own, transformed)
    preview = Preview(data, [RandomErase(1.0, area=(0.1, 0.3), value=99.0)])
    plain, target = preview.original()
    assert torch.equal(plain[:, 0, 0, 0].long(), target)
    rounds = [preview.trained(draws)[0] for draws in range(3)]
    for images, labels in rounds:
        assert torch.equal(labels, target)
        kept = images != 99
        assert torch.equal(images[kept], (-plain if transformed else plain)[kept])
    assert not torch.equal(rounds[0][0], rounds[1][0]), "with other draws"
    labels = [row.labels for row in image_rows(preview, 5, 2)]
    assert labels == [[str(int(label)) for label in target[:5]]] * 3


@pytest.mark.parametrize("own", [False, True])
def test_the_generators_stay_where_they_are(own: bool) -> None:
    data = Shuffles(NUMBERS, own)
    before = torch.get_rng_state()
    target = Preview(data, [RandomErase(1.0)]).original()[1]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(Preview(data, [RandomErase(1.0)]).original()[1], target)


def test_values_of_a_regression_are_shown_and_their_mixtures() -> None:
    preview = Preview(Shuffles(NUMBERS / 7), [MixUp(1.0)])
    original, mixed = image_rows(preview, 8, 1)
    plain, (images, target) = preview.original(), preview.trained()[0]
    assert original.labels == [f"{value:.3g}" for value in plain[1].tolist()]
    assert mixed.labels == [f"{value:.3g}" for value in target.tolist()]
    assert mixed.labels != original.labels
    # a sample's image holds its number, so the mixture's does, too
    torch.testing.assert_close(images[:, 0, 0, 0] / 7, target)


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (torch.tensor([[0.5123], [2.0]]), ["0.512", "2"]),
        (torch.tensor([-12345.6, 0.0]), ["-12346", "0"]),
        (torch.tensor([[0.5, -1.25], [3.0, 0.0]]), ["0.5, -1.25", "3, 0"]),
        (torch.tensor([[0.25, 0.75], [1.0, 0.0]]), ["1 \u00b7 0.75 + 0 \u00b7 0.25", "0"]),
        (torch.tensor([[3], [1]]), ["3", "1"]),
        (torch.tensor([[4, 9], [1, 0]]), ["4, 9", "1, 0"]),
        (torch.zeros(2, 4, 4), []),
    ],
)
def test_targets_as_text(target: Tensor, text: list[str]) -> None:
    batch: Any = torch.zeros(2, 1, 4, 4), target
    assert Preview(None, []).labels_of(batch) == text
