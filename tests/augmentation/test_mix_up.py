from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torchvision.transforms import v2

from lightning_dlopt import MixUp, draw_shares, draw_shift, keyed_generator, mix_up


@pytest.mark.parametrize("alpha", [0.2, 0.5, 1.0, 3.0, 1000.0])
def test_shares_have_the_beta_distribution(alpha: float) -> None:
    shares = draw_shares(20_000, alpha, keyed_generator(1)).numpy()
    assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > 0.01


@pytest.mark.parametrize("alpha", [0.01, 0.05])
def test_shares_next_to_0_and_1_are_as_frequent(alpha: float) -> None:
    # much of it lies within the rounding of 1, so by bins
    edges = np.array([0, 1e-6, 0.01, 0.1, 0.5, 0.9, 0.99, 1 - 1e-6, 1])
    found = np.histogram(draw_shares(20_000, alpha, keyed_generator(1)).numpy(), edges)[0]
    expected = 20_000 * np.diff(stats.beta(alpha, alpha).cdf(edges))
    assert stats.chisquare(found, expected).pvalue > 0.01


@pytest.mark.parametrize("alpha", [0.0, 1e-12, 1e-3, 0.01, 1e3, 1e9])
def test_shares_are_numbers_for_any_alpha(alpha: float) -> None:
    shares = draw_shares(50_000, alpha, keyed_generator(2))
    assert shares.isfinite().all()
    assert ((shares >= 0) & (shares <= 1)).all()
    if 0 < alpha < 1e-2:  # half of them at either end
        assert abs(float(shares.mean()) - 0.5) < 0.01


def test_a_partner_is_any_other_sample() -> None:
    generator = keyed_generator(3)
    drawn = [draw_shift(5, generator) for _ in range(4000)]
    counts = np.bincount(drawn, minlength=5)
    assert counts[0] == 0
    assert stats.chisquare(counts[1:]).pvalue > 0.01
    assert draw_shift(1, generator) == draw_shift(0, generator) == 0


@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(7,), (7, 4), (7, 3, 6, 5)])
@pytest.mark.parametrize("shift", [0, 1, 3, 6])
def test_mixed_as_by_a_loop(kind: torch.dtype, shape: tuple[int, ...], shift: int) -> None:
    x = torch.randn(shape, generator=keyed_generator(4)).to(kind)
    before, share = x.clone(), draw_shares(7, 1.0, keyed_generator(5))
    mixed = mix_up(x, share, shift)
    rows = [float(s) * x[i].double() for i, s in enumerate(share)]
    others = [(1 - float(s)) * x[(i + shift) % 7].double() for i, s in enumerate(share)]
    expected = torch.stack([row + other for row, other in zip(rows, others, strict=True)])
    assert mixed.dtype == kind
    assert torch.equal(x, before)
    torch.testing.assert_close(mixed, expected.to(kind))


def test_one_share_and_a_shift_back_are_torchvisions(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = torch.rand(6, 3, 5, 4), torch.arange(6)
    transform = v2.MixUp(num_classes=6)
    monkeypatch.setattr(
        transform,
        "make_params",
        lambda _: {"labels": labels, "batch_size": 6, "num_classes": 6, "lam": 0.7},
    )
    expected, _ = transform(images, labels)
    torch.testing.assert_close(mix_up(images, torch.full((6,), 0.7), shift=5), expected)


def test_bytes_are_rounded_and_the_memory_format_is_kept() -> None:
    images = torch.randint(256, (6, 3, 5, 4), generator=keyed_generator(6)).to(torch.uint8)
    images = images.to(memory_format=torch.channels_last)
    share = torch.linspace(0, 1, 6)
    mixed = mix_up(images, share, 2)
    expected = mix_up(images.double(), share, 2).round()
    assert mixed.dtype == torch.uint8
    assert mixed.is_contiguous(memory_format=torch.channels_last)
    assert (mixed.double() - expected).abs().max() <= 1
    assert (mixed.double() == expected).double().mean() > 0.99
    assert torch.equal(mixed[5], images[5])


def test_gradients_flow_through_both_samples() -> None:
    x = torch.ones(2, 3, requires_grad=True)
    mix_up(x, torch.tensor([0.75, 0.5]), 1).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, torch.tensor([[1.25], [0.75]]).expand(2, 3))


def test_small_batches() -> None:
    assert mix_up(torch.ones(0, 2), torch.ones(0), 0).shape == (0, 2)
    for batch in (
        (torch.rand(1, 2), torch.tensor([3])),
        (torch.rand(0, 2), torch.tensor([]).long()),
    ):
        x, y = MixUp(1.0).change(batch, keyed_generator(0))
        assert torch.equal(x, batch[0])
        assert torch.equal(y, batch[1])


@pytest.mark.parametrize(
    "make", [lambda: torch.zeros(2, 3).long(), lambda: torch.zeros(2, 3, dtype=torch.uint8)]
)
def test_tokens_are_refused(make: Any) -> None:
    with pytest.raises(TypeError, match="Tokens have no mean"):
        mix_up(make(), torch.ones(2), 1)


def test_the_label_of_the_larger_share_is_each_samples_own() -> None:
    batch = torch.eye(8), torch.arange(8)
    mixed, labels = MixUp(1.0).change(batch, keyed_generator(7))
    assert torch.equal(labels, batch[1])
    assert torch.equal(mixed.argmax(1), labels)
    shares = MixUp(1.0).label_shares(batch, keyed_generator(7))
    assert shares is not None
    rows: list[Tensor] = [torch.zeros(8) for _ in shares]
    for row, share in zip(rows, shares, strict=True):
        for label, part in share.items():
            row[label] = part
    torch.testing.assert_close(torch.stack(rows), mixed)
