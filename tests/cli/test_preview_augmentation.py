"""``dlopt preview augmentation``."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from lightning_dlopt.cli.first_batch import Preview, displayed, in_order
from lightning_dlopt.cli.image_page import Row, draw_page
from lightning_dlopt.cli.preview_augmentation import AugmentationCLI, find_preview
from lightning_dlopt.cli.train import run_cli
from lightning_dlopt.core.patching import MIX
from lightning_dlopt.data import Digits
from tests.cli.augmented import Mixes
from tests.cli.conftest import Run

RANDOM_ERASE = {"class_path": "RandomErase", "init_args": {"probability": 1.0}}
POLICY = {"class_path": "torchvision.transforms.v2.RandAugment"}


def overlay(path: Path, module: str = "tests.cli.augmented.Refuses", **parts: Any) -> Path:
    """Write an overlay for the quickstart; ``parts`` are init_args, or the Trainer's section."""
    config = {
        "trainer": parts.get("trainer", {}),
        "model": {"class_path": module, "init_args": parts.get("model", {})},
        "data": parts.get("data", {}),
    }
    path.write_text(yaml.safe_dump({key: value for key, value in config.items() if value}))
    return path


def build(*arguments: object) -> Preview:
    cli = run_cli(AugmentationCLI, ["fit", *map(str, arguments)], save_config_callback=None)
    preview, _ = find_preview(cli)  # type: ignore[arg-type]
    preview.datamodule.setup("fit")
    return preview


@pytest.mark.parametrize("where", ["trainer", "model", "data", "policy", "all"])
def test_it_shows_what_the_first_training_step_gets(
    where: str, dlopt: Run, recipes: Path, tmp_path: Path
) -> None:
    resize = {"class_path": "ProgressiveResize"}
    mixes = {"class_path": "tests.cli.augmented.Mixes"}
    cnn = {"class_path": "lightning_dlopt.ConvNet", "init_args": {"channels": [1, 4]}}
    parts: dict[str, dict[str, Any]] = {
        "trainer": {"trainer": {"callbacks+": [RANDOM_ERASE]}},
        "model": {"model": {"augmentation": RANDOM_ERASE}},
        "data": {"data": {"init_args": {"augmentation": [RANDOM_ERASE, mixes]}}},
        "policy": {"data": {"init_args": {"train_transform": POLICY, "num_workers": 2}}},
        "all": {
            "trainer": {"callbacks+": [mixes]},
            "model": {"augmentation": [resize], "network": cnn},
            "data": {"init_args": {"augmentation": RANDOM_ERASE, "train_transform": POLICY}},
        },
    }
    notes = overlay(tmp_path / "notes.yaml", "tests.cli.augmented.Notes", **parts[where])
    configs = ["--config", recipes / "quickstart.yaml", "--config", notes, "--seed_everything=7"]
    code, printed = dlopt("fit", *configs, "--trainer.fast_dev_run=true")
    assert code == 0, printed
    seen = torch.load(tmp_path / "seen.pt")
    preview = build(*configs)
    batch, _ = preview.trained()
    assert torch.equal(batch[0], seen[0])
    assert torch.equal(batch[1], seen[1])
    assert not torch.equal(preview.original()[0], seen[0])
    assert torch.equal(preview.original()[1], seen[1])
    other, _ = preview.trained(1)
    assert torch.equal(other[1], seen[1]), "other draws of the same samples"
    assert not torch.equal(other[0], seen[0])


