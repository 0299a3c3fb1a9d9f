"""The README's commands of ``compare`` and ``advise`` do what it says, with smaller budgets."""

import shlex
from pathlib import Path

import pytest

from lightning_dlopt.evidence.results import read_study
from tests.cli.conftest import Run

ROOT = Path(__file__).parents[2]


def commands(name: str) -> list[list[str]]:
    """Return the arguments of each ``dlopt`` command of that name in the README's bash blocks."""
    blocks = (ROOT / "README.md").read_text().split("```bash\n")[1:]
    lines = [
        line for block in blocks for line in block.split("```")[0].replace("\\\n", "").splitlines()
    ]
    return [shlex.split(line)[1:] for line in lines if line.startswith(f"dlopt {name} ")]


def test_compare(dlopt: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (command,) = commands("compare")
    monkeypatch.chdir(ROOT)
    output = tmp_path / "compare"
    code, printed = dlopt(*command, "--seeds=2", "--budget=20", f"--output={output}")
    assert code == 0, printed
    study = read_study(output / "results.jsonl")
    assert study.arms == ["mix_up", "ema", "faster"]
    assert len(study.runs) == 2 * 5
    assert {run.status for run in study.runs} == {"finished"}
    assert study.outcome == "test_accuracy"


def test_advise_on_real_fashion_mnist(
    dlopt: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (command,) = commands("advise")
    monkeypatch.chdir(ROOT)
    code, printed = dlopt(*command, "--budget=10s", f"--output={tmp_path / 'advice'}")
    assert code == 0, printed
    for question in ("optimizer", "learning rate", "regularizer", "augmentation", "generalize"):
        assert question in printed
    assert (tmp_path / "advice" / "advice.md").exists()
