"""The multilayer perceptron against a hand-written one."""

import pytest
import torch
from torch import nn

from lightning_dlopt.core import ArgumentError
from lightning_dlopt.structure import MLP


def test_the_source_example_network() -> None:
    network = MLP([784, 128, 128, 10])
    w1, b1, w2, b2, w3, b3 = network.parameters()
    images = torch.randn(5, 1, 28, 28)
    hidden = (images.reshape(5, 784) @ w1.T + b1).clamp(min=0)
    hidden = (hidden @ w2.T + b2).clamp(min=0)
    torch.testing.assert_close(network(images), hidden @ w3.T + b3)
    assert sum(p.numel() for p in network.parameters()) == 784 * 128 + 128 * 128 + 1280 + 266


def test_no_hidden_layer() -> None:
    assert MLP([4, 2])(torch.zeros(3, 4)).shape == (3, 2)


@pytest.mark.parametrize(("sizes", "named"), [([3], "at least"), ([3, 0], "0"), ([3, 1.5], "1.5")])
def test_bad_sizes(sizes: list[int], named: str) -> None:
    with pytest.raises((ValueError, TypeError), match=rf"MLP.*{named}"):
        MLP(sizes)


def test_dropout_follows_every_hidden_layer() -> None:
    rates = [layer.p for layer in MLP([4, 8, 8, 2], dropout=0.3) if isinstance(layer, nn.Dropout)]
    assert rates == [0.3, 0.3]
    assert list(MLP([4, 8, 2], dropout=0).state_dict()) == list(MLP([4, 8, 2]).state_dict())
    with pytest.raises(ArgumentError, match=r"dropout=1 is not in \[0, 1\)"):
        MLP([4, 2], dropout=1)
