"""Squeeze-and-excitation against the paper's formula, and on odd modules."""

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import SqueezeExcitation

from lightning_dlopt.core import ArgumentError
from lightning_dlopt.structure import LowRank, SqueezeExcite, low_rank, squeeze_excite
from lightning_dlopt.structure.squeeze_excite import ExcitedConv


def excited(values: Tensor, block: nn.Module) -> Tensor:
    """Return the paper's s * u, with s = sigmoid(W2 relu(W1 mean(u)))."""
    weights = dict(block.named_parameters())
    squeezed = values.mean((2, 3))
    hidden = squeezed @ weights["fc1.weight"].flatten(1).T + weights["fc1.bias"]
    scales = hidden.relu() @ weights["fc2.weight"].flatten(1).T + weights["fc2.bias"]
    return values * scales.sigmoid()[:, :, None, None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_computes_the_formula(dtype: torch.dtype) -> None:
    conv = nn.Conv2d(3, 8, 3, dtype=dtype)
    net = nn.Sequential(conv)
    assert squeeze_excite(net, reduction=2, min_channels=8) == ["0"]
    inputs = torch.randn(4, 3, 7, 6, dtype=dtype)
    torch.testing.assert_close(net(inputs), excited(conv(inputs), net[0][1]))
    assert net[0][1].fc1.weight.shape == (4, 8, 1, 1)


def test_a_generator_decides_about_the_new_weights_and_nothing_else() -> None:
    before = torch.get_rng_state()
    nets = []
    for seed in (1, 1, 2):
        net = nn.Sequential(nn.Conv2d(3, 8, 3))
        state = torch.get_rng_state()
        squeeze_excite(net, min_channels=8, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(torch.get_rng_state(), state)
        nets.append(net[0][1].fc2.weight)
    assert torch.equal(nets[0], nets[1])
    assert not torch.equal(nets[0], nets[2])
    torch.set_rng_state(before)


def test_new_layers_have_torchs_own_initialization() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4096, 1))
    squeeze_excite(net, reduction=64, generator=torch.Generator().manual_seed(1))
    weight = net[0][1].fc1.weight
    bound = 4096**-0.5  # uniform, Kaiming with a = sqrt(5)
    assert weight.abs().max() <= bound
    torch.testing.assert_close(float(weight.std()), bound / 3**0.5, rtol=0.02, atol=0)


def test_a_layer_that_is_used_twice_gets_one() -> None:
    conv = nn.Conv2d(8, 8, 3, padding=1)
    net = nn.Sequential(conv, nn.ReLU(), conv)
    assert squeeze_excite(net, min_channels=8) == ["0"]
    assert net[0] is net[2]
    assert squeeze_excite(net, min_channels=8) == []


def test_a_convolution_by_itself_and_small_ones_stay() -> None:
    conv = nn.Conv2d(3, 64, 3)
    assert squeeze_excite(conv) == []
    assert squeeze_excite(nn.Sequential(nn.Conv2d(3, 63, 3), nn.Linear(64, 64))) == []


def test_those_that_a_network_has_already_stay_as_they_are() -> None:
    net = nn.Sequential(SqueezeExcitation(128, 64))
    assert squeeze_excite(net) == []


def test_targets_by_name() -> None:
    net = nn.Sequential(nn.Conv2d(3, 64, 3), nn.Sequential(nn.Conv2d(64, 64, 3)))
    assert squeeze_excite(net, ["1.*"]) == ["1.0"]
    with pytest.raises(ArgumentError, match=r"'2\.\*'"):
        squeeze_excite(net, ["2.*"])


def test_evaluation_mode_and_frozen_convolutions_stay() -> None:
    net = nn.Sequential(nn.Conv2d(3, 64, 3)).eval().requires_grad_(False)
    squeeze_excite(net)
    assert isinstance(net[0], ExcitedConv)
    assert not any(part.training for part in net[0][1].modules())
    assert not net[0][0].weight.requires_grad
    assert net[0][1].fc1.weight.requires_grad  # it is new, and to be trained


def test_two_layers_of_low_rank_count_as_one_convolution() -> None:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(8, 32, 3), nn.Conv2d(32, 32, 3), nn.Flatten(), nn.Linear(32, 16))
    assert list(low_rank(net, 8)) == ["0", "1", "3"]
    pairs = [net[0], net[1]]
    assert squeeze_excite(net, reduction=4, min_channels=8) == ["0", "1"]
    inputs = torch.randn(2, 8, 5, 5)
    expected = excited(pairs[1](excited(pairs[0](inputs), net[0][1])), net[1][1])
    torch.testing.assert_close(net[:2](inputs), expected)
    assert [net[0][0], net[1][0]] == pairs
    assert pairs[0].weight.shape == (32, 8, 3, 3)
    assert squeeze_excite(net, reduction=4, min_channels=8) == []


def test_a_checkpoint_brings_it_behind_layers_of_low_rank() -> None:
    net, other = (nn.Sequential(nn.Conv2d(8, 32, 3)) for _ in range(2))
    ranks = low_rank(net, 8)
    names = squeeze_excite(net, min_channels=8)
    LowRank.redo(other, {"ranks": ranks})
    for _ in range(2):  # the second time it is there
        SqueezeExcite.redo(other, {"layers": names, "reduction": 16})
    other.load_state_dict(net.state_dict())
    inputs = torch.randn(2, 8, 5, 5)
    torch.testing.assert_close(other(inputs), net(inputs), rtol=0, atol=0)
