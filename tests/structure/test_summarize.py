"""Summaries of modules against what can be counted by hand, and by torch's own files."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from lightning_dlopt import ConvNet, summarize, summarize_all
from lightning_dlopt.core import ArgumentError, ArgumentTypeError
from lightning_dlopt.structure.summaries.example import with_batch_size
from lightning_dlopt.structure.summaries.latency import measure_latency

EXAMPLE = torch.ones(4, 8)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))


def test_counts_by_hand() -> None:
    net = network()
    nn.init.zeros_(net[0].bias)
    nn.init.ones_(net[3].bias)
    net[0].weight.requires_grad_(False)
    summary = summarize(net, EXAMPLE)
    weights = 8 * 6 + 6 * 3
    assert summary.parameters == weights + 6 + 3 + 12
    assert summary.nonzero_parameters == weights + 3 + 6, "no zero biases, no zero shifts"
    assert summary.trainable_parameters == summary.parameters - 48
    assert summary.multiply_adds == weights, "of one sample, whatever the example holds"
    assert not summary.latency


def test_bytes_are_those_of_the_file(tmp_path: Path) -> None:
    for net in (network(), ConvNet([1, 64, 128])):
        example = torch.ones(1, 1, 8, 8) if isinstance(net, ConvNet) else EXAMPLE
        buffer = io.BytesIO()
        torch.save(net.state_dict(), buffer)
        assert summarize(net, example).bytes == buffer.tell()
        # a file on the disk has its own name within, aligned
        torch.save(net.state_dict(), tmp_path / "archive.pt")
        on_disk = (tmp_path / "archive.pt").stat().st_size
        assert abs(summarize(net, example).bytes - on_disk) < 2000


def test_shared_tensors_are_saved_and_counted_once() -> None:
    layer = nn.Linear(512, 512)
    other = nn.Linear(512, 512)
    other.weight = layer.weight
    example = torch.ones(1, 512)
    one, same, tied = (
        summarize(net, example)
        for net in (layer, nn.Sequential(layer, layer), nn.Sequential(layer, other))
    )
    assert one.parameters == same.parameters == tied.parameters - 512
    assert one.nonzero_parameters == same.nonzero_parameters
    assert same.bytes - one.bytes < 2000
    assert tied.bytes - one.bytes < 2 * 2048 + 2000
    assert tied.multiply_adds == same.multiply_adds == 2 * one.multiply_adds


class Mask(nn.Module):
    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask  # type: ignore[operator]


def test_masks_count_as_zeros_and_not_as_saved_work() -> None:
    dense, pruned, masked = nn.Linear(8, 6), nn.Linear(8, 6), nn.Linear(8, 6)
    prune.l1_unstructured(pruned, "weight", 0.5)
    mask = torch.zeros(6, 8)
    mask[:2] = 1
    parametrize.register_parametrization(masked, "weight", Mask(mask))
    found = summarize_all({"dense": dense, "pruned": pruned, "masked": masked}, EXAMPLE)
    assert [one.nonzero_parameters for one in found.values()] == [54, 24 + 6, 16 + 6]
    assert {one.parameters for one in found.values()} == {54}
    assert {one.multiply_adds for one in found.values()} == {48}
    assert parametrize.is_parametrized(masked, "weight")


def test_parametrizations_of_several_parameters_count_those() -> None:
    layer = parametrizations.weight_norm(nn.Linear(8, 6))
    assert summarize(layer, EXAMPLE).nonzero_parameters == 48 + 6 + 6


def test_the_table() -> None:
    found = summarize_all({"dense": nn.Linear(8, 600), "small": nn.Linear(8, 6)}, EXAMPLE)
    lines = str(found).splitlines()
    assert lines[0].split() == ["dense", "small"]
    assert lines[1].split() == ["parameters", "5,400", "54"]
    assert lines[2].split() == ["non-zero", "parameters", "5,400", "54"]
    assert lines[4].split() == ["multiply-adds", "4,800", "48"]
    assert len({len(line) for line in lines}) == 1
    alone = str(found["small"]).splitlines()
    assert alone[0].split() == ["parameters", "54"]
    with pytest.raises(AttributeError):
        found["small"].parameters = 3  # type: ignore[misc]


@pytest.mark.parametrize(("latency", "sizes"), [(True, [1, 256]), ([3], [3]), ([], [])])
def test_latency(latency: Any, sizes: list[int]) -> None:
    seen: list[int] = []

    class Looks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(len(x))
            assert not self.training
            assert not torch.is_grad_enabled()
            return x

    module = Looks()
    summary = summarize(module, EXAMPLE, latency=latency)
    assert module.training
    assert list(summary.latency) == sizes
    assert set(seen) == {1, *sizes}
    for measured in summary.latency.values():
        assert 0 < measured.low <= measured.median <= measured.high
    text = json.dumps(summary.as_dict())
    assert [int(size) for size in json.loads(text)["latency"]] == sizes
    assert all(f"batch size {size}" in str(summary) for size in sizes)


def test_calls_take_turns() -> None:
    order: list[str] = []
    calls = {name: (lambda name=name: order.append(name)) for name in "abc"}  # type: ignore[misc]
    found = measure_latency(calls, rounds=4)
    rounds = ["".join(order[i : i + 3]) for i in range(0, len(order), 3)]
    assert rounds == ["abc", "bca", "cab", "abc", "bca", "cab"]
    assert list(found) == ["a", "b", "c"]


def test_it_leaves_no_trace() -> None:
    net = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Dropout(0.5))
    parametrizations.spectral_norm(net[0])
    net[2].eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    generator = torch.get_rng_state()
    summarize(net, EXAMPLE, latency=[2])
    assert torch.equal(torch.get_rng_state(), generator)
    after = net.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert [part.training for part in net] == [True, True, False]
    assert all(parameter.grad is None for parameter in net.parameters())


def test_examples_of_every_form() -> None:
    class Two(nn.Module):
        def forward(self, a: Tensor, b: Any = None, scale: float = 1.0) -> Tensor:
            assert len(a) == len(b["more"]) == 1
            assert b["table"].shape == (3, 2)
            return a @ b["more"].T * scale

    a, more, table = torch.ones(5, 8), torch.ones(5, 8), torch.ones(3, 2)
    more = {"more": more, "table": table}  # type: ignore[assignment]
    assert summarize(Two(), (a, more)).multiply_adds == 8
    assert summarize(Two(), {"b": more, "a": a, "scale": 2.0}).multiply_adds == 8


def test_batch_sizes_repeat_the_samples() -> None:
    example = (torch.arange(3), {"y": torch.arange(6).view(3, 2)}, torch.tensor(1.0), "text")
    numbers, rows, scalar, text = with_batch_size(example, 5)
    assert numbers.tolist() == [0, 1, 2, 0, 1]
    assert rows["y"][4].tolist() == [2, 3]
    assert (scalar.item(), text) == (1.0, "text")
    assert with_batch_size(example, 1)[0].tolist() == [0]


@pytest.mark.parametrize(
    ("example", "latency", "error", "message"),
    [
        ([1], False, ArgumentTypeError, "example, a list, must be a tensor"),
        (torch.ones(0, 8), False, ArgumentError, "no tensor with samples"),
        (torch.tensor(1.0), False, ArgumentError, "no tensor with samples"),
        (torch.ones(1, 7), False, ArgumentError, "Linear can't be called"),
        (EXAMPLE, "yes", ArgumentTypeError, "latency='yes' must be True, False or a list"),
        (EXAMPLE, 256, ArgumentTypeError, "latency=256 must be"),
        (EXAMPLE, [0], ArgumentError, r"latency=0 is not in \[1, inf\)"),
    ],
)
def test_bad_arguments(example: Any, latency: Any, error: type[Exception], message: str) -> None:
    layer = nn.Linear(8, 2)
    with pytest.raises(error, match=message):
        summarize(layer, example, latency=latency)
    assert layer.training


def test_nothing_to_summarize() -> None:
    with pytest.raises(ArgumentError, match="at least one"):
        summarize_all({}, EXAMPLE)
