"""Exported files, loaded by torch and ONNX Runtime themselves, against the module."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from lightning_dlopt import (
    MLP,
    AttentionNet,
    ConvNet,
    ImageClassifier,
    RecurrentNet,
    export_module,
    squeeze_excite,
)
from lightning_dlopt.core import ArgumentError, ArgumentTypeError

IMAGES = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
TOKENS = torch.tensor([[5, 6, 7, 1], [8, 0, 0, 0], [3, 2, 0, 0]])


def excited() -> nn.Module:
    network = ConvNet([1, 8, 16])
    assert squeeze_excite(network, reduction=2, min_channels=8)
    return network


def normed() -> nn.Module:
    network = MLP([64, 16, 10])
    parametrizations.weight_norm(network[1])
    return network


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "mlp": (lambda: MLP([64, 16, 10], dropout=0.5), IMAGES),
    "convolutions": (excited, IMAGES),
    "parametrized": (normed, IMAGES),
    "classifier": (lambda: ImageClassifier(ConvNet([1, 4, 8])), IMAGES),
    "lstm": (lambda: RecurrentNet(20, 3, width=8), TOKENS),
    "gru": (lambda: RecurrentNet(20, 3, width=8, kind="gru", bidirectional=False), TOKENS),
    "attention": (lambda: AttentionNet(20, 3, width=8, heads=2), TOKENS),
    "encoder": (
        lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
        torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(2)),
    ),
}


def run_onnx(path: Path, *inputs: Tensor) -> list[Any]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    feed = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
    return list(session.run(None, feed))


@pytest.mark.parametrize("name", NETWORKS)
def test_files_compute_what_the_module_does(name: str, tmp_path: Path) -> None:
    build, example = NETWORKS[name]
    module = build()
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    generator = torch.get_rng_state()
    found = export_module(module, example, tmp_path / "net")
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(tensor, before[key]) for key, tensor in module.state_dict().items())
    assert module.training
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.onnx", "net.pt2"]
    length = ("length",) if name == "attention" else ()
    assert {one.free_sizes for one in found[1:]} == {("batch", *length)}
    assert all(one.difference < 1e-5 for one in found)
    module.eval()
    onnx.checker.check_model(tmp_path / "net.onnx", full_check=True)
    program = torch.export.load(tmp_path / "net.pt2").module()
    for size in (1, 2, 7):
        batch = example[torch.arange(size) % 3]
        with torch.no_grad():
            expected = module(batch)
        torch.testing.assert_close(program(batch), expected, rtol=1e-5, atol=1e-6)
        (output,) = run_onnx(tmp_path / "net.onnx", batch)
        torch.testing.assert_close(torch.tensor(output), expected, rtol=1e-4, atol=1e-5)


def test_texts_of_any_length(tmp_path: Path) -> None:
    module = AttentionNet(20, 3, width=8, heads=2, max_length=40).eval()
    export_module(module, TOKENS, tmp_path)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert session.get_inputs()[0].shape == ["batch", "length"]
    program = torch.export.load(tmp_path / "model.pt2").module()
    for shape in ((1, 1), (5, 40), (2, 7)):
        tokens = torch.arange(shape[0] * shape[1]).view(shape) % 20
        with torch.no_grad():
            expected = module(tokens)
        torch.testing.assert_close(program(tokens), expected)
        (output,) = run_onnx(tmp_path / "model.onnx", tokens)
        torch.testing.assert_close(torch.tensor(output), expected, rtol=1e-4, atol=1e-5)


class Several(nn.Module):
    """Takes and returns several things."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, a: Tensor, more: dict[str, Tensor], scale: float = 1.0) -> dict[str, Any]:
        total = self.layer(a) + more["b"] * scale
        return {"total": total, "parts": (total.mean(1), total > 0)}


@pytest.mark.parametrize("as_dict", [False, True])
def test_several_inputs_and_outputs(as_dict: bool, tmp_path: Path) -> None:
    module, a, b = Several(), torch.randn(3, 4), torch.randn(3, 4)
    example: Any = {"more": {"b": b}, "a": a, "scale": 2.0} if as_dict else (a, {"b": b}, 2.0)
    found = export_module(module, example, tmp_path)
    assert [one.name for one in found] == ["Several", "model.pt2", "model.onnx"]
    assert found[2].difference < 1e-6
    given = (b, a) if as_dict else (a, b)
    total, mean, positive = run_onnx(tmp_path / "model.onnx", *given)
    expected = module.layer(a) + b * 2
    torch.testing.assert_close(torch.tensor(total), expected.detach())
    assert mean.shape == (3,)
    assert positive.dtype == np.bool_


def test_compiled_modules(tmp_path: Path, fresh_compiler: None) -> None:
    layer = nn.Linear(4, 3)
    part = nn.Linear(4, 4)
    part.compile()
    modules: list[Any] = [torch.compile(layer), nn.Sequential(part, layer)]
    for index, module in enumerate(modules):
        found = export_module(module, torch.randn(3, 4), tmp_path / str(index))
        assert found[1].difference == 0.0


