"""Standardized convolutions against the formula, and torch's functions with its result."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_dlopt import blur_pool, standardize_weights
from lightning_dlopt.core import ArgumentError, NoEffectWarning
from lightning_dlopt.structure.convolutions import standardize

EPS = 1e-3
CONVS: list[tuple[Any, Any]] = [
    (nn.Conv1d, functional.conv1d),
    (nn.Conv2d, functional.conv2d),
    (nn.Conv3d, functional.conv3d),
]
TRANSPOSED: list[tuple[Any, Any]] = [
    (nn.ConvTranspose1d, functional.conv_transpose1d),
    (nn.ConvTranspose2d, functional.conv_transpose2d),
    (nn.ConvTranspose3d, functional.conv_transpose3d),
]


def by_formula(kernel: Tensor) -> Tensor:
    """Return one output channel's weights, standardized: of each the mean and the deviation."""
    mean = kernel.sum() / kernel.numel()
    variance = ((kernel - mean) ** 2).sum() / kernel.numel()
    return (kernel - mean) / (variance + EPS) ** 0.5


def inputs(axes: int) -> Tensor:
    return torch.randn(2, 4, *(6, 5, 4)[:axes], dtype=torch.float64)


def assert_same_gradients(left: nn.Module, right: nn.Module) -> None:
    for mine, theirs in zip(left.parameters(), right.parameters(), strict=True):
        assert mine.grad is not None
        torch.testing.assert_close(mine.grad, theirs.grad)


@pytest.mark.parametrize(("kind", "convolve"), CONVS)
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("size", [1, 3])
def test_convolutions(kind: Any, convolve: Any, groups: int, size: int) -> None:
    plain = kind(4, 8, size, stride=2, padding=1, groups=groups, dtype=torch.float64)
    layer, x = copy.deepcopy(plain), inputs(plain.weight.dim() - 2)
    alone = size == 1 and groups == 4  # one weight for each output channel
    assert standardize_weights(layer, eps=EPS) == ([] if alone else [""])
    assert list(layer.state_dict()) == ["weight", "bias"]
    kernel = plain.weight if alone else torch.stack([by_formula(one) for one in plain.weight])
    expected = convolve(x, kernel, plain.bias, stride=2, padding=1, groups=groups)
    torch.testing.assert_close(layer(x), expected)
    (expected**2).sum().backward()
    (layer(x) ** 2).sum().backward()
    assert_same_gradients(layer, plain)


