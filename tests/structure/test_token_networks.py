"""The networks over token ids against loops over single texts, without any padding."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_dlopt.core.errors import ArgumentError
from lightning_dlopt.structure import AttentionNet, RecurrentNet

TEXTS = [[5, 6, 7, 8, 9], [4], [3, 3, 2]]
NETWORKS: dict[str, Any] = {
    "lstm": lambda **more: RecurrentNet(20, 3, width=8, layers=2, **more),
    "gru": lambda **more: RecurrentNet(20, 3, width=8, kind="gru", **more),
    "one_way": lambda **more: RecurrentNet(20, 3, width=7, bidirectional=False, **more),
    "attention": lambda **more: AttentionNet(20, 3, width=8, heads=2, max_length=12, **more),
}


@pytest.fixture(params=list(NETWORKS))
def network(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    made: nn.Module = NETWORKS[request.param]()
    return made


def padded(length: int, texts: list[list[int]] = TEXTS) -> Tensor:
    return torch.tensor([text + [0] * (length - len(text)) for text in texts])


def test_padding_changes_nothing(network: nn.Module) -> None:
    for mode in (True, False):
        network.train(mode)  # dropout is 0
        alone = torch.cat([network(torch.tensor([text])) for text in TEXTS])
        for length in (5, 6, 12):
            torch.testing.assert_close(network(padded(length)), alone, rtol=1e-6, atol=1e-6)
        with torch.no_grad():  # where torch has a faster path for attention
            torch.testing.assert_close(network(padded(12)), alone, rtol=1e-6, atol=1e-6)


def test_a_text_without_tokens_gives_the_biases_and_finite_gradients(network: nn.Module) -> None:
    logits = network(padded(5, [[], [5, 6]]))
    torch.testing.assert_close(logits[0], network.output.bias)
    logits.sum().backward()
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)
    assert network.embedding.weight.grad[0].count_nonzero() == 0


def test_empty_batches_and_batches_of_no_length(network: nn.Module) -> None:
    for mode in (True, False):
        network.train(mode)
        for batch, length in ((0, 5), (2, 0), (0, 0)):
            logits = network(torch.empty(batch, length, dtype=torch.int64))
            torch.testing.assert_close(logits, network.output.bias.expand(batch, 3))
            logits.sum().backward()


def lstm_direction(layer: nn.LSTM, values: Tensor) -> Tensor:
    hidden = cell = torch.zeros(layer.hidden_size)
    outputs = []
    for value in values:
        gates = layer.weight_ih_l0 @ value + layer.bias_ih_l0
        gates = gates + layer.weight_hh_l0 @ hidden + layer.bias_hh_l0
        into, forget, new, out = gates.chunk(4)
        cell = forget.sigmoid() * cell + into.sigmoid() * new.tanh()
        hidden = out.sigmoid() * cell.tanh()
        outputs.append(hidden)
    return torch.stack(outputs)


def test_recurrent_net_is_the_hand_written_cell() -> None:
    torch.manual_seed(1)
    network = RecurrentNet(20, 3, width=8, layers=2)
    for text, logits in zip(TEXTS, network(padded(7)), strict=True):
        values = network.embedding.weight[text]
        for there, back in zip(network.forwards, network.backwards, strict=True):
            reverse = lstm_direction(back, values.flip(0)).flip(0)
            values = torch.cat([lstm_direction(there, values), reverse], 1)
        torch.testing.assert_close(logits, network.output(values.mean(0)), rtol=1e-5, atol=1e-6)


def test_attention_net_is_the_hand_written_attention() -> None:
    torch.manual_seed(1)
    network = AttentionNet(20, 3, width=8, heads=2)
    for text, logits in zip(TEXTS, network(padded(7)), strict=True):
        values = network.embedding.weight[text] + network.positions[: len(text)]
        for layer in network.layers:
            own = layer.self_attn
            mixed = layer.norm1(values) @ own.in_proj_weight.T + own.in_proj_bias
            query, key, value = mixed.view(len(text), 3, 2, 4).permute(1, 2, 0, 3)
            weights = (query @ key.transpose(1, 2) / math.sqrt(4)).softmax(2)
            joined = (weights @ value).transpose(0, 1).reshape(len(text), 8)
            values = values + own.out_proj(joined)
            inner = functional.gelu(layer.linear1(layer.norm2(values)))
            values = values + layer.linear2(inner)
        expected = network.output(network.norm(values).mean(0))
        torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-6)


def test_export(network: nn.Module) -> None:
    network.eval()
    # torch unrolls recurrent layers, to the one length that the example has
    length = torch.export.Dim("length", max=12) if isinstance(network, AttentionNet) else None
    sizes = {"tokens": {0: torch.export.Dim("batch"), 1: length}}
    program = torch.export.export(network, (padded(6),), dynamic_shapes=sizes)
    tokens = padded(6 if length is None else 9, [*TEXTS, [1, 2]])
    torch.testing.assert_close(program.module()(tokens), network(tokens), rtol=1e-5, atol=1e-6)


def test_bfloat16(network: nn.Module) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        half = network(padded(6))
    torch.testing.assert_close(half.float(), network(padded(6)), rtol=0.05, atol=0.05)


def test_layers_start_with_weights_of_their_own() -> None:
    first, second = AttentionNet(20, 3, width=8).layers
    assert not torch.equal(first.linear1.weight, second.linear1.weight)


def test_dropout_draws_in_training_only() -> None:
    for name in ("lstm", "attention"):
        network = NETWORKS[name](dropout=0.5)
        assert not torch.equal(network(padded(5)), network(padded(5)))
        network.eval()
        assert torch.equal(network(padded(5)), network(padded(5)))


def test_too_large_ids_and_too_long_batches(network: nn.Module) -> None:
    with pytest.raises(ArgumentError, match=r"token id 20 .*vocab_size=20: .*same vocab_size"):
        network(torch.tensor([[20]]))
    with pytest.raises(ArgumentError, match=r"13 tokens long, but max_length=12"):
        NETWORKS["attention"]()(torch.ones(1, 13, dtype=torch.int64))


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: RecurrentNet(1, 3), r"RecurrentNet: vocab_size=1"),
        (lambda: RecurrentNet(20, 0), r"RecurrentNet: num_classes=0"),
        (lambda: RecurrentNet(20, 3, width=7), r"RecurrentNet: width=7 must be even"),
        (lambda: RecurrentNet(20, 3, layers=0), r"RecurrentNet: layers=0"),
        (lambda: RecurrentNet(20, 3, kind="rnn"), r"RecurrentNet: kind='rnn' .*'lstm', 'gru'"),
        (lambda: RecurrentNet(20, 3, bidirectional=1), r"RecurrentNet: bidirectional=1"),
        (lambda: RecurrentNet(20, 3, pad_id=20), r"RecurrentNet: pad_id=20"),
        (lambda: AttentionNet(20, 3, width=6), r"AttentionNet: width=6 .*heads=4"),
        (lambda: AttentionNet(20, 3, dropout=1.0), r"AttentionNet: dropout=1.0"),
        (lambda: AttentionNet(20, 3, max_length=0), r"AttentionNet: max_length=0"),
    ],
)
def test_bad_arguments(build: Any, named: str) -> None:
    with pytest.raises((ValueError, TypeError), match=named):
        build()
