"""How exported files are compared and shown, and those with 8 bits."""

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

import lightning_dlopt
from lightning_dlopt import AttentionNet, ConvNet, RecurrentNet, export_module
from lightning_dlopt.core import ArgumentError
from lightning_dlopt.structure.export.compare import largest_difference


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_table(tmp_path: Path) -> None:
    found = export_module(nn.Linear(4, 3), drawn(3, 4), tmp_path / "net", latency=True)
    head, *rows = str(found).splitlines()
    titles = ["bytes", "largest difference", "free sizes", "ms at batch size 1", "size 256"]
    assert [head.find(title) for title in titles] == sorted(head.find(title) for title in titles)
    assert all(title in head for title in titles)
    assert [row.split()[0] for row in rows] == ["Linear", "net.pt2", "net.onnx"]
    for one, row in zip(found, rows, strict=True):
        assert f"{one.bytes:,}" in row
        assert list(one.latency) == [1, 256]
        assert one.path is None or Path(one.path).stat().st_size == one.bytes
    plain = json.loads(json.dumps(found.as_dicts()))
    assert [one["name"] for one in plain] == ["Linear", "net.pt2", "net.onnx"]
    assert plain[2]["latency"]["256"]["median"] > 0


INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("found", "expected", "difference"),
    [
        ([0.5, 0.2], [0.5, 0.1], 0.1),
        ([10.0, 21.0], [10.0, 20.0], 1 / 20),
        ([INF, NAN, 1.0], [INF, NAN, 1.0], 0.0),
        ([NAN], [1.0], INF),
        ([1.0], [NAN], INF),
        ([INF], [-INF], INF),
        ([1.0, 2.0], [1.0], INF),
        ([], [], 0.0),
    ],
)
def test_differences(found: list[float], expected: list[float], difference: float) -> None:
    tensors = [torch.tensor(found, dtype=torch.float64)], [torch.tensor(expected)]
    assert largest_difference(*tensors) == pytest.approx(difference)


def test_differences_of_other_types() -> None:
    left, right = torch.tensor([True, False]), torch.tensor([True, True])
    assert largest_difference([left], [right]) == 1.0
    assert largest_difference([torch.tensor([1 + 2j])], [torch.tensor([1 + 1.5j])]) == 0.5 / 1.5
    assert largest_difference([left], [left, right]) == INF


def trained() -> tuple[nn.Module, Tensor, Tensor]:
    """Return a network that tells which of four quadrants is bright, and samples."""
    network = ConvNet([1, 16, 32], num_classes=4)
    labels = torch.arange(256) % 4
    images = 0.3 * drawn(256, 1, 8, 8)
    for quadrant, (row, column) in enumerate([(0, 0), (0, 4), (4, 0), (4, 4)]):
        images[labels == quadrant, :, row : row + 4, column : column + 4] += 1
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(20):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
    return network, images, labels


def test_eight_bits_keep_the_accuracy_in_a_smaller_file(tmp_path: Path) -> None:
    network, images, labels = trained()
    found = export_module(
        network,
        images[:8],
        tmp_path / "net",
        formats=["onnx", "int8"],
        calibration=images.split(32),
        evaluation=zip(images.split(100), labels.split(100), strict=True),
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.int8.onnx", "net.onnx"]
    module, single, eight = found
    network.eval()
    with torch.no_grad():
        accuracy = (network(images).argmax(1) == labels).float().mean().item()
    assert module.accuracy == pytest.approx(accuracy)
    assert accuracy > 0.9
    assert single.accuracy is None
    assert eight.accuracy is not None
    assert eight.accuracy > accuracy - 0.05
    assert single.difference < 1e-5 < eight.difference
    graph = onnx.load(tmp_path / "net.int8.onnx").graph
    weights = {one.name: one for one in graph.initializer}
    stored = sum(
        onnx.numpy_helper.to_array(one).size
        for one in weights.values()
        if one.data_type == onnx.TensorProto.INT8 and len(one.dims) > 1
    )
    assert stored == sum(p.numel() for p in network.parameters() if p.dim() > 1)
    scales = [len(onnx.numpy_helper.to_array(one).reshape(-1)) for one in weights.values()]
    assert {16, 32} <= set(scales), "one scale for each channel"
    assert eight.bytes < module.bytes
    assert "accuracy" in str(found).splitlines()[0]


@pytest.mark.parametrize("targets", [torch.zeros(6, 2), None])
def test_without_classes_the_outputs_are_compared(targets: Any, tmp_path: Path) -> None:
    layer, inputs = nn.Linear(4, 2), drawn(6, 4)
    found = export_module(
        layer,
        inputs,
        tmp_path / "net",
        formats=["int8"],
        calibration=[inputs],
        evaluation=[(inputs, targets)],
    )
    assert [path.name for path in tmp_path.iterdir()] == ["net.int8.onnx"]
    assert found[0].mean_difference is None
    assert found[1].accuracy is None
    difference = found[1].mean_difference
    assert difference is not None
    assert 0 < difference < 0.05
    assert "mean difference" in str(found)


TOKENS = torch.tensor([[5, 6, 7, 1, 4, 4], [8, 2, 9, 0, 0, 0]])


def test_texts_are_padded_where_their_length_is_fixed(tmp_path: Path) -> None:
    network = RecurrentNet(20, 3, width=8).eval()
    longer = torch.cat([TOKENS, TOKENS], 1)
    batches = [TOKENS, TOKENS[:, :3], longer]
    labels = torch.tensor([1, 2])
    arguments: dict[str, Any] = {
        "formats": ["int8"],
        "calibration": batches,
        "evaluation": [(batch, labels) for batch in batches],
    }
    with pytest.raises(ArgumentError, match="Expected: 6"):
        export_module(network, TOKENS, tmp_path / "net", **arguments)
    found = export_module(network, TOKENS, tmp_path / "net", pad_id=0, **arguments)
    assert found[1].free_sizes == ("batch",)
    right = [(network(batch[:, :6]).argmax(1) == labels).sum() for batch in batches]
    assert found[0].accuracy == pytest.approx(sum(right).item() / 6)  # type: ignore[union-attr]


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_masks_of_attention_stay_infinite(tmp_path: Path) -> None:
    torch.manual_seed(1)
    found = export_module(
        AttentionNet(20, 3, width=8, heads=2),
        TOKENS,
        tmp_path / "net",
        formats=["int8"],
        calibration=[TOKENS[:, :length] for length in (6, 4, 3, 1)],  # of others nothing is known
        evaluation=[(TOKENS, None)],
        pad_id=0,
    )
    assert found[1].free_sizes == ("batch", "length")
    assert found[1].difference < 0.1


def test_files_hold_nothing_of_the_machine(tmp_path: Path) -> None:
    images = torch.randn(3, 1, 8, 8)
    arguments: dict[str, Any] = {"formats": ["onnx", "int8"], "calibration": [images]}
    network = ConvNet([1, 8, 16])
    for one in export_module(network, images, tmp_path / "net", **arguments)[1:]:
        content = Path(str(one.path)).read_bytes()
        assert str(Path(lightning_dlopt.__file__).parent).encode() not in content
        assert b"stack_trace" not in content
