"""``dlopt export``."""

import sys
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
import yaml
from torch import Tensor, nn

from lightning_dlopt import MLP, ConvNet, Digits, ImageClassifier, squeeze_excite
from tests.cli.conftest import Run

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
EXCITE = {"class_path": "SqueezeExcite", "init_args": {"reduction": 2, "min_channels": 8}}
CONVOLUTIONS = {"class_path": "lightning_dlopt.ConvNet", "init_args": {"channels": [1, 8, 16]}}


def train(dlopt: Run, folder: Path, *arguments: object) -> tuple[Path, Path]:
    """Train for an epoch and return the saved configuration and the checkpoint."""
    code, printed = dlopt(*["fit", *arguments, "--trainer.max_epochs=1", *QUIET])
    assert code == 0, printed
    (config,) = folder.rglob("config.yaml")
    (checkpoint,) = folder.rglob("last.ckpt")
    return config, checkpoint


@pytest.fixture
def trained(dlopt: Run, recipes: Path, tmp_path: Path) -> list[object]:
    """The options that say which run is exported, quickly."""
    config, checkpoint = train(dlopt, tmp_path, "--config", recipes / "quickstart.yaml")
    return ["export", "--config", config, "--ckpt_path", checkpoint, "--no_latency"]


def line_of(printed: str) -> str:
    (line,) = [line for line in printed.splitlines() if line.startswith("dlopt: error:")]
    assert "Traceback" not in printed
    assert "usage:" not in printed
    assert "torch/fx" not in printed  # torch's own log of what it couldn't follow
    return line


def validation() -> tuple[Tensor, Tensor]:
    data = Digits(batch_size=32)
    data.setup("fit")
    inputs, targets = next(iter(data.val_dataloader()))  # type: ignore[arg-type]
    return inputs, targets


