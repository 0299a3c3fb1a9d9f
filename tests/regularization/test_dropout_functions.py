"""The functions under scheduled dropout, against torch's own layers."""

from typing import Any

import pytest
import torch
from torch import nn

from lightning_dlopt.regularization import alpha_dropout, dropout, dropout_rate
from lightning_dlopt.regularization.scheduled_dropout import drop

LAYERS: list[tuple[type[nn.Module], tuple[int, ...]]] = [
    (nn.Dropout, (7,)),
    (nn.Dropout, (4, 5, 6)),
    (nn.Dropout1d, (4, 5, 6)),
    (nn.Dropout1d, (5, 6)),
    (nn.Dropout2d, (4, 5, 6, 7)),
    (nn.Dropout2d, (4, 5, 6)),
    (nn.Dropout3d, (2, 4, 5, 6, 7)),
    (nn.Dropout3d, (4, 5, 6, 7)),
    (nn.AlphaDropout, (4, 5)),
    (nn.FeatureAlphaDropout, (4, 5, 6)),
]


@pytest.mark.filterwarnings("ignore:dropout2d. Received a 3-D input")
@pytest.mark.parametrize("p", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize(("kind", "shape"), LAYERS)
def test_every_layer_is_torchs_with_another_generator(
    kind: Any, shape: tuple[int, ...], p: float
) -> None:
    x, layer = torch.randn(shape), kind(p)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        theirs = layer(x)
        before = torch.get_rng_state()
        ours = drop(layer, x, torch.Generator().manual_seed(3))
        assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_dtype_stays(dtype: torch.dtype) -> None:
    x = torch.ones(1000, dtype=dtype)
    for function in (dropout, alpha_dropout):
        out = function(x, 0.25, torch.Generator().manual_seed(0))
        assert out.dtype == dtype
        assert out.unique().numel() == 2


def test_in_place() -> None:
    x = torch.ones(100)
    assert dropout(x, 0.5, torch.Generator().manual_seed(0), inplace=True) is x
    assert 30 < int((x == 0).sum()) < 70


def test_alpha_dropout_keeps_mean_and_variance() -> None:
    x = torch.randn(100_000, generator=torch.Generator().manual_seed(1))
    out = alpha_dropout(x, 0.3, torch.Generator().manual_seed(0))
    assert float(out.mean()) == pytest.approx(0, abs=0.02)
    assert float(out.std()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("function", [dropout, alpha_dropout])
@pytest.mark.parametrize("p", [-0.1, 1.1, "x"])
def test_the_functions_check_their_rate(function: Any, p: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=rf"{function.__name__}: p="):
        function(torch.ones(2), p)


def test_dropout_rate() -> None:
    assert [dropout_rate(k, 4, 0.4, 0.0) for k in range(6)] == pytest.approx(
        [0.4, 0.3, 0.2, 0.1, 0, 0]
    )
    assert dropout_rate(0, 0, 0.1, 0.3) == 0.3
