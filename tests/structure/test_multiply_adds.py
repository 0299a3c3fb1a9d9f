"""Multiply-adds against formulas written down by hand."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torchvision import models

from lightning_dlopt import AttentionNet, ConvNet, RecurrentNet, count_multiply_adds
from lightning_dlopt.core import ArgumentError, ArgumentTypeError

B, L, IN, H = 3, 5, 7, 11
SEQUENCE = torch.randn(B, L, IN)
TOKENS = torch.randn(B, L, 8)
#: projections of query, key, value and output, scores, weighted sums; each of B texts of L
ATTENTION = B * (4 * L * 8 * 8 + 2 * L * L * 8)
ENCODER = ATTENTION + B * 2 * L * 8 * 16


def encoder_layer(**more: Any) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, **more)


CASES: list[tuple[nn.Module, Any, int]] = [
    (nn.Linear(4, 5), torch.randn(2, 4), 2 * 20),
    (nn.Linear(4, 5, bias=False), torch.randn(2, 3, 4), 2 * 3 * 20),
    (nn.Linear(4, 5, bias=False), torch.randn(4), 20),
    (nn.Linear(4, 5), torch.randn(4), 20),
    (nn.Conv1d(4, 6, 3), torch.randn(2, 4, 9), 2 * 7 * 6 * 4 * 3),
    (nn.Conv2d(4, 6, 3, stride=2, padding=1), torch.randn(2, 4, 9, 9), 2 * 25 * 6 * 4 * 9),
    (nn.Conv2d(4, 6, (3, 1), groups=2), torch.randn(2, 4, 9, 9), 2 * 7 * 9 * 6 * 2 * 3),
    (nn.Conv2d(4, 4, 3, groups=4, dilation=2), torch.randn(2, 4, 9, 9), 2 * 25 * 4 * 9),
    (nn.Conv3d(2, 3, 2), torch.randn(1, 2, 4, 4, 4), 27 * 3 * 2 * 8),
    # each input value goes into every value of a kernel's window
    (nn.ConvTranspose2d(4, 6, 3, stride=2), torch.randn(2, 4, 9, 9), 2 * 81 * 4 * 6 * 9),
    (nn.ConvTranspose2d(4, 6, 3, groups=2), torch.randn(2, 4, 9, 9), 2 * 81 * 4 * 3 * 9),
    (nn.RNN(IN, H), torch.randn(L, B, IN), B * L * H * (IN + H)),
    (nn.LSTM(IN, H, batch_first=True), SEQUENCE, B * L * 4 * H * (IN + H)),
    (nn.LSTM(IN, H), torch.randn(L, B, IN), B * L * 4 * H * (IN + H)),
    (nn.LSTM(IN, H, proj_size=4), torch.randn(L, B, IN), B * L * (4 * H * (IN + 4) + H * 4)),
    (
        nn.LSTM(IN, H, num_layers=2, bidirectional=True, batch_first=True),
        SEQUENCE,
        2 * B * L * 4 * H * ((IN + H) + (2 * H + H)),
    ),
    (nn.GRU(IN, H, batch_first=True, bias=False), SEQUENCE, B * L * 3 * H * (IN + H)),
    (
        nn.GRU(IN, H, num_layers=3, bidirectional=True, batch_first=True),
        SEQUENCE,
        2 * B * L * 3 * H * ((IN + H) + 2 * (2 * H + H)),
    ),
    (nn.LSTMCell(IN, H), torch.randn(B, IN), B * 4 * H * (IN + H)),
    (nn.MultiheadAttention(8, 2, batch_first=True), (TOKENS, TOKENS, TOKENS), ATTENTION),
    (
        nn.MultiheadAttention(8, 2, batch_first=True),
        {"query": TOKENS, "key": TOKENS, "value": TOKENS, "need_weights": False},
        ATTENTION,
    ),
    (encoder_layer(), TOKENS, ENCODER),
    (encoder_layer(norm_first=True, activation="gelu"), TOKENS, ENCODER),
    (nn.TransformerEncoder(encoder_layer(), 3), TOKENS, 3 * ENCODER),
    (nn.Embedding(9, 4), torch.tensor([[1, 2]]), 0),
    (nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)), torch.randn(2, 4, 8, 8), 0),
]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("module", "example", "expected"), CASES, ids=[type(module).__name__ for module, *_ in CASES]
)
def test_against_formulas(module: nn.Module, example: Any, expected: int, training: bool) -> None:
    module.train(training)
    assert count_multiply_adds(module, example) == expected
    assert module.training is training


def test_padding_does_not_change_what_an_encoder_computes() -> None:
    encoder = nn.TransformerEncoder(encoder_layer(), 2).eval()
    padding = torch.arange(L).expand(B, L) > 2
    example = {"src": TOKENS, "src_key_padding_mask": padding}
    assert count_multiply_adds(encoder, example) == 2 * ENCODER


def test_the_networks_of_this_package() -> None:
    tokens = torch.randint(1, 20, (B, L))
    attention = AttentionNet(20, 3, width=8, layers=2, heads=2)
    layer = B * (4 * L * 8 * 8 + 2 * L * L * 8 + 2 * L * 8 * 32)
    assert count_multiply_adds(attention, tokens) == 2 * layer + B * 8 * 3
    recurrent = RecurrentNet(20, 3, width=8, layers=1, kind="gru")
    assert count_multiply_adds(recurrent, tokens) == 2 * B * L * 3 * 4 * (8 + 4) + B * 8 * 3


@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v3_small", "resnext50_32x4d", "vit_b_16"])
def test_published_numbers(name: str) -> None:
    """Those of torchvision's documentation, in thousands of millions."""
    published = models.get_model_weights(name).DEFAULT.meta["_ops"]
    with torch.device("meta"):
        network, image = models.get_model(name), torch.empty(1, 3, 224, 224)
    assert count_multiply_adds(network, image) / 1e9 == pytest.approx(published, abs=0.0006)


