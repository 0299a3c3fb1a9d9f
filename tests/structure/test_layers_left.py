"""Layers that can't be changed are told, whatever keeps them from it."""

import pytest
from torch import nn
from torch.nn.utils import parametrizations

from lightning_dlopt import NoEffectWarning, blur_pool, low_rank, standardize_weights


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(16, 32, 3, stride=2), nn.Flatten(), nn.Linear(32, 32), nn.Linear(32, 32)
    )


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (standardize_weights, "StandardizedConv2d"),
        (blur_pool, "BlurredConv2d"),
        (lambda net: parametrizations.weight_norm(net[0]), "ParametrizedConv2d"),
    ],
)
def test_low_rank_tells_which_classes_it_leaves(change: object, kind: str) -> None:
    net = network()
    assert callable(change)
    change(net)
    with pytest.warns(UserWarning, match=rf"leaves as they are: 0 \(its class is {kind}\)$"):
        ranks = low_rank(net)
    assert list(ranks) == ["2", "3"]


def test_low_rank_tells_of_lazy_layers() -> None:
    net = nn.Sequential(nn.Linear(32, 32), nn.LazyLinear(32))
    with pytest.warns(UserWarning, match=r"1 \(its class is LazyLinear\)"):
        assert list(low_rank(net)) == ["0"]


def test_blur_pool_tells_of_lazy_layers() -> None:
    net = nn.Sequential(nn.LazyConv2d(32, 3, stride=2), nn.MaxPool2d(2))
    with pytest.warns(NoEffectWarning, match=r"0 \(LazyConv2d\)"):
        assert blur_pool(net) == ["1"]
