"""The choice of the smallest weights against torch's pruning, and the ramp against its formula."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from lightning_dlopt.core import ArgumentError
from lightning_dlopt.structure import cubic_sparsity, prune_by_magnitude_
from lightning_dlopt.structure.magnitude.magnitude import pack_mask, unpack_mask


def network() -> nn.Sequential:
    torch.manual_seed(4)
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.Linear(20, 7), nn.Linear(7, 2))


def weights(net: nn.Module) -> list[Tensor]:
    return [parameter for name, parameter in net.named_parameters() if name.endswith("weight")]


@pytest.mark.parametrize("sparsity", [0.0, 0.123, 0.5, 0.9, 1.0])
def test_the_global_choice_is_torchs(sparsity: float) -> None:
    ours, theirs = network(), network()
    masks = prune_by_magnitude_(weights(ours), sparsity)
    chosen = [(layer, "weight") for layer in theirs]
    prune.global_unstructured(chosen, prune.L1Unstructured, amount=sparsity)
    for mask, weight, layer in zip(masks, weights(ours), theirs, strict=True):
        assert torch.equal(mask, layer.weight_mask.bool())
        assert torch.equal(weight, layer.weight)


@pytest.mark.parametrize("sparsity", [0.123, 0.5, 0.9])
def test_the_choice_in_each_layer_is_torchs(sparsity: float) -> None:
    ours, theirs = network(), network()
    masks = prune_by_magnitude_(weights(ours), sparsity, "layer")
    for mask, layer in zip(masks, theirs, strict=True):
        prune.l1_unstructured(layer, "weight", amount=sparsity)
        assert torch.equal(mask, layer.weight_mask.bool())


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_masks_only_grow(scope: str) -> None:
    net = network()
    masks = prune_by_magnitude_(weights(net), 0.3, scope)
    with torch.no_grad():
        for weight in weights(net):  # zeros by chance, and large values where it is pruned
            weight[0] = 0
            weight[-1] = 100
    grown = prune_by_magnitude_(weights(net), 0.6, scope, masks)
    assert not any((new & ~old).any() for new, old in zip(grown, masks, strict=True))
    total = sum(mask.numel() for mask in grown)
    assert abs(sum(int((~mask).sum()) for mask in grown) - 0.6 * total) <= 1.5
    same = prune_by_magnitude_(
        weights(net), 0.1, scope, grown
    )  # a smaller share takes nothing back
    assert all(torch.equal(new, old) for new, old in zip(same, grown, strict=True))


def test_equal_magnitudes_go_in_order_and_not_all_at_once() -> None:
    masks = prune_by_magnitude_([torch.zeros(2, 3), torch.ones(4)], 0.4)
    assert [mask.flatten().tolist() for mask in masks] == [[False] * 4 + [True] * 2, [True] * 4]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_types_and_mixed_ones(dtype: torch.dtype) -> None:
    left, right = torch.tensor([1.0, -3.0], dtype=dtype), torch.tensor([2.0, -0.5])
    prune_by_magnitude_([left, right], 0.5)
    assert left.tolist() == [0, -3]
    assert right.tolist() == [2, 0]
    assert left.dtype == dtype


def test_what_is_not_finite_stays_to_be_seen() -> None:
    weight = torch.tensor([float("nan"), 1.0, float("inf"), -2.0])
    prune_by_magnitude_([weight], 0.5)
    assert str(weight.tolist()) == "[nan, 0.0, inf, 0.0]"


def test_channels_last_and_empty_tensors() -> None:
    weight = torch.randn(4, 3, 2, 2)
    last = weight.clone(memory_format=torch.channels_last)
    (left,), (right, empty) = (
        prune_by_magnitude_([weight], 0.5),
        prune_by_magnitude_([last, torch.empty(0)], 0.5),
    )
    assert torch.equal(left, right)
    assert torch.equal(weight, last)
    assert empty.numel() == 0
    assert prune_by_magnitude_([], 0.5) == []


def test_bad_arguments() -> None:
    with pytest.raises(ArgumentError, match=r"sparsity=1.5"):
        prune_by_magnitude_([torch.ones(2)], 1.5)
    with pytest.raises(ArgumentError, match="scope='row'"):
        prune_by_magnitude_([torch.ones(2)], 0.5, "row")
    with pytest.raises(ArgumentError, match="shapes"):
        prune_by_magnitude_([torch.ones(2)], 0.5, masks=[torch.ones(3, dtype=torch.bool)])


def test_packed_masks_come_back() -> None:
    mask = torch.rand(5, 3, 7, generator=torch.Generator().manual_seed(0)) < 0.3
    packed = pack_mask(mask)
    assert packed.numel() == 14  # 105 bits
    assert torch.equal(unpack_mask(packed, mask.shape), mask)


def test_the_ramp() -> None:
    # Zhu and Gupta's equation 1, with s_i = 0, t_0 = 100, n = 10 and steps of 20
    for k in range(11):
        expected = 0.875 + (0 - 0.875) * (1 - 20 * k / (10 * 20)) ** 3
        assert cubic_sparsity(100 + 20 * k, 100, 300, 0.875) == pytest.approx(expected, abs=1e-15)
    assert [cubic_sparsity(step, 5, 5, 0.5) for step in (4, 5, 6)] == [0.0, 0.5, 0.5]
