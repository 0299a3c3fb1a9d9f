"""A user's mistake gives one readable line and exit code 2, and touches nothing."""

import gzip
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from lightning_dlopt.core import UserError
from tests.cli.conftest import Run

FASHION = Path("/usr/share/datasets/fashion-mnist")

#: command-line options added to the quickstart, and what the line must name
OPTIONS = [
    (["--trainer.callbacks+=CosineLR"], ["CosineLR", "CosineLR(warmup='5%')", "keep one"]),
    (["--trainer.callbacks+=StepLR", "--trainer.callbacks.every=9"], ["StepLR", "CosineLR"]),
    (["--trainer.callbacks+=Cosine"], ["Cosine", "CosineLR"]),
    (["--trainer.callbacks+=Muon"], ["callbacks: Muon is an optimizer", "UseOptimizer"]),
    (["--trainer.callbacks+=orthogonalize"], ["orthogonalize can't be used here"]),
    (["--trainer.callbacks+=StepLR"], ["StepLR", "every"]),
    (["--trainer.callbacks+=StepLR", "--trainer.callbacks.every=soon"], ["every", "soon", "5ep"]),
    (
        ["--trainer.callbacks+=ExponentialDecayLR", "--trainer.callbacks.gamma=1.5"],
        ["gamma", "1.5", "(0, 1)"],
    ),
    (
        ["--trainer.callbacks+=MultiStepLR", "--trainer.callbacks.milestones=[5,3]"],
        ["milestones", "[5, 3]", "increasing"],
    ),
    (["--trainer.callbacks+=CosineLR", "--trainer.callbacks.flor=0.1"], ["CosineLR", "flor"]),
    (["--trainer.max_epochs=many"], ["max_epochs", "many"]),
    (["--trainer.max_epoch=3"], ["max_epoch"]),
    (["--data.batch_size=0"], ["batch_size", "0", "[1, inf)"]),
    (["--data=Digit"], ["Digit", "Digits"]),
    (["--model.num_classes=1"], ["num_classes", "1", "[2, inf)"]),
    (["--data.batch_size=1.5"], ["batch_size", "1.5", "int"]),
    (["--model.optimizer.lr=-1"], ["optimizer", "-1"]),
    (
        ["--trainer.callbacks+=CosineLR", "--trainer.callbacks.warmup=5%"],
        ["two CosineLR", "keep one"],
    ),
    (["--trainer.callbacks+=L1", "--trainer.callbacks.strength=-1"], ["L1", "-1", "[0, inf)"]),
    (["--trainer.callbacks+=SAM", "--trainer.callbacks.rho=far"], ["rho", "far"]),
    (
        ["--trainer.callbacks+=ClipGradNorm", "--trainer.callbacks.max_norm=0"],
        ["ClipGradNorm", "max_norm", "(0, inf]"],
    ),
    (
        [
            "--trainer.callbacks+=ClipGradNorm",
            "--trainer.callbacks.max_norm=1",
            "--trainer.gradient_clip_val=0.5",
        ],
        ["ClipGradNorm(max_norm=1.0)", "gradient_clip_val=0.5"],
    ),
    (
        [
            "--trainer.callbacks+=L1",
            "--trainer.callbacks.strength=1e-3",
            "--trainer.callbacks.parameters=[head.*]",
        ],
        ["L1", "head.*", "network.1.weight"],
    ),
    (["--ckpt_path=nowhere.ckpt"], ["nowhere.ckpt"]),
    (["--ckpt_path=best"], ["best", "path"]),
]


def one_line(printed: str) -> str:
    (line,) = [line for line in printed.splitlines() if line.startswith("dlopt: error:")]
    assert "Traceback" not in printed
    return line


