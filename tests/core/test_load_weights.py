import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lightning_dlopt.core import CheckpointError
from lightning_dlopt.core.load_weights import load_weights

SAVED = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def under(prefix: str) -> dict[str, Any]:
    return {prefix + key: value for key, value in SAVED.state_dict().items()}


def fresh() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def same(module: nn.Module) -> bool:
    return all(torch.equal(v, SAVED.state_dict()[k]) for k, v in module.state_dict().items())


@pytest.mark.parametrize(
    ("content", "prefix"),
    [
        (under(""), None),
        ({"state_dict": under("network.")}, None),
        ({"state_dict": {**under("model.network."), "loss.weight": torch.ones(3)}}, None),
        ({"state_dict": {**under(""), "head.weight": torch.ones(3)}}, None),
        ({"state_dict": under("network._orig_mod.")}, None),
        ({"state_dict": {**under("a."), **under("b.")}}, "b."),
    ],
)
def test_the_weights_are_found(content: Any, prefix: str | None, tmp_path: Path) -> None:
    module = fresh()
    assert not same(module)
    torch.save(content, tmp_path / "weights.pt")
    load_weights(module, tmp_path / "weights.pt", prefix)
    assert same(module)


class Code:
    """Would be run if it were unpickled."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("was-run"),)


@pytest.mark.parametrize(
    ("content", "prefix", "message"),
    [
        ({"state_dict": {**under("a."), **under("b.")}}, None, "several prefixes, 'a.', 'b.'"),
        ({"network.weight": torch.ones(1)}, None, "doesn't hold the weights of Sequential"),
        ({}, None, "the file has none"),
        ([1], None, "holds a list, not weights"),
        (under("a."), "b.", "under 'b.' don't fit"),
        ({**under(""), "0.weight": torch.ones(7, 7)}, None, "size mismatch"),
        (Code(), None, "can't read weights"),
    ],
)
def test_what_does_not_fit_is_told(
    content: Any,
    prefix: str | None,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match=re.escape(message)):
        load_weights(fresh(), tmp_path / "weights.pt", prefix)
    assert not Path("was-run").exists()


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"can't read weights from .*nowhere"):
        load_weights(fresh(), tmp_path / "nowhere.ckpt")