def test_functions_count_as_layers_do() -> None:
    class Functions(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            attention = nn.functional.scaled_dot_product_attention(a[None], a[None], a[None])
            products = torch.addbmm(a, a[None, :, :3], a[None])
            found = a @ b + torch.dot(b, b) + torch.einsum("ij,ij->", a, a)
            return found + attention.sum() + products.sum()

    matrix, vector = torch.randn(3, 4), torch.randn(4)
    expected = 3 * 4 + 4 + 3 * 4 + 2 * 3 * 3 * 4 + 3 * 3 * 4
    assert count_multiply_adds(Functions(), (matrix, vector)) == expected


def test_shared_layers_count_as_often_as_they_are_called() -> None:
    layer = nn.Linear(4, 4)
    assert count_multiply_adds(nn.Sequential(layer, layer), torch.randn(1, 4)) == 32


def test_masked_weights_count() -> None:
    layer = nn.Linear(4, 4)
    prune.l1_unstructured(layer, "weight", 0.5)
    assert count_multiply_adds(layer, torch.randn(1, 4)) == 16

    class Mask(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight * 0

    other = nn.Linear(4, 4)
    parametrize.register_parametrization(other, "weight", Mask())
    assert count_multiply_adds(other, torch.randn(1, 4)) == 16
    assert parametrize.is_parametrized(other, "weight")


def test_compiled_modules(fresh_compiler: None) -> None:
    layer = nn.Linear(4, 4)
    assert count_multiply_adds(torch.compile(layer), torch.randn(1, 4)) == 16  # type: ignore[arg-type]
    layer.compile()
    assert count_multiply_adds(layer, torch.randn(1, 4)) == 16


def test_it_leaves_no_trace() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(4)
            self.calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            self.norm.running_mean += torch.rand(4)  # type: ignore[operator]
            return self.norm(x)  # type: ignore[no-any-return]

    module = Counts()
    module.norm.eval()
    backends: list[Any] = [torch.backends.mkldnn, torch.backends.cudnn]
    enabled = [backend.enabled for backend in backends]
    precision = torch.backends.mkldnn.fp32_precision
    generator = torch.get_rng_state()
    count_multiply_adds(module, torch.randn(2, 4, generator=torch.Generator()))
    assert torch.equal(torch.get_rng_state(), generator)
    assert module.calls == 0
    assert module.training
    assert not module.norm.training
    assert torch.equal(module.norm.running_mean, torch.zeros(4))  # type: ignore[arg-type]
    assert all(parameter.grad is None for parameter in module.parameters())
    assert [backend.enabled for backend in backends] == enabled
    assert torch.backends.mkldnn.fp32_precision == precision
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.is_grad_enabled()
    assert not module._forward_hooks
    assert not nn.modules.module._global_forward_hooks


def test_everything_is_put_back_after_an_error() -> None:
    layer = nn.Linear(4, 4)
    with pytest.raises(ArgumentError, match=r"count_multiply_adds: Linear can't be called .* mat1"):
        count_multiply_adds(layer, torch.randn(1, 3))
    assert layer.training
    assert torch.backends.mkldnn.enabled
    assert torch.backends.mha.get_fastpath_enabled()
    assert not nn.modules.module._global_forward_hooks
    assert count_multiply_adds(layer, torch.randn(1, 4)) == 16


@pytest.mark.parametrize("example", [[torch.zeros(1, 4)], 3, None, "x"])
def test_what_is_no_example(example: Any) -> None:
    with pytest.raises(ArgumentTypeError, match="must be a tensor, a tuple"):
        count_multiply_adds(nn.Linear(4, 4), example)


def test_lazy_layers_are_refused() -> None:
    with pytest.raises(ArgumentError, match="lazy"):
        count_multiply_adds(nn.LazyLinear(3), torch.zeros(1, 4))


def test_a_convolutional_network() -> None:
    network = ConvNet([1, 4, 8], num_classes=10)
    found: list[int] = []
    for part in network.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            part.register_forward_hook(
                lambda layer, _, out: found.append(
                    out.numel() * layer.weight.numel() // layer.weight.shape[0]
                )
            )
    image = torch.randn(2, 1, 16, 16)
    network(image)
    expected = sum(found)
    assert count_multiply_adds(network, image) == expected > 0