def test_the_command_writes_a_page_and_moves_nothing(
    dlopt: Run, recipes: Path, tmp_path: Path
) -> None:
    erase = overlay(tmp_path / "erase.yaml", trainer={"callbacks+": [RANDOM_ERASE]})
    output = tmp_path / "pictures" / "page.png"
    before = torch.get_rng_state()
    arguments = ["--config", recipes / "quickstart.yaml", "--config", erase]
    arguments += ["--samples", 5, "--rounds", 2, "--output", output]
    code, printed = dlopt("preview", "augmentation", *arguments)
    assert (code, f"wrote {output}" in printed) == (0, True), printed
    assert torch.equal(torch.get_rng_state(), before)
    page = Image.open(output)
    assert page.format == "PNG"
    assert page.width == 5 * (112 + 10) + 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["erase.yaml", "pictures"]


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 28), (3, 224)])
def test_pixels_are_where_they_belong_and_sharp(channels: int, side: int, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (3, channels, side, side), generator=generator) / 255
    rows = [Row("title", images, ["a", "b", "c"])] * 2
    draw_page(["What is shown"], rows, tmp_path / "page.png")
    page = np.array(Image.open(tmp_path / "page.png").convert("RGB")).astype(int)
    factor = max(1, 112 // side)
    expected = np.kron(images.numpy(), np.ones((1, 1, factor, factor))) * 255
    top, left = 10 + 14 + 10 + 14 + 4, 10
    size = side * factor
    for column, image in enumerate(expected):
        start = left + column * (size + 10)
        found = page[top : top + size, start : start + size].transpose(2, 0, 1)
        assert (found == image.round()).all()


def test_long_texts_are_wrapped_and_large_images_made_smaller(tmp_path: Path) -> None:
    label = "Ankle boot · 0.64 + T-shirt/top · 0.36"
    rows = [Row("original", torch.rand(8, 3, 500, 400), [label] * 8)]
    draw_page(["word " * 200], rows, tmp_path / "page.png")
    page = np.array(Image.open(tmp_path / "page.png").convert("L"))
    assert page.shape[1] == 8 * (256 + 10) + 10
    assert (page[:, -5:] == 255).all(), "something runs over the margin"


def test_shares_of_mixed_labels_and_names_of_classes() -> None:
    digits = Digits(seed=1)
    digits.classes = tuple(f"class {label}" for label in range(10))
    preview = Preview(digits, [Mixes(0.64)])
    batch, shares = preview.trained()
    assert shares is not None
    first, last = (digits.classes[int(batch[1][index])] for index in (0, -1))
    assert preview.labels_of(batch, shares)[0] == f"{first} · 0.64 + {last} · 0.36"
    assert preview.labels_of(preview.original())[0] == first
    soft = torch.nn.functional.one_hot(batch[1], 10).float()
    assert preview.labels_of((batch[0], soft))[0] == first


def test_techniques_work_in_the_order_of_training() -> None:
    first, second, mix = Mixes(0.1), Mixes(0.2), Mixes(0.3)
    mix.level = MIX
    assert in_order([mix, first, second]) == [first, second, mix]


def test_the_normalization_is_undone() -> None:
    digits, plain = (Digits(seed=1, normalize=normalize) for normalize in (True, False))
    images, expected = (next(iter(data.train_dataloader()))[0] for data in (digits, plain))
    torch.testing.assert_close(displayed(images, images, digits), expected)
    torch.testing.assert_close(displayed(expected, expected, plain), expected)
    unknown = displayed(images, images, None)
    assert (unknown.min(), unknown.max()) == (0, 1)
    assert displayed(torch.zeros(2, 5, 3, 3), images, None).shape == (2, 1, 3, 3)


def test_tokens_are_printed(dlopt: Run, recipes: Path, tmp_path: Path) -> None:
    path = overlay(
        tmp_path / "tokens.yaml",
        trainer={"callbacks+": [{"class_path": "tests.cli.augmented.RollsTokens"}]},
        data={
            "class_path": "tests.cli.augmented.Anything",
            "init_args": {"shape": [4], "tokens": True},
        },
    )
    code, printed = dlopt(
        "preview", "augmentation", "--config", recipes / "quickstart.yaml", "--config", path
    )
    assert code == 0, printed
    assert "original          0 1 2 3  [0]" in printed
    assert "in the first step 3 0 1 2  [0]" in printed
    assert not list(tmp_path.glob("*.png"))


@pytest.mark.parametrize(
    ("parts", "arguments", "named"),
    [
        ({}, [], "no augmentation: neither"),
        (
            {"trainer": {"callbacks+": [{**RANDOM_ERASE, "init_args": {"probability": 0.0}}]}},
            [],
            "no effect: probability is 0",
        ),
        ({}, ["--data=null"], "no data"),
        ({}, ["--output=page.gif"], "ends in .png"),
        ({"model": {"augmentation": RANDOM_ERASE}}, ["--output=notes.yaml/a.png"], "can't be wr"),
        ({}, ["--samples=0"], "at least 1"),
        ({}, ["--trainer.no_such=3"], "no_such"),
        ({"trainer": {"callbacks+": [{"class_path": "RandomErace"}]}}, [], "RandomErase"),
        (
            {
                "trainer": {"callbacks+": [RANDOM_ERASE]},
                "data": {"init_args": {"augmentation": RANDOM_ERASE}},
            },
            [],
            "keep one of them",
        ),
        (
            {
                "trainer": {"callbacks+": [RANDOM_ERASE]},
                "data": {
                    "class_path": "tests.cli.augmented.Anything",
                    "init_args": {"shape": [3, 4]},
                },
            },
            [],
            "(12, 3, 4) are neither images",
        ),
    ],
)
def test_mistakes(
    parts: Any, arguments: list[str], named: str, dlopt: Run, recipes: Path, tmp_path: Path
) -> None:
    path = overlay(tmp_path / "notes.yaml", **parts)
    configs = ["--config", recipes / "quickstart.yaml", "--config", path]
    code, printed = dlopt("preview", "augmentation", *configs, *arguments)
    assert code == 2, printed
    assert named in printed
    *_, message = printed.strip().splitlines()
    assert message.startswith("dlopt: error: ")
    assert not list(tmp_path.rglob("*.png"))


def test_without_a_configuration(dlopt: Run) -> None:
    code, printed = dlopt("preview", "augmentation")
    assert code == 2
    assert "--config is missing" in printed