@pytest.mark.parametrize(("kind", "convolve"), TRANSPOSED)
@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_convolutions(kind: Any, convolve: Any, groups: int) -> None:
    settings: dict[str, Any] = {"stride": 2, "padding": 1, "groups": groups, "dilation": 2}
    plain = kind(4, 6, 3, dtype=torch.float64, output_padding=1, **settings)
    layer, x = copy.deepcopy(plain), inputs(plain.weight.dim() - 2)
    assert standardize_weights(layer, eps=EPS) == [""]
    kernel = torch.empty_like(plain.weight)
    for group in range(groups):  # each output channel sees the input channels of its group
        rows = slice(group * 4 // groups, (group + 1) * 4 // groups)
        for channel in range(6 // groups):
            kernel[rows, channel] = by_formula(plain.weight[rows, channel])
    expected = convolve(x, kernel, plain.bias, output_padding=1, **settings)
    torch.testing.assert_close(layer(x), expected)
    (expected**2).sum().backward()
    (layer(x) ** 2).sum().backward()
    assert_same_gradients(layer, plain)
    wanted = list(plain(x).shape[2:])
    assert layer(x, output_size=wanted).shape == plain(x, output_size=wanted).shape


def test_the_gradient_is_that_of_the_formula() -> None:
    weight = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w: standardize(w, EPS), (weight,))
    assert torch.autograd.gradgradcheck(lambda w: standardize(w, EPS), (weight,))


def test_the_authors_definition_but_for_the_divisor() -> None:
    weight = torch.randn(6, 3, 2, 2, dtype=torch.float64)
    deviation, mean = torch.std_mean(weight, (1, 2, 3), keepdim=True)  # divides by n - 1
    theirs = (weight - mean) / (deviation + 1e-5)
    torch.testing.assert_close(
        standardize(weight, 1e-10), theirs * (12 / 11) ** 0.5, rtol=1e-4, atol=1e-4
    )


def test_mean_and_variance_whatever_the_weights_are() -> None:
    layer = nn.Conv2d(8, 4, 3, padding=1)
    standardize_weights(layer)
    x = torch.randn(2, 8, 6, 6)
    with torch.no_grad():
        before = layer(x)
        layer.weight.mul_(5).add_(0.7)
    torch.testing.assert_close(layer(x), before, rtol=1e-3, atol=1e-3)
    kernel = standardize(layer.weight, 1e-6)
    torch.testing.assert_close(kernel.mean((1, 2, 3)), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(kernel.var((1, 2, 3), correction=0), torch.ones(4))


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_modes(mode: Any) -> None:
    layer = nn.Conv2d(4, 4, 3, padding=1, padding_mode=mode)
    standardize_weights(layer, eps=EPS)
    x = torch.randn(2, 4, 6, 6)
    kernel = torch.stack([by_formula(one) for one in layer.weight])
    padded = functional.pad(x, (1, 1, 1, 1), mode=mode)
    torch.testing.assert_close(layer(x), functional.conv2d(padded, kernel, layer.bias))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_types_and_layouts_stay(dtype: torch.dtype) -> None:
    layer, x = nn.Conv2d(4, 4, 3), torch.randn(2, 4, 6, 6)
    standardize_weights(layer)
    expected = layer(x)
    layer.to(dtype=dtype, memory_format=torch.channels_last)
    output = layer(x.to(dtype=dtype, memory_format=torch.channels_last))
    assert output.dtype == dtype
    assert output.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(output, expected.to(dtype), rtol=5e-2, atol=1e-1)


def test_frozen_weights_stay_frozen() -> None:
    layer = nn.Conv2d(4, 4, 3).requires_grad_(False)
    assert standardize_weights(layer) == [""]
    assert not layer.weight.requires_grad
    assert not layer(torch.randn(1, 4, 6, 6)).requires_grad


@pytest.mark.parametrize("blurred_first", [False, True])
def test_together_with_blurring(blurred_first: bool) -> None:
    layer, alone = nn.Conv2d(16, 4, 3, stride=2), nn.MaxPool2d(1, stride=2)
    both = [blur_pool, standardize_weights]
    for change in both if blurred_first else reversed(both):
        assert change(layer) == [""]
    assert [change(layer) for change in both] == [[], []]
    blur_pool(alone)
    x = torch.randn(2, 16, 9, 9)
    padded = functional.pad(x, (1, 1, 1, 1), mode="replicate")
    kernel = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]).expand(16, 1, 3, 3) / 16
    blurred = functional.conv2d(padded, kernel, groups=16)
    torch.testing.assert_close(alone(x), blurred[..., ::2, ::2])
    expected = functional.conv2d(blurred, standardize(layer.weight, 1e-6), layer.bias, stride=2)
    torch.testing.assert_close(layer(x), expected)


class OwnConv(nn.Conv2d):
    pass


def test_other_classes_stay_as_they_are_which_is_told() -> None:
    parametrized = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 3))
    network = nn.Sequential(nn.Conv2d(3, 3, 3), OwnConv(3, 3, 3), parametrized, nn.LazyConv2d(3, 3))
    names = r"1 \(OwnConv\), 2 \(ParametrizedConv2d\), 3 \(LazyConv2d\)$"
    with pytest.warns(NoEffectWarning, match=rf"standardize_weights leaves .*: {names}"):
        assert standardize_weights(network) == ["0"]


def test_patterns_choose_and_a_second_time_changes_nothing() -> None:
    network = nn.Sequential(nn.Conv1d(3, 3, 3), nn.Conv1d(3, 3, 3))
    assert standardize_weights(network, ["1"], eps=0.5) == ["1"]
    assert standardize_weights(network) == ["0"]
    assert standardize_weights(network) == []
    assert network[1].standardize_eps == 0.5
    with pytest.raises(ArgumentError, match="no module's name matches 'conv'"):
        standardize_weights(network, ["conv"])
    with pytest.raises(ArgumentError, match=r"standardize_weights: eps=0 is not in \(0, inf\)"):
        standardize_weights(network, eps=0)
