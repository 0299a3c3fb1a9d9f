import itertools
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torchvision import datasets
from torchvision.transforms import v2

from lightning_dlopt.core.errors import ArgumentError, ArgumentTypeError, DataError
from lightning_dlopt.data import ImageFolder

MakeImages = Callable[..., Path]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_samples_are_torchvisions(
    tmp_path: Path, make_images: MakeImages, num_workers: int
) -> None:
    make_images(tmp_path / "train")
    Image.effect_mandelbrot((40, 30), (-3, -2.5, 2, 2.5), 50).save(
        make_images(tmp_path / "test") / "dog" / "z.jpg"
    )
    module = ImageFolder(tmp_path, image_size=8, validation=0, num_workers=num_workers)
    loader = module.test_dataloader()
    inputs, targets = next(iter(loader))
    assert inputs.shape == (11, 3, 8, 8)
    assert inputs.dtype == torch.float32
    assert targets.dtype == torch.int64
    transform = v2.Compose(
        [
            v2.Resize(8),
            v2.CenterCrop(8),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    reference = datasets.ImageFolder(tmp_path / "test", transform=transform)
    for i, (image, target) in enumerate(reference):
        assert torch.equal(inputs[i], image)
        assert targets[i] == target
    assert module.classes == ("cat", "dog")
    assert module.num_classes == 2
    assert module.input_shape == (3, 8, 8)


def seen(loader: Any) -> list[tuple[int, int]]:
    """The class and number of each image, read from its color."""
    return [
        (target, round(image[1, 0, 0].item() * 255))
        for inputs, targets in loader
        for image, target in zip(inputs, targets.tolist(), strict=True)
    ]


def test_class_folders_without_train_are_the_training_set(
    tmp_path: Path, make_images: MakeImages
) -> None:
    make_images(tmp_path)
    (tmp_path / ".hidden").mkdir()
    module = ImageFolder(tmp_path, image_size=4, validation=0.2, normalize=False)
    train, held_out = seen(module.train_dataloader()), seen(module.val_dataloader())
    assert (len(train), len(held_out)) == (8, 2)
    assert sorted(train + held_out) == [(k, i) for k in range(2) for i in range(5)]


def test_own_validation_folder_is_used_and_nothing_split_off(
    tmp_path: Path, make_images: MakeImages
) -> None:
    make_images(tmp_path / "train", ("cat", "dog", "owl"))
    # Without the first class: targets must be the training set's all the same.
    make_images(tmp_path / "val", ("dog", "owl"), count=2)
    module = ImageFolder(tmp_path, image_size=4, validation=0.5, normalize=False)
    assert len(seen(module.train_dataloader())) == 15
    assert seen(module.val_dataloader()) == [(1, 0), (1, 1), (2, 0), (2, 1)]
    with pytest.raises(DataError, match="ImageFolder: there is no test set"):
        module.test_dataloader()


def test_resume_in_mid_epoch_with_workers(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path)
    arguments = {"image_size": 4, "batch_size": 3, "validation": 0, "normalize": False}
    whole = ImageFolder(tmp_path, **arguments).train_dataloader()
    list(whole)
    iterator = iter(whole)
    next(iterator)
    resumed = ImageFolder(tmp_path, num_workers=1, **arguments).train_dataloader()
    resumed.load_state_dict(whole.state_dict())
    assert seen(resumed) == seen(iterator)


def test_augmentation_is_for_training_and_leaves_global_randomness_alone(
    tmp_path: Path,
    make_images: MakeImages,
    unchanged_global_randomness: Callable[[], AbstractContextManager[None]],
) -> None:
    make_images(tmp_path)
    shutil.copytree(tmp_path / "cat", tmp_path / "test" / "cat")
    shutil.copytree(tmp_path / "dog", tmp_path / "train" / "dog")
    shutil.copytree(tmp_path / "cat", tmp_path / "train" / "cat")

    def batches(**arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
        module = ImageFolder(tmp_path, image_size=8, batch_size=10, validation=0, **arguments)
        return next(iter(module.train_dataloader()))[0], next(iter(module.test_dataloader()))[0]

    plain = batches()
    policy = v2.ColorJitter(brightness=0.9)
    with unchanged_global_randomness():
        here = batches(train_transform=policy)
    there = batches(train_transform=policy, num_workers=2)
    assert not torch.equal(here[0], plain[0])
    assert torch.equal(here[0], there[0])
    assert torch.equal(here[1], plain[1])


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("<html>"),
        lambda path: path.write_bytes(path.read_bytes()[:50]),
        lambda path: path.write_bytes(path.read_bytes()[:40] + b"\xff" * 30),
    ],
)
def test_broken_image_is_one_line_that_names_it(
    tmp_path: Path, make_images: MakeImages, num_workers: int, damage: Callable[[Path], Any]
) -> None:
    make_images(tmp_path)
    path = tmp_path / "dog" / "3.png"
    damage(path)
    module = ImageFolder(tmp_path, image_size=4, validation=0, num_workers=num_workers)
    with pytest.raises(DataError) as raised:
        list(module.train_dataloader())
    line = str(raised.value)
    assert line.startswith(f"{path}: not a readable image (")
    assert line.endswith("delete or replace the file")
    assert "\n" not in line


def missing(root: Path) -> str:
    shutil.rmtree(root)
    return f"{root}: there is no such folder"


def empty(root: Path) -> str:
    shutil.rmtree(root)
    root.mkdir()
    return f"{root}: the folder has no folder for a class in it"


def empty_validation(root: Path) -> str:
    (root / "val").mkdir()
    return f"{root}/val: the folder has no folder for a class in it"


def class_without_images(root: Path) -> str:
    (root / "train" / "owl").mkdir()
    (root / "train" / "owl" / "readme.txt").write_text("no image")
    return f"{root}/train/owl: no image files (.jpg, "


def unknown_class(root: Path) -> str:
    shutil.copytree(root / "train" / "dog", root / "test" / "wolf")
    return f"{root}/test/wolf: the training set has no class 'wolf'"


def only_test(root: Path) -> str:
    (root / "train").rename(root / "test")
    return f"{root}/train: there is no such folder beside"


@pytest.mark.parametrize(
    "spoil", [missing, empty, empty_validation, class_without_images, unknown_class, only_test]
)
def test_folders_that_are_wrong(
    tmp_path: Path, make_images: MakeImages, spoil: Callable[[Path], str]
) -> None:
    make_images(tmp_path / "root" / "train")
    expected = spoil(tmp_path / "root")
    with pytest.raises(DataError) as raised:
        ImageFolder(tmp_path / "root").setup()
    assert str(raised.value).startswith(expected)
    assert "\n" not in str(raised.value)


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"ImageFolder: image_size=0 is not in \[1, inf\)"):
        ImageFolder(tmp_path, image_size=0)
    with pytest.raises(ArgumentTypeError, match=r"num_workers=1\.5 must be an integer"):
        ImageFolder(tmp_path, num_workers=1.5)
    with pytest.raises(ArgumentTypeError, match="train_transform=3 must be callable"):
        ImageFolder(tmp_path, train_transform=3)


def test_two_ranks_share_the_batches(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path)
    module = ImageFolder(tmp_path, image_size=4, batch_size=4, validation=0, normalize=False)
    module.setup()
    order = {"shuffle": True, "seed": 1}
    whole = seen(module.make_loader(module.train_set, True, batch_size=4, **order))
    parts = [
        module.make_loader(module.train_set, True, batch_size=2, rank=i, world_size=2, **order)
        for i in range(2)
    ]
    batches = itertools.chain.from_iterable(zip(*parts, strict=True))
    assert seen(batches) == whole
