"""The recurrent and the attention network over images against loops over rows and patches."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_dlopt.core.errors import ArgumentError
from lightning_dlopt.structure import AttentionNet, RecurrentNet

SIZE = [3, 8, 12]
NETWORKS: dict[str, Any] = {
    "lstm": lambda: RecurrentNet(num_classes=5, width=8, layers=2, image_size=SIZE),
    "gru": lambda: RecurrentNet(num_classes=5, width=8, kind="gru", image_size=SIZE),
    "one_way": lambda: RecurrentNet(num_classes=5, width=7, bidirectional=False, image_size=SIZE),
    "mean": lambda: AttentionNet(num_classes=5, width=8, image_size=SIZE),
    "token": lambda: AttentionNet(num_classes=5, width=8, image_size=SIZE, pool="token"),
}


@pytest.fixture(params=list(NETWORKS))
def network(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    made: nn.Module = NETWORKS[request.param]()
    return made


def images(batch: int = 4) -> Tensor:
    return torch.randn(batch, *SIZE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_recurrent_net_reads_rows_as_torchs_own_layers_do(kind: str) -> None:
    network = RecurrentNet(num_classes=5, width=8, layers=2, kind=kind, image_size=SIZE)
    theirs = {"lstm": nn.LSTM, "gru": nn.GRU}[kind](8, 4, 2, bidirectional=True, batch_first=True)
    for layer, (there, back) in enumerate(zip(network.forwards, network.backwards, strict=True)):
        for suffix, own in ("", there), ("_reverse", back):
            for name, weight in own.named_parameters():
                getattr(theirs, name.replace("l0", f"l{layer}{suffix}")).data.copy_(weight)
    weight, bias = network.embedding.weight, network.embedding.bias
    rows = torch.stack(
        [
            # a row's numbers: the first channel's from left to right, then the next one's
            torch.stack([weight @ torch.cat([*image[:, row]]) + bias for row in range(8)])
            for image in images()
        ]
    )
    expected = network.output(theirs(rows)[0].mean(1))
    torch.testing.assert_close(network(images()), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pool", ["mean", "token"])
def test_attention_net_reads_patches(pool: str) -> None:
    torch.manual_seed(1)
    network = AttentionNet(num_classes=5, width=8, heads=2, image_size=SIZE, patch=4, pool=pool)
    weight, bias = network.embedding.weight, network.embedding.bias
    for image, logits in zip(images(), network(images()), strict=True):
        corners = [(top, left) for top in (0, 4) for left in (0, 4, 8)]
        patches = [image[:, top : top + 4, left : left + 4].flatten() for top, left in corners]
        values = torch.stack([weight @ patch + bias for patch in patches]) + network.positions
        if pool == "token":
            values = torch.cat([network.class_token[None], values])
        for layer in network.layers:
            own = layer.self_attn
            mixed = layer.norm1(values) @ own.in_proj_weight.T + own.in_proj_bias
            query, key, value = mixed.view(len(values), 3, 2, 4).permute(1, 2, 0, 3)
            weights = (query @ key.transpose(1, 2) / math.sqrt(4)).softmax(2)
            joined = (weights @ value).transpose(0, 1).reshape(len(values), 8)
            values = values + own.out_proj(joined)
            values = values + layer.linear2(functional.gelu(layer.linear1(layer.norm2(values))))
        values = network.norm(values)
        expected = network.output(values.mean(0) if pool == "mean" else values[0])
        torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-6)


def test_attention_is_torchs_scaled_dot_product(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = functional.scaled_dot_product_attention

    def counted(*arguments: Any, **options: Any) -> Tensor:
        calls.append(options.get("attn_mask"))
        return real(*arguments, **options)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", counted)
    NETWORKS["token"]()(images())
    assert calls == [None, None], "one for each layer, and images have nothing to mask"


@pytest.mark.parametrize("length", [5, 6, 12])
def test_a_class_token_for_texts_and_padding(length: int) -> None:
    torch.manual_seed(0)
    network = AttentionNet(20, 3, width=8, max_length=12, pool="token")
    texts = [[5, 6, 7, 8, 9], [4], [3, 3, 2]]
    padded = torch.tensor([text + [0] * (length - len(text)) for text in texts])
    for mode in (True, False):
        network.train(mode)
        alone = torch.cat([network(torch.tensor([text])) for text in texts])
        torch.testing.assert_close(network(padded), alone, rtol=1e-6, atol=1e-6)
        with torch.no_grad():  # where torch has a faster path for attention
            torch.testing.assert_close(network(padded), alone, rtol=1e-6, atol=1e-6)
    nothing = network(torch.zeros(2, length, dtype=torch.int64))
    none = network(torch.zeros(2, 0, dtype=torch.int64))
    torch.testing.assert_close(nothing, none, rtol=1e-6, atol=1e-6)
    assert network(torch.zeros(0, length, dtype=torch.int64)).shape == (0, 3)


def test_empty_batches(network: nn.Module) -> None:
    logits = network(torch.empty(0, *SIZE))
    assert logits.shape == (0, 5)
    logits.sum().backward()


def test_all_parameters_learn(network: nn.Module) -> None:
    network(images()).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.count_nonzero(), name


def test_export(network: nn.Module) -> None:
    network.eval()
    sizes = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(network, (images(3),), dynamic_shapes=sizes)
    torch.testing.assert_close(program.module()(images()), network(images()), rtol=1e-5, atol=1e-6)


def test_bfloat16(network: nn.Module) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        half = network(images())
    torch.testing.assert_close(half.float(), network(images()), rtol=0.05, atol=0.05)


def test_images_of_another_size(network: nn.Module) -> None:
    with pytest.raises(ArgumentError, match=r"\[3, 8, 8\] .* image_size=\[3, 8, 12\]"):
        network(torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize("build", [RecurrentNet, AttentionNet])
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({}, "vocab_size=None and image_size=None: exactly one"),
        ({"vocab_size": 20, "image_size": SIZE}, "vocab_size=20 and image_size=.*exactly one"),
        ({"image_size": [8, 8]}, r"image_size=\[8, 8\] must be \[channels, height, width\]"),
        ({"image_size": 8}, r"image_size=8 must be \[channels, height, width\]"),
        ({"image_size": [3, 0, 8]}, "image_size=0"),
        ({"image_size": [3, 8.0, 8]}, "image_size=8.0"),
    ],
)
def test_bad_arguments(build: Any, arguments: dict[str, Any], named: str) -> None:
    with pytest.raises((ValueError, TypeError), match=f"{build.__name__}: {named}"):
        build(**arguments)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"image_size": [3, 8, 10]}, r"image_size=\[3, 8, 10\] .* multiples of patch=4"),
        ({"image_size": [3, 10, 8]}, r"image_size=\[3, 10, 8\] .* multiples of patch=4"),
        ({"image_size": SIZE, "patch": 0}, "patch=0"),
        ({"image_size": SIZE, "pool": "max"}, "pool='max' must be one of 'mean', 'token'"),
    ],
)
def test_bad_arguments_of_attention(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ArgumentError, match=f"AttentionNet: {named}"):
        AttentionNet(**arguments)
