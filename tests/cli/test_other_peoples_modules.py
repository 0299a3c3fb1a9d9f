"""The document of other packages' modules says what its configurations say."""

import ast
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "other_peoples_modules.md"
CONFIGS = sorted((ROOT / "docs" / "modules").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_document_quotes_the_configuration_literally(path: Path) -> None:
    quoted = re.findall(r"`docs/modules/([^`]+)`:\n\n```yaml\n(.*?)```", DOCUMENT.read_text(), re.S)
    assert dict(quoted)[path.name] == path.read_text()


@pytest.mark.parametrize(
    "path",
    [path for path in CONFIGS if "class_path: docs." in path.read_text()],
    ids=lambda path: path.stem,
)
def test_data_class_stands_in_the_file_that_the_configuration_names(path: Path) -> None:
    # read, not imported: the packages needn't be installed
    module, _, name = yaml.safe_load(path.read_text())["data"]["class_path"].rpartition(".")
    tree = ast.parse((ROOT / module.replace(".", "/")).with_suffix(".py").read_text())
    assert name in [each.name for each in tree.body if isinstance(each, ast.ClassDef)]


def test_files_that_the_commands_name_are_there() -> None:
    named = set(re.findall(r"(?:recipes|docs/modules)/[\w/]+\.(?:yaml|py)", DOCUMENT.read_text()))
    assert named
    assert not [name for name in sorted(named) if not (ROOT / name).is_file()]
    kept = {str(each.relative_to(ROOT)) for each in (ROOT / "docs" / "modules").glob("*.*")}
    assert kept <= named
