"""The structure of the package: imports, sizes of files, public names."""

import ast
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

import lightning_dlopt

ROOT = Path(lightning_dlopt.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
FAMILIES = {"schedules", "structure", "optimizers", "regularization", "augmentation"}
#: What each layer may import, apart from itself.
LAYERS = [{"core"}, FAMILIES, {"data", "modules"}, {"evidence"}, {"cli"}]


def imported(path: Path) -> set[str]:
    """Return the folders of this package that a file imports from."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        found |= {n.split(".")[1] for n in names if n.startswith("lightning_dlopt.")}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    if path.parent == ROOT:
        return
    own = path.relative_to(ROOT).parts[0]
    allowed, level = {own}, next(i for i, layer in enumerate(LAYERS) if own in layer)
    for layer in LAYERS[:level]:
        allowed |= layer
    assert imported(path) <= allowed


def test_the_layers_are_those_that_exist() -> None:
    folders = {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()}
    assert folders <= set().union(*LAYERS)
    assert not any(left & right for left, right in pairwise(LAYERS))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 300


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT.parent, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_root_loads_nothing_before_its_first_use() -> None:
    code = (
        "import sys, lightning_dlopt as root\n"
        "assert not [m for m in sys.modules if m.startswith('lightning_dlopt.')]\n"
        "assert 'torch' not in sys.modules\n"
        "assert root.augmentation.MixUp is root.MixUp\n"
        "print(root.CosineLR.__name__, len(root.__all__), 'MLP' in dir(root))"
    )
    assert python(code).split() == ["CosineLR", str(len(lightning_dlopt.__all__)), "True"]


def test_each_module_imports_alone() -> None:
    names = [
        ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in FILES
        if path.name != "__main__.py"
    ]
    # a process that has torch and Lightning but nothing of this package, forked for each module
    code = (
        "import os, sys, torch, lightning.pytorch, torchvision, torchmetrics\n"
        f"for name in {names!r}:\n"
        "    if (child := os.fork()) == 0:\n"
        "        __import__(name)\n"
        "        os._exit(0)\n"
        "    assert os.waitpid(child, 0)[1] == 0, name\n"
    )
    python(code)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="CosinusLR"):
        lightning_dlopt.CosinusLR  # noqa: B018


def test_the_package_says_that_it_is_typed() -> None:
    assert os.path.exists(ROOT / "py.typed")  # noqa: PTH110
