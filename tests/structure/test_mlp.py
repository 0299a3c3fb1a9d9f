"""The multilayer perceptron against a hand-written one."""

from typing import Any

import pytest
import torch

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


@pytest.mark.parametrize(
    ("sizes", "named"), [([3], "at least"), ([3, 0], "0"), ([3, 1.5], "1.5"), (5, "sizes=5 must")]
)
def test_bad_sizes(sizes: Any, named: str) -> None:
    with pytest.raises((ValueError, TypeError), match=rf"MLP.*{named}"):
        MLP(sizes)


def test_without_options_the_layers_are_those_they_were() -> None:
    plain = [type(layer).__name__ for layer in MLP([4, 3, 3, 2])]
    assert plain == ["Flatten", "Linear", "ReLU", "Linear", "ReLU", "Linear"]


def test_dropout_follows_every_hidden_layer() -> None:
    network = MLP([4, 3, 3, 2], dropout=0.25)
    assert [layer.p for layer in network if isinstance(layer, torch.nn.Dropout)] == [0.25] * 2
    torch.manual_seed(0)
    plain = MLP([4, 3, 3, 2])
    torch.manual_seed(0)
    x = torch.randn(5, 4)
    same = MLP([4, 3, 3, 2], dropout=0.25).eval()
    same.load_state_dict(dict(zip(same.state_dict(), plain.state_dict().values(), strict=True)))
    assert torch.equal(same(x), plain(x))


def test_residual_layers_add_to_their_input() -> None:
    network = MLP([4, 4, 3, 3, 2], residual=True)
    w1, b1, w2, b2, w3, b3, w4, b4 = network.parameters()
    x = torch.randn(5, 4)
    hidden = (x @ w1.T + b1).clamp(min=0)  # as wide as the data, but the first
    hidden = (hidden @ w2.T + b2).clamp(min=0)
    hidden = hidden + (hidden @ w3.T + b3).clamp(min=0)
    torch.testing.assert_close(network(x), hidden @ w4.T + b4)
    assert [name for name, _ in network.named_modules() if name.endswith("branch")] == ["5.branch"]


@pytest.mark.parametrize(
    "options", [{"dropout": 1.0}, {"dropout": True}, {"dropout": -0.1}, {"residual": 1}]
)
def test_bad_options(options: dict[str, float]) -> None:
    with pytest.raises((ValueError, TypeError), match=rf"MLP: {next(iter(options))}="):
        MLP([4, 3, 2], **options)