def compute(path: Path, inputs: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.tensor(session.run(None, {session.get_inputs()[0].name: inputs.numpy()})[0])


def load(network: nn.Module, checkpoint: Path) -> nn.Module:
    module = ImageClassifier(network)
    module.load_state_dict(torch.load(checkpoint, weights_only=True)["state_dict"])
    return module.eval()


def test_the_quickstart_in_every_format(dlopt: Run, recipes: Path, tmp_path: Path) -> None:
    config, checkpoint = train(dlopt, tmp_path, "--config", recipes / "quickstart.yaml")
    output = tmp_path / "new" / "digits"
    before = torch.get_rng_state()
    code, printed = dlopt(
        *["export", "--config", config, "--ckpt_path", checkpoint, "--output", output],
        *["--format", "torch_export, onnx,int8", "--tolerance", "1e-5"],
    )
    assert code == 0, printed
    assert torch.equal(torch.get_rng_state(), before)
    names = ["digits.pt2", "digits.onnx", "digits.int8.onnx"]
    assert {path.name for path in output.parent.iterdir()} == set(names)
    inputs, targets = validation()
    module = load(MLP([64, 128, 128, 10]), checkpoint)
    with torch.no_grad():
        logits = module(inputs)
    torch.testing.assert_close(
        torch.export.load(output.with_name(names[0])).module()(inputs), logits
    )
    torch.testing.assert_close(
        compute(output.with_name(names[1]), inputs), logits, rtol=1e-4, atol=1e-5
    )
    eight = compute(output.with_name(names[2]), inputs)
    # the table has each file's bytes, and accuracies over the whole validation set
    (start,) = [i for i, line in enumerate(printed.splitlines()) if "largest difference" in line]
    assert printed.splitlines()[start - 1] == "ImageClassifier.forward of float32 (batch, 1, 8, 8)"
    head, *rows = printed.splitlines()[start : start + 5]
    assert "ms at batch size 256" in head
    assert [row.split()[0] for row in rows] == ["ImageClassifier", *names]
    for row, values in ((rows[0], logits), (rows[3], eight)):
        accuracy = (values.argmax(1) == targets).float().mean()
        assert row.split()[-1] == f"{accuracy:.4f}"
    for row in rows[1:]:
        path = output.with_name(row.split()[0])
        assert row.split()[1] == f"{path.stat().st_size:,}"
    assert not list(tmp_path.glob("lightning_logs*"))
    assert len(list(tmp_path.rglob("version_*"))) == 1, "the export wrote a run of its own"


@pytest.mark.parametrize("in_config", [True, False])
def test_a_changed_model_is_rebuilt_from_its_plan(
    in_config: bool, dlopt: Run, recipes: Path, tmp_path: Path
) -> None:
    base = yaml.safe_load((recipes / "quickstart.yaml").read_text())
    base["model"]["init_args"]["network"] = CONVOLUTIONS
    plain, overlay = tmp_path / "plain.yaml", tmp_path / "excite.yaml"
    plain.write_text(yaml.safe_dump(base))
    overlay.write_text(yaml.safe_dump({"trainer": {"callbacks+": [EXCITE]}}))
    config, checkpoint = train(dlopt, tmp_path, "--config", plain, "--config", overlay)
    code, printed = dlopt(
        *["export", "--config", config if in_config else plain, "--ckpt_path", checkpoint],
        *["--output", "net", "--format", "onnx", "--no_latency"],
    )
    assert code == 0, printed
    network = ConvNet([1, 8, 16])
    squeeze_excite(network, reduction=2, min_channels=8)
    module, (inputs, _) = load(network, checkpoint), validation()
    with torch.no_grad():
        expected = module(inputs)
    found = compute(tmp_path / "net.onnx", inputs)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_module_with_its_own_example_and_layers_made_in_setup(dlopt: Run, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    callback = {"class_path": "ModelCheckpoint", "init_args": {"filename": "last"}}
    model = {"class_path": "tests.cli.exported_modules.OwnExample"}
    options = {"callbacks": [callback], "max_steps": 2}
    config.write_text(yaml.safe_dump({"model": model, "trainer": options}))
    code, printed = dlopt("fit", "--config", config, *QUIET)
    assert code == 0, printed
    (checkpoint,) = tmp_path.rglob("last.ckpt")
    code, printed = dlopt(
        *["export", "--config", config, "--ckpt_path", checkpoint, "--format", "onnx,int8"]
    )
    assert code == 0, printed
    weights = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert weights["layer.weight"].shape == (3, 32)
    inputs = torch.randn(5, 32)
    expected = nn.functional.linear(inputs, weights["layer.weight"], weights["layer.bias"])
    torch.testing.assert_close(compute(tmp_path / "model.onnx", inputs), expected)
    assert "mean difference" in printed


@pytest.mark.parametrize(
    ("network", "takes"), [("AttentionNet", "(batch, length)"), ("RecurrentNet", "(batch, 12)")]
)
def test_texts_of_many_lengths(network: str, takes: str, dlopt: Run, tmp_path: Path) -> None:
    words = ["red", "green", "blue", "cat", "dog", "fish"]
    texts = [" ".join(words[(i * k) % 6] for k in range(2 + i % 11)) for i in range(60)]
    lines = [f"{'ab'['cat' in text]},{text}" for text in texts]
    (tmp_path / "texts.csv").write_text("\n".join(["label,text", *lines]))
    sizes = {"vocab_size": 20, "num_classes": 2, "width": 8}
    module = {
        "num_classes": 2,
        "network": {"class_path": f"lightning_dlopt.{network}", "init_args": sizes},
    }
    callback = {"class_path": "ModelCheckpoint", "init_args": {"filename": "last"}}
    logger = {"class_path": "CSVLogger", "init_args": {"save_dir": "runs"}}
    data = {"path": "texts.csv", "vocab_size": 20, "validation": 30, "batch_size": 4}
    base = tmp_path / "base.yaml"
    base.write_text(
        yaml.safe_dump(
            {
                "trainer": {"callbacks": [callback], "logger": logger},
                "model": {"class_path": "TextClassifier", "init_args": module},
                "data": {"class_path": "TextClassification", "init_args": data},
            }
        )
    )
    config, checkpoint = train(dlopt, tmp_path, "--config", base)
    code, printed = dlopt(
        *["export", "--config", config, "--ckpt_path", checkpoint, "--no_latency"],
        *["--format", "torch_export,onnx,int8"],
    )
    assert code == 0, printed
    assert f"TextClassifier.forward of int64 {takes}" in printed
    assert all(row.split()[-1] != "-" for row in printed.splitlines() if "int8.onnx " in row)


def test_files_are_replaced_only_on_demand(
    trained: list[object], dlopt: Run, tmp_path: Path
) -> None:
    (tmp_path / "model.pt2").write_text("precious")
    only = [*trained, "--format", "torch_export"]
    code, printed = dlopt(*only)
    assert (code, "model.pt2 is there already: say --overwrite" in line_of(printed)) == (2, True)
    assert (tmp_path / "model.pt2").read_text() == "precious"
    assert dlopt(*only, "--overwrite")[0] == 0
    assert torch.export.load(tmp_path / "model.pt2")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--format", "torchscript"], ["formats='torchscript'", "'torch_export', 'onnx', 'int8'"]),
        (["--format", ","], ["formats", "at least one"]),
        (["--tolerance", "-1"], ["tolerance=-1.0", "[0, inf)"]),
        (["--calibration_batches", "0"], ["--calibration_batches", "at least 1"]),
        (["--output", "taken/net"], ["taken", "can't be written to"]),
        (["--data.split_seed=5"], ["split_seed=5", "split_seed=0"]),
        (["--ckpt_path", "nowhere.ckpt"], ["nowhere.ckpt", "no such file"]),
        (["--ckpt_path", "last"], ["last", "no such file"]),
        (["--model.network.sizes=[64,32,128,10]"], ["network.1.weight", "another model"]),
        (["--input_key", "images"], ["images", "2 items"]),
        (["--model=tests.cli.exported_modules.Spectrum"], ["aten._linalg_eigh", "formats"]),
        (["--model=tests.cli.exported_modules.Unusable"], ["Unusable", '"forward"']),
        (["--outptu", "x"], ["outptu"]),
        (["--tolerance", "small"], ["dlopt export: argument --tolerance", "'small'"]),
        (["--model=tests.cli.exported_modules.Branching"], ["can't follow Branching"]),
    ],
    ids=lambda value: str(value)[:40],
)
def test_mistakes(
    options: list[str], named: list[str], trained: list[object], dlopt: Run, tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("")
    before = set(tmp_path.rglob("*"))
    code, printed = dlopt(*trained, *options)
    assert code == 2, printed
    line = line_of(printed)
    assert all(part in line for part in named), line
    assert set(tmp_path.rglob("*")) == before


def test_hooks_that_look_at_the_trainer(trained: list[object], dlopt: Run, tmp_path: Path) -> None:
    own = "tests.cli.exported_modules"
    options = [f"--model={own}.AsksTrainer", f"--data={own}.AskingDigits", "--format=int8"]
    code, printed = dlopt(*trained, *options, "--output", "asking")
    assert code == 0, printed
    assert (tmp_path / "asking.int8.onnx").exists()


def test_runs_of_another_machine(trained: list[object], dlopt: Run, tmp_path: Path) -> None:
    elsewhere = ["gpu", "8", "4", "ddp"]
    keys = ["accelerator", "devices", "num_nodes", "strategy"]
    options = [f"--trainer.{key}={value}" for key, value in zip(keys, elsewhere, strict=True)]
    code, printed = dlopt(*trained, *options, "--format=torch_export")
    assert code == 0, printed
    assert (tmp_path / "model.pt2").exists()


def test_a_checkpoint_whose_weights_are_none(
    trained: list[object], dlopt: Run, tmp_path: Path
) -> None:
    (checkpoint,) = tmp_path.rglob("last.ckpt")
    content = torch.load(checkpoint, weights_only=True)
    content["state_dict"] = dict.fromkeys(content["state_dict"], "text")
    torch.save(content, tmp_path / "text.ckpt")
    code, printed = dlopt(*trained, "--ckpt_path", tmp_path / "text.ckpt")
    assert (code, "network.1.weight is ()" in line_of(printed)) == (2, True), printed


def test_what_must_be_given(dlopt: Run, recipes: Path, tmp_path: Path) -> None:
    assert "--config is missing" in line_of(dlopt("export")[1])
    code, printed = dlopt("export", "--config", recipes / "quickstart.yaml")
    assert (code, "--ckpt_path is missing" in line_of(printed)) == (2, True)


def test_a_missing_package(
    trained: list[object], dlopt: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    code, printed = dlopt(*trained)
    assert code == 2
    assert "'onnx' needs onnxruntime: pip install 'lightning-dlopt[export]'" in line_of(printed)
    assert not list(tmp_path.glob("model*"))
    assert dlopt(*trained, "--format", "torch_export")[0] == 0


def test_help(dlopt: Run) -> None:
    assert "dlopt export --config" in dlopt("--help")[1]
    code, printed = dlopt("export", "--help")
    assert code == 0
    words: list[Any] = ["--output", "--format", "int8", "--overwrite", "--ckpt_path", "--tolerance"]
    assert all(word in printed for word in words)