@pytest.mark.parametrize(("options", "named"), OPTIONS, ids=lambda value: str(value)[:60])
def test_options(
    options: list[str], named: list[str], dlopt: Run, recipes: Path, tmp_path: Path
) -> None:
    code, printed = dlopt("fit", "--config", recipes / "quickstart.yaml", *options)
    assert code == 2
    line = one_line(printed)
    assert all(part in line for part in named), line
    assert not list(tmp_path.rglob("*.ckpt")), "something was trained"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("trainer: {foo: 1}", "foo"),
        ("trainr: {max_epochs: 1}", "trainr"),
        ("trainer: {callbacks+: [{class_path: CosineLR, init_args: {flor: 1}}]}", "flor"),
        ("trainer: [", "bad.yaml"),
        ("trainer: 3", "bad.yaml"),
        ("", "bad.yaml"),
        ("- 1", "bad.yaml"),
        ("\udcff\udcfe", "bad.yaml"),
        ("trainer: {callbacks+: [{init_args: {floor: 1}}]}", "callbacks"),
    ],
)
def test_config_files(text: str, named: str, dlopt: Run, recipes: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_bytes(text.encode("utf-8", "surrogateescape"))
    code, printed = dlopt("fit", "--config", recipes / "quickstart.yaml", "--config", bad)
    assert code == 2
    assert named in one_line(printed)


def test_an_overlay_before_its_base_is_not_lost(dlopt: Run, recipes: Path) -> None:
    overlay, base = recipes / "schedules" / "step.yaml", recipes / "quickstart.yaml"
    code, printed = dlopt("fit", "--config", overlay, f"--config={base}")
    assert code == 2
    line = one_line(printed)
    assert str(overlay) in line
    assert f"give {base} first" in line


@pytest.mark.parametrize("arguments", [["fit"], ["fti"], ["fit", "--config", "missing.yaml"]])
def test_commands(arguments: list[str], dlopt: Run) -> None:
    code, printed = dlopt(*arguments)
    assert code == 2
    assert one_line(printed)


def test_checkpoints_of_another_model_or_damaged(dlopt: Run, recipes: Path, tmp_path: Path) -> None:
    common = ["--config", recipes / "quickstart.yaml"]
    dlopt("fit", *common, "--trainer.max_epochs=1")
    (saved,) = tmp_path.rglob("last.ckpt")
    before = saved.read_bytes()

    narrow = "--model.network.sizes=[64,32,128,10]"
    code, printed = dlopt("test", *common, narrow, "--ckpt_path", saved)
    assert (code, "network.1.weight" in one_line(printed)) == (2, True), printed

    truncated = tmp_path / "truncated.ckpt"
    truncated.write_bytes(before[: len(before) // 2])
    other = tmp_path / "other.ckpt"
    torch.save({"weights": torch.zeros(3)}, other)
    odd = tmp_path / "odd.ckpt"
    torch.save({"state_dict": [1]}, odd)
    bare = tmp_path / "bare.ckpt"
    torch.save({"state_dict": {}}, bare)
    foreign = "no Lightning checkpoint"
    for path, named in (
        (truncated, "truncated"),
        (other, foreign),
        (odd, foreign),
        (bare, foreign),
    ):
        code, printed = dlopt("test", *common, "--ckpt_path", path)
        assert code == 2
        line = one_line(printed)
        assert str(path) in line
        assert named in line

    plain = yaml.safe_load((recipes / "quickstart.yaml").read_text())
    del plain["trainer"]["callbacks"][0]
    without = tmp_path / "without.yaml"
    without.write_text(yaml.safe_dump(plain))
    code, printed = dlopt("fit", "--config", without, "--ckpt_path", saved)
    assert code == 2
    assert "CosineLR(warmup='5%')" in one_line(printed)
    assert saved.read_bytes() == before


def test_data_that_are_missing_or_damaged(dlopt: Run, recipes: Path, tmp_path: Path) -> None:
    def line(*options: object) -> str:
        code, printed = dlopt("fit", "--config", recipes / "source_example.yaml", *options)
        assert code == 2, printed
        return one_line(printed)

    empty = tmp_path / "empty"
    empty.mkdir()
    folder = ["--data=ImageFolder", f"--data.data_dir={empty}"]
    assert str(empty) in line(*folder)

    (empty / "train" / "cat").mkdir(parents=True)
    (empty / "train" / "dog").mkdir()
    for index in range(40):
        Image.new("RGB", (8, 8)).save(empty / "train" / "cat" / f"{index}.png")
        Image.new("RGB", (8, 8)).save(empty / "train" / "dog" / f"{index}.png")
    broken = empty / "train" / "dog" / "39.png"
    broken.write_bytes(broken.read_bytes()[:40])
    options = ["--data.image_size=8", "--model.network.sizes=[192,10]"]
    assert str(broken) in line(*folder, *options, "--data.validation=0")

    damaged = tmp_path / "damaged"
    shutil.copytree(FASHION, damaged)
    images = damaged / "train-images-idx3-ubyte.gz"
    images.write_bytes(gzip.compress(gzip.decompress(images.read_bytes())[:10_000], 1))
    assert str(images) in line(f"--data.data_dir={damaged}")


def test_a_folder_that_holds_another_run(dlopt: Run, recipes: Path) -> None:
    options = ["--trainer.logger=false", "--trainer.max_epochs=1", "--trainer.callbacks=null"]
    assert dlopt("fit", "--config", recipes / "quickstart.yaml", *options)[0] == 0
    code, printed = dlopt("fit", "--config", recipes / "quickstart.yaml", *options)
    assert code == 2
    assert "config.yaml is another run's" in one_line(printed)


@pytest.mark.parametrize("recipe", ["schedule_free", "lion"])
def test_a_package_that_is_not_installed(
    recipe: str, monkeypatch: pytest.MonkeyPatch, dlopt: Run, recipes: Path
) -> None:
    for name in ("schedulefree", "pytorch_optimizer"):
        monkeypatch.setitem(sys.modules, name, None)
    code, printed = dlopt(
        "fit",
        "--config",
        recipes / "quickstart.yaml",
        "--config",
        recipes / f"optimizers/{recipe}.yaml",
    )
    assert code == 2
    assert "pip install 'lightning-dlopt[" in one_line(printed)


def test_a_defect_is_not_called_a_mistake(monkeypatch: pytest.MonkeyPatch, dlopt: Run) -> None:
    def broken(arguments: list[str]) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("lightning_dlopt.cli.catalogue.run", broken)
    with pytest.raises(ZeroDivisionError):
        dlopt("list")
    assert not issubclass(ZeroDivisionError, UserError)
