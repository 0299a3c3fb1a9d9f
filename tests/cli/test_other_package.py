"""A class of the package ``pytorch_lightning`` is refused by a line that says what to do."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from lightning_dlopt.cli.other_package import other_package_message
from tests.cli.conftest import Run

MODULE = """
from pytorch_lightning import Callback, LightningDataModule, LightningModule


class Old(LightningModule):
    pass


class OldData(LightningDataModule):
    pass


class OldCallback(Callback):
    pass
"""


@pytest.fixture
def other_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a package with the other name in place, whether it is installed or not."""
    package = ModuleType("pytorch_lightning")
    for name, base in (
        ("LightningModule", torch.nn.Module),
        ("LightningDataModule", object),
        ("Callback", object),
    ):
        made = type(name, (base,), {"__module__": f"pytorch_lightning.core.{name.lower()}"})
        setattr(package, name, made)
    monkeypatch.setitem(sys.modules, "pytorch_lightning", package)


@pytest.mark.usefixtures("other_package")
@pytest.mark.parametrize(
    ("option", "key", "derived", "base"),
    [
        ("--model=olds.Old", "model", "olds.Old", "LightningModule"),
        ("--data=olds.OldData", "data", "olds.OldData", "LightningDataModule"),
        ("--trainer.callbacks+=olds.OldCallback", "trainer.callbacks", "OldCallback", "Callback"),
    ],
)
def test_class_of_the_other_package_is_named_and_what_to_do(
    option: str,
    key: str,
    derived: str,
    base: str,
    dlopt: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "olds.py").write_text(MODULE)
    monkeypatch.delitem(sys.modules, "olds", raising=False)
    model = [] if key == "model" else ["--model=lightning.pytorch.demos.boring_classes.BoringModel"]
    code, text = dlopt("fit", *model, option)
    monkeypatch.delitem(sys.modules, "olds", raising=False)
    assert code == 2
    (line,) = [line for line in text.splitlines() if "dlopt" in line]
    assert f"{key}: olds." in line
    assert f"{derived} derives from pytorch_lightning.{base}, " in line
    assert f"than lightning.pytorch.{base}," in line
    assert "write `from lightning.pytorch import` instead of" in line


def test_refused_class_of_neither_package_gets_no_advice() -> None:
    text = 'Parser key "model": Import path fractions.Fraction does not correspond to a subclass of'
    assert other_package_message(f"{text} LightningModule") is None
    assert other_package_message("anything else about fractions.Fraction") is None
