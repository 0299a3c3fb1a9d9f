"""The residual network against hand-written layers, and over texts against single ones."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_dlopt.core.errors import ArgumentError
from lightning_dlopt.structure import ResNet9

TEXTS = [[5, 6, 7, 8, 9, 2, 2, 11, 3], [4], [3, 3, 2], [9, 8, 7, 6]]


def text_network() -> ResNet9:
    torch.manual_seed(0)
    network = ResNet9(vocab_size=20, num_classes=3, width=4, embedding_width=6)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm1d):  # so that padding wouldn't stay zero by itself
            nn.init.normal_(part.bias)
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 2.0)
    return network


def padded(length: int, texts: list[list[int]] = TEXTS) -> Tensor:
    return torch.tensor([text + [0] * (length - len(text)) for text in texts])


def by_hand(network: ResNet9, values: Tensor, real: Tensor | None = None) -> Tensor:
    """Return the logits from the parameters in their order; ``real`` is for batch statistics."""
    flat = values.dim() == 3
    convolve = functional.conv1d if flat else functional.conv2d
    shape = (1, -1, 1) if flat else (1, -1, 1, 1)
    parts = list(network.modules())
    convolutions = iter([p for p in parts if isinstance(p, (nn.Conv1d, nn.Conv2d))])
    norms = iter([p for p in parts if isinstance(p, (nn.BatchNorm1d, nn.BatchNorm2d))])

    def block(values: Tensor, real: Tensor | None) -> Tensor:
        values = convolve(values, next(convolutions).weight, padding=1)
        norm = next(norms)
        mean, variance = norm.running_mean, norm.running_var
        if network.training:
            chosen = values.transpose(0, 1).flatten(1)
            if real is not None:
                chosen = chosen[:, real.flatten()]
            mean, variance = chosen.mean(1), chosen.var(1, unbiased=False)
        values = (values - mean.view(shape)) / (variance.view(shape) + norm.eps).sqrt()
        values = (values * norm.weight.view(shape) + norm.bias.view(shape)).clamp(min=0)
        return values if real is None else values * real.unsqueeze(1)

    def pool(values: Tensor) -> Tensor:
        for dimension in range(2, values.dim()):
            length = values.shape[dimension]
            even, odd = (
                values.index_select(dimension, torch.arange(first, length, 2)) for first in (0, 1)
            )
            alone = even.narrow(dimension, odd.shape[dimension], length % 2)
            even = even.narrow(dimension, 0, odd.shape[dimension])
            values = torch.cat([torch.maximum(even, odd), alone], dimension)
        return values

    values = block(values, real)
    for residual in (True, False, True):
        values = pool(block(values, real))
        real = None if real is None else pool(real.unsqueeze(1)).squeeze(1)
        if residual:
            values = values + block(block(values, real), real)
    return network.output(values.flatten(2).max(2).values)


def test_it_has_the_parameters_of_the_published_network() -> None:
    # 6,573,120 without the linear layer's biases, which it has not there
    assert sum(p.numel() for p in ResNet9(3).parameters()) - 10 == 6_573_120
    layers = [p for p in ResNet9(3).modules() if isinstance(p, (nn.Conv2d, nn.Linear))]
    assert len(layers) == 9
    channels = [layer.out_channels for layer in layers[:-1]]
    assert channels == [64, 128, 128, 128, 256, 512, 512, 512]


@pytest.mark.parametrize("size", [(32, 32), (28, 28), (7, 30), (1, 1)])
@pytest.mark.parametrize("training", [True, False])
def test_images_of_any_size(size: tuple[int, int], training: bool) -> None:
    torch.manual_seed(0)
    network = ResNet9(3, 5, width=4).train(training)
    images = torch.rand(4, 3, *size)
    expected = by_hand(network, images)
    torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-5)
    network(images).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("length", [9, 10, 13, 24])
def test_padding_changes_nothing_in_evaluation(length: int) -> None:
    network = text_network().eval()
    alone = torch.cat([network(torch.tensor([text])) for text in TEXTS])
    hand = [
        by_hand(network, network.embedding(torch.tensor([text])).transpose(1, 2)) for text in TEXTS
    ]
    torch.testing.assert_close(alone, torch.cat(hand), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(network(padded(length)), alone, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("length", [9, 10, 13, 24])
def test_padding_changes_nothing_in_training(length: int) -> None:
    tokens, network = padded(length), text_network()
    values = network.embedding(tokens).transpose(1, 2)
    expected = by_hand(network, values, tokens != 0)
    torch.testing.assert_close(network(tokens), expected, rtol=1e-4, atol=1e-5)
    other = text_network()
    other(padded(9)).square().sum().backward()
    network = text_network()
    network(tokens).square().sum().backward()
    for (name, buffer), there in zip(network.named_buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(buffer, there, rtol=1e-5, atol=1e-6, msg=name)
    for (name, ours), theirs in zip(network.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("training", [True, False])
def test_texts_without_tokens(training: bool) -> None:
    network = text_network().train(training)
    logits = network(padded(9, [*TEXTS, []]))
    torch.testing.assert_close(logits[-1], network.output.bias)
    logits.sum().backward()
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)
    for batch, length in ((0, 5), (2, 0), (0, 0), (2, 3)):
        nothing = network(torch.zeros(batch, length, dtype=torch.int64))
        torch.testing.assert_close(nothing, network.output.bias.expand(batch, 3))


def test_a_single_token_is_normalized_with_the_running_statistics() -> None:
    network = text_network()
    evaluated = copy.deepcopy(network).eval()
    tokens = torch.tensor([[4]])
    torch.testing.assert_close(network(tokens), evaluated(tokens))
    assert all(part.training for part in network.modules())
    for (name, buffer), before in zip(network.named_buffers(), evaluated.buffers(), strict=True):
        assert torch.equal(buffer, before), name


def test_frozen_statistics_stay() -> None:
    network = text_network()
    for part in network.modules():
        if isinstance(part, nn.BatchNorm1d):
            part.eval()
    expected = copy.deepcopy(network).eval()(padded(9))
    torch.testing.assert_close(network(padded(9)), expected)
    assert not any(p.training for p in network.modules() if isinstance(p, nn.BatchNorm1d))


@pytest.mark.parametrize("text", [True, False])
def test_bfloat16_and_export(text: bool) -> None:
    network = text_network() if text else ResNet9(3, 3, width=4)
    inputs = padded(9) if text else torch.rand(4, 3, 16, 16)
    full = network(inputs)
    with torch.autocast("cpu", torch.bfloat16):
        half = network(inputs)
    torch.testing.assert_close(half.float(), full, rtol=0.2, atol=0.2)
    network.eval()
    sizes = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(network, (inputs,), dynamic_shapes=sizes)
    torch.testing.assert_close(
        program.module()(inputs[:3]), network(inputs[:3]), rtol=1e-5, atol=1e-6
    )


def test_dropout_draws_in_training_only() -> None:
    network = ResNet9(vocab_size=20, num_classes=3, width=4, dropout=0.5)
    assert not torch.equal(network(padded(9)), network(padded(9)))
    network.eval()
    assert torch.equal(network(padded(9)), network(padded(9)))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({}, "channels=None and vocab_size=None: exactly one"),
        ({"channels": 3, "vocab_size": 9}, "channels=3 and vocab_size=9: exactly one"),
        ({"channels": 0}, "channels=0"),
        ({"channels": 1, "width": 0}, "width=0"),
        ({"channels": 1, "num_classes": 0}, "num_classes=0"),
        ({"vocab_size": 1}, "vocab_size=1"),
        ({"vocab_size": 9, "pad_id": 9}, "pad_id=9"),
        ({"vocab_size": 9, "embedding_width": 0}, "embedding_width=0"),
        ({"vocab_size": 9, "dropout": 1.0}, "dropout=1.0"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ArgumentError, match=f"ResNet9: {named}"):
        ResNet9(**arguments)


def test_too_large_ids() -> None:
    with pytest.raises(ArgumentError, match=r"token id 20 .*vocab_size=20"):
        text_network()(torch.tensor([[20]]))
