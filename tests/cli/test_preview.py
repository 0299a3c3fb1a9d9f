"""``dlopt preview schedule``."""

from pathlib import Path

import pytest
from PIL import Image

from lightning_dlopt.cli.preview import from_file, from_text
from lightning_dlopt.schedules import CosineLR, PiecewiseLR
from tests.cli.conftest import Run


def test_a_picture_of_several_schedules(dlopt: Run, recipes: Path, tmp_path: Path) -> None:
    output = tmp_path / "pictures" / "curves.png"
    sources = ["CosineLR", "OneCycleLR(rise='10%', end=0.01)", recipes / "schedules/step.yaml"]
    code, printed = dlopt("preview", "schedule", *sources, "--output", output)
    assert (code, str(output) in printed) == (0, True), printed
    picture = Image.open(output)
    assert picture.format == "PNG"
    assert picture.width > 2 * picture.height, "three curves stand side by side"
    colors = picture.convert("RGB").getcolors(maxcolors=1 << 20)
    assert colors is not None
    assert len(colors) > 10, "the picture is empty"


def test_what_is_drawn_is_what_was_asked_for(recipes: Path) -> None:
    assert repr(from_text("CosineLR(floor=0.5)")) == repr(CosineLR(floor=0.5))
    (schedule,) = from_file(recipes / "schedules" / "piecewise.yaml")
    assert isinstance(schedule, PiecewiseLR)
    assert schedule.factors == [2.0, 0.5, 0.1]


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("CosinusLR", "CosineLR"),
        ("CosineLR(floor=2)", "[0, 1]"),
        ("CosineLR(flor=0.5)", "flor"),
        ("StepLR", "every"),
        ("CosineLR(floor=__import__('os'))", "neither"),
        ("PlateauLR(monitor='val_loss')", "metric"),
        ("MultiStepLR(milestones=[5000])", "5000"),
        ("missing.yaml", "missing.yaml"),
        ("(" * 300, "neither"),
        ("CosineLR(**{'floor': 0.1})", "named"),
        ("CosineLR(floor=0.1, floor=0.2)", "once"),
    ],
)
def test_mistakes(source: str, named: str, dlopt: Run, tmp_path: Path) -> None:
    code, printed = dlopt("preview", "schedule", source)
    if "5000" in source:  # a milestone past the end is told, and the curve drawn
        assert code == 0
        return
    assert code == 2
    assert named in printed
    assert not list(tmp_path.glob("*.png"))


@pytest.mark.parametrize(
    "text",
    [
        "trainer:",
        "trainer: 3",
        "trainer: {callbacks: {class_path: 3}}",
        "trainer: {callbacks: [{init_args: {floor: 1}}]}",
        "trainer: {callbacks: [{class_path: CosineLR, init_args: 3}]}",
    ],
)
def test_configuration_files_without_a_usable_schedule(
    text: str, dlopt: Run, tmp_path: Path
) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    code, printed = dlopt("preview", "schedule", path)
    assert code == 2
    assert "odd.yaml" in printed


def test_a_callback_named_by_its_class_alone(dlopt: Run, tmp_path: Path) -> None:
    path = tmp_path / "short.yaml"
    path.write_text("trainer: {callbacks: [CosineLR]}")
    assert dlopt("preview", "schedule", path)[0] == 0


@pytest.mark.parametrize("output", ["p.xyz", "folder", "file.txt/p.png"])
def test_outputs_that_cannot_be_written(output: str, dlopt: Run, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.txt").write_text("kept")
    code, printed = dlopt("preview", "schedule", "CosineLR", "--output", output)
    assert code == 2
    assert output in printed
    assert (tmp_path / "file.txt").read_text() == "kept"
    assert not list(tmp_path.rglob("*.png"))
