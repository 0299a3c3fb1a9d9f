"""Blurring before samples are taken, against a depthwise convolution that is written out."""

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_dlopt import blur_pool
from lightning_dlopt.core import ArgumentError, NoEffectWarning

BINOMIAL = (0.25, 0.5, 0.25)


def blurred(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Blur one axis after the other, pixel by pixel, with copies beyond the border."""
    for axis in axes:
        pixels = list(x.unbind(axis))
        around = [pixels[0], *pixels, pixels[-1]]
        taken = zip(around, around[1:], around[2:], strict=False)
        x = torch.stack(
            [sum(w * p for w, p in zip(BINOMIAL, three, strict=True)) for three in taken],  # type: ignore[misc]
            axis,
        )
    return x


def test_the_kernel_is_the_papers() -> None:
    layer = nn.MaxPool2d(1, stride=2)
    blur_pool(layer)
    x = torch.randn(2, 3, 9, 8)
    kernel = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
    padded = functional.pad(x, (1, 1, 1, 1), mode="replicate")
    by_hand = functional.conv2d(padded, kernel.expand(3, 1, 3, 3), stride=2, groups=3)
    torch.testing.assert_close(layer(x), by_hand)


SETTINGS: list[dict[str, Any]] = [
    {"kernel_size": 3, "stride": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1, "bias": False},
    {"kernel_size": 1, "stride": 2},
    {"kernel_size": (3, 2), "stride": (2, 1), "padding": (0, 1)},
    {"kernel_size": 3, "stride": (1, 3), "dilation": 2, "padding": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1, "groups": 16},
    {"kernel_size": 3, "stride": 2, "padding": 1, "padding_mode": "circular"},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("size", [(8, 8), (7, 9), (6, 5)])
def test_a_convolution_sees_a_blurred_input(
    settings: dict[str, Any], size: tuple[int, int]
) -> None:
    plain = nn.Conv2d(16, 16, dtype=torch.float64, **settings)
    layer = copy.deepcopy(plain)
    assert blur_pool(layer) == [""]
    assert list(layer.state_dict()) == list(plain.state_dict())
    x = torch.randn(2, 16, *size, dtype=torch.float64, requires_grad=True)
    axes = tuple(axis for axis, stride in zip((2, 3), plain.stride, strict=True) if stride > 1)
    expected = plain(blurred(x, axes))
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer(x[0]), expected[0])
    left, right = (torch.autograd.grad((y**2).sum(), x)[0] for y in (layer(x), expected))
    torch.testing.assert_close(left, right)


def test_it_is_the_papers_convolution_but_for_the_activation_and_the_border() -> None:
    plain = nn.Conv2d(16, 4, 3, stride=2, padding=1)
    layer, dense = copy.deepcopy(plain), copy.deepcopy(plain)
    blur_pool(layer)
    dense.stride = (1, 1)
    x = torch.randn(2, 16, 15, 15)
    theirs = blurred(dense(x), (2, 3))[..., ::2, ::2]
    torch.testing.assert_close(layer(x)[..., 1:-1, 1:-1], theirs[..., 1:-1, 1:-1])


POOLINGS = [
    settings
    for settings in itertools.product(
        [1, 2, 3, (3, 2)], [2, 3, (1, 2)], [0, 1], [1, 2], [False, True]
    )
    if settings[0] != 1 or settings[2] == 0  # torch pads by at most half the size
]


@pytest.mark.parametrize(("size", "stride", "padding", "dilation", "ceil"), POOLINGS)
def test_a_pooling_blurs_all_maxima(
    size: Any, stride: Any, padding: int, dilation: int, ceil: bool
) -> None:
    arguments = {"stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil}
    plain = nn.MaxPool2d(size, **arguments)
    layer = copy.deepcopy(plain)
    assert blur_pool(layer) == [""]
    steps = stride if isinstance(stride, tuple) else (stride, stride)
    axes = tuple(axis for axis, step in zip((2, 3), steps, strict=True) if step > 1)
    for height, width in itertools.product(range(5, 10), repeat=2):
        x = torch.randn(2, 3, height, width)
        theirs, output = plain(x), layer(x)
        assert output.shape == theirs.shape
        inside = functional.max_pool2d(x, size, 1, padding, dilation)
        wide = functional.pad(x, (0, steps[1], 0, steps[0]), value=-torch.inf)
        maxima = functional.max_pool2d(wide, size, 1, padding, dilation)
        # what torch's own windows start at, those that ceil_mode lets hang over the end included
        rows, columns = (
            max(inside.shape[axis], (theirs.shape[axis] - 1) * step + 1)
            for axis, step in zip((2, 3), steps, strict=True)
        )
        maxima = maxima[..., :rows, :columns]
        expected = blurred(maxima, axes)[..., :: steps[0], :: steps[1]]
        torch.testing.assert_close(output, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_layouts_and_types_stay(dtype: torch.dtype, layout: torch.memory_format) -> None:
    network = nn.Sequential(nn.Conv2d(16, 8, 3, stride=2), nn.MaxPool2d(2, ceil_mode=True))
    blur_pool(network)
    x = torch.randn(2, 16, 12, 12)
    expected = network(x)
    network.to(dtype=dtype, memory_format=layout)
    output = network(x.to(dtype=dtype, memory_format=layout))
    assert output.dtype == dtype
    assert output.is_contiguous(memory_format=layout)
    torch.testing.assert_close(output, expected.to(dtype), rtol=2e-2, atol=2e-2)


def test_an_even_color_stays_and_one_pixel_is_enough() -> None:
    layer = nn.MaxPool2d(2, ceil_mode=True)
    blur_pool(layer)
    for size in (1, 2, 7):
        x = torch.full((1, 2, size, size), 3.0)
        assert torch.equal(layer(x), torch.full_like(layer(x), 3.0))


def change_by_a_shift(network: nn.Module, images: Tensor) -> float:
    """Return how much the output changes, relative to itself, if images shift by a pixel."""
    with torch.no_grad():
        output = network(images)
        shifts = [network(images.roll(by, (2, 3))) for by in ((0, 1), (1, 0), (1, 1))]
    return float(sum((shifted - output).norm() / output.norm() for shifted in shifts) / len(shifts))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("pooling", [False, True])
def test_the_output_changes_less_if_the_image_shifts(seed: int, pooling: bool) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [
            nn.MaxPool2d(2) if pooling else nn.Conv2d(16, 16, 3, stride=2, padding=1),
            nn.Conv2d(16, 16, 3, padding=1),
            nn.ReLU(),
        ]
        first = nn.Conv2d(3, 16, 3, padding=1)
        plain = nn.Sequential(first, nn.ReLU(), *layers, *copy.deepcopy(layers))
        images = torch.rand(8, 3, 32, 32)
    plain.append(nn.AdaptiveAvgPool2d(1))
    network = copy.deepcopy(plain)
    assert len(blur_pool(network)) == 2
    assert change_by_a_shift(network, images) < 0.7 * change_by_a_shift(plain, images)


class OwnConv(nn.Conv2d):
    pass


def test_what_stays_as_it_is() -> None:
    layers: list[nn.Module] = [
        nn.Conv2d(3, 16, 3, stride=2),
        nn.Conv2d(16, 16, 3),
        nn.MaxPool2d(3, stride=1),
        nn.MaxPool2d(2, return_indices=True),
        nn.AvgPool2d(2),
        nn.Conv1d(16, 16, 3, stride=2),
        OwnConv(16, 16, 3, stride=2),
    ]
    network = nn.Sequential(*layers)
    with pytest.warns(NoEffectWarning, match=r"blur_pool leaves .*: 6 \(OwnConv\)$"):
        assert blur_pool(network) == []
    assert [type(layer) for layer in network] == [type(layer) for layer in layers]


def test_patterns_choose_and_a_second_time_changes_nothing() -> None:
    conv = nn.Conv2d(3, 8, 3, stride=2)
    network = nn.Sequential(conv, nn.MaxPool2d(2), conv)
    assert blur_pool(network, ["2"], min_channels=3) == ["0"]
    assert blur_pool(network) == ["1"]
    assert blur_pool(network, min_channels=1) == []
    with pytest.raises(ArgumentError, match=r"no module's name matches 'pool\*'"):
        blur_pool(network, ["pool*"])
    with pytest.raises(ArgumentError, match="blur_pool: min_channels=0"):
        blur_pool(network, min_channels=0)
