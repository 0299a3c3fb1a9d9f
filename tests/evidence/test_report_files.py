"""The report's files: all or none, and an old report survives what goes wrong."""

import errno
import io
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lightning_dlopt.core.errors import UserError
from lightning_dlopt.evidence.report import write, write_report
from lightning_dlopt.evidence.report.figures import draw
from tests.evidence.report_studies import make_study

NAMES = ["report.md", "effects.png", "time.png", "curves.png", "report.html"]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files in place of pictures and page, as these tests are about writing them."""
    monkeypatch.setattr(write, "draw", lambda name, *_: name.encode())
    monkeypatch.setattr(write, "write_page", lambda *_: "<p>page")


def test_a_whole_report(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    study, analysis = make_study()
    paths = write_report(study, folder, analysis)
    assert paths == [folder / name for name in NAMES]
    assert sorted(contents(folder)) == sorted(NAMES)
    for path in paths[1:4]:
        image = Image.open(path)
        assert (image.format, image.width) == ("PNG", 1440)
        assert path.read_bytes() == draw(path.stem, study, analysis), "drawn alike each time"
        colors = image.convert("RGB").getcolors(1 << 20)
        assert colors is not None
        assert len(colors) > 10, "the picture is empty"
    markdown = paths[0].read_text(encoding="utf-8")
    assert all(f"({name})" in markdown for name in NAMES[1:4])


def test_the_analysis_is_made_if_not_given(
    quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, analysis = make_study()
    asked: list[Any] = []
    monkeypatch.setattr(write, "analyze", lambda given: asked.append(given) or analysis)
    write_report(study, tmp_path / "made")
    write_report(study, tmp_path / "given", analysis)
    assert asked == [study]
    assert contents(tmp_path / "made") == contents(tmp_path / "given")


@pytest.mark.parametrize("room", [0, 10, 2000, 4000])
def test_a_full_disk_leaves_the_old_report(
    room: int, quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = {name: b"old " + name.encode() for name in [*NAMES, "results.jsonl"]}
    for name, data in old.items():
        (tmp_path / name).write_bytes(data)
    left = room

    class Full(io.FileIO):
        def write(self, data: Any) -> int:
            nonlocal left
            if len(data) > left:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            left -= len(data)
            return super().write(data) or 0

    monkeypatch.setattr(write, "write_page", lambda *_: "x" * 5000)
    monkeypatch.setattr(Path, "open", lambda path, mode: Full(path, mode.replace("b", "")))
    study, analysis = make_study()
    with pytest.raises(UserError, match="No space left") as raised:
        write_report(study, tmp_path, analysis)
    monkeypatch.undo()
    assert str(tmp_path) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert contents(tmp_path) == old


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_in_the_place_of_a_file(name: str, quick: None, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=f"{name} is a folder"):
        write_report(*make_study()[:1], tmp_path, make_study()[1])
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_file_in_the_place_of_the_folder(quick: None, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    study, analysis = make_study()
    with pytest.raises(UserError, match="can't be written to"):
        write_report(study, tmp_path / "file", analysis)
    assert contents(tmp_path) == {"file": b"kept"}


def test_a_name_that_utf_8_has_no_letters_for(quick: None, tmp_path: Path) -> None:
    study, analysis = make_study()
    study.changes["CosineLR"] = [os.fsdecode(b"\xff.yaml"), os.fsdecode(b"a:\n  \xff.yaml")]
    (path, *_) = write_report(study, tmp_path, analysis)
    assert "  \\udcff.yaml" in path.read_text(encoding="utf-8")