class Fixed(nn.Module):
    """Works with the number of samples as a number."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if len(x) == 1 else torch.stack([one * 2 for one in x])


def test_a_batch_size_that_is_written_in_gives_files_for_one_sample(tmp_path: Path) -> None:
    calibration = [torch.randn(3, 4)]
    labels = torch.tensor([1, 2, 3])
    found = export_module(
        nn.Sequential(nn.Linear(4, 4), Fixed()),
        torch.randn(3, 4),
        tmp_path / "net",
        formats=["onnx", "int8"],
        latency=True,
        calibration=calibration,
        evaluation=[(calibration[0], labels)],
    )
    assert [one.free_sizes for one in found] == [("batch",), (), ()]
    assert [list(one.latency) for one in found] == [[1, 256], [1], [1]]
    assert found[2].accuracy == found[0].accuracy
    assert run_onnx(tmp_path / "net.onnx", torch.ones(1, 4))[0].shape == (1, 4)
    assert " none " in str(found).splitlines()[2]


class Eigenvalues(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.eigvalsh(x)


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Drops(nn.Module):
    """Draws in evaluation, so that no two runs agree."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, training=True)


class Counts(nn.Module):
    """Returns what no ONNX file can."""

    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        return x, 3


class Nothing(nn.Module):
    pass


@pytest.mark.parametrize(
    ("module", "example", "message"),
    [
        (Eigenvalues(), torch.eye(4).repeat(2, 1, 1), r"torch's aten\._linalg_eigh, which the mod"),
        (Branches(), torch.ones(2, 4), "torch.export can't follow Branches"),
        (Drops(), torch.ones(2, 40), "differs from Drops by .* more than tolerance=0.0001"),
        (Counts(), torch.ones(2, 4), r"ONNX can't be written: AttributeError: 'int' object .*"),
        (Nothing(), torch.ones(2, 4), "Nothing can't be called .*forward"),
        (nn.Linear(4, 4), torch.ones(2, 3), "Linear can't be called"),
        (nn.Linear(4, 4).bfloat16(), torch.ones(2, 4).bfloat16(), "can't load .* Gemm"),
        (nn.LazyLinear(4), torch.ones(2, 4), "lazy"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_exported(
    module: nn.Module, example: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ArgumentError, match=message):
        export_module(module, example, tmp_path / "net")
    assert not list(tmp_path.iterdir()), "files were left behind"
    assert module.training


def test_what_onnx_cannot_hold_can_be_written_by_torch(tmp_path: Path) -> None:
    example = torch.randn(2, 4, 4)
    export_module(Eigenvalues(), example, tmp_path / "net", formats=["torch_export"])
    found = export_module(
        nn.Linear(4, 4).bfloat16(),
        torch.ones(2, 4).bfloat16(),
        tmp_path / "half",
        formats=["torch_export"],
    )
    assert found[1].difference == 0.0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"formats": []}, ArgumentError, "formats must hold at least one"),
        ({"formats": "onnx"}, ArgumentTypeError, "formats='onnx' must be a list"),
        ({"formats": ["torchscript"]}, ArgumentError, "'torchscript' must be one of 'torch_export"),
        ({"tolerance": -1}, ArgumentError, r"tolerance=-1 is not in \[0, inf\)"),
        ({"formats": ["int8"]}, ArgumentError, "at least one batch of calibration"),
        ({"example": [1]}, ArgumentTypeError, "example, a list"),
        ({"path": 3}, ArgumentTypeError, "path=3 must be a str or a Path"),
        ({"path": "x" * 300}, ArgumentError, "path='xxx.* name too long"),
    ],
)
def test_bad_arguments(
    arguments: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    given = {"module": nn.Linear(4, 4), "example": torch.ones(1, 4), "path": tmp_path / "net"}
    with pytest.raises(error, match=f"(?i){message}"):
        export_module(**{**given, **arguments})
    assert not list(tmp_path.iterdir())


def test_files_are_replaced_only_on_demand(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_text("precious")
    layer, example = nn.Linear(4, 4), torch.ones(1, 4)
    with pytest.raises(ArgumentError, match=r"net.onnx is there already: say overwrite=True"):
        export_module(layer, example, tmp_path / "net")
    with pytest.raises(ArgumentError, match="differs"):
        export_module(Drops(), torch.ones(1, 40), tmp_path / "net", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]
    assert (tmp_path / "net.onnx").read_text() == "precious"
    export_module(layer, example, tmp_path / "net", overwrite=True)
    assert run_onnx(tmp_path / "net.onnx", example)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_in_the_place_of_a_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").mkdir()
    with pytest.raises(ArgumentError, match=r"net.onnx is a folder"):
        export_module(nn.Linear(4, 4), torch.ones(1, 4), tmp_path / "net", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArgumentError, match=r"file can't be written to: .*"):
        export_module(nn.Linear(4, 4), torch.ones(1, 4), tmp_path / "file" / "net")


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_missing_packages(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    layer, example = nn.Linear(4, 4), torch.ones(1, 4)
    message = rf"'onnx' needs {package}: pip install 'lightning-dlopt\[export\]'"
    with pytest.raises(ArgumentError, match=message):
        export_module(layer, example, tmp_path / "net")
    export_module(layer, example, tmp_path / "net", formats=["torch_export"])
    assert [path.name for path in tmp_path.iterdir()] == ["net.pt2"]
