"""Images in one folder for each class, decoded while training."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS  # type: ignore[import-untyped]
from torchvision.transforms import v2  # type: ignore[import-untyped]

from lightning_dlopt.core.checks import check_integer
from lightning_dlopt.core.errors import DataError, one_line
from lightning_dlopt.data.base import Samples, check_path
from lightning_dlopt.data.decoding import DecodingLoader
from lightning_dlopt.data.images import ImageDataModule
from lightning_dlopt.data.resumable import ResumableLoader


@dataclass(frozen=True)
class ImageFiles:
    """Image files and their targets; an index gives the decoded image and its target."""

    paths: tuple[str, ...]
    targets: tuple[int, ...]
    transform: Callable[[Image.Image], Any] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        path = self.paths[index]
        try:
            with Image.open(path) as file:
                image = file.convert("RGB")
        # Pillow's decoders raise nearly anything on damaged files (SyntaxError for a PNG chunk).
        except Exception as error:
            raise DataError(
                f"{path}: not a readable image ({type(error).__name__}: {one_line(error)}); "
                "delete or replace the file"
            ) from error
        return self.transform(image) if self.transform else image, self.targets[index]

    def select(self, indices: Tensor) -> "ImageFiles":
        """Return the files at ``indices``, an int64 tensor of shape ``(n,)``."""
        chosen = indices.tolist()
        return replace(
            self,
            paths=tuple(self.paths[index] for index in chosen),
            targets=tuple(self.targets[index] for index in chosen),
        )


class ImageFolder(ImageDataModule):
    """Color images in folders ``train/``, ``val/`` and ``test/``, each with one folder per class.

    ``val/`` and ``test/`` are optional. Without ``val/``, ``validation`` is split off from the
    training set; without ``train/``, the class folders lie in ``data_dir`` itself. Classes are
    the names of the training set's folders in alphabetical order; names that begin with a dot are
    passed over. Images are decoded to RGB, their shorter side resized to ``image_size``, cropped
    in the center, and normalized by ImageNet's mean and standard deviation.

    Args:
        data_dir: The folder.
        image_size: Height and width of the inputs in pixels, at least 1.
        **kwargs: ``batch_size=32``, ``eval_batch_size=512``, ``validation=0.1``, ``split_seed=0``,
            ``seed=None``, ``drop_last=False``, ``normalize=True``, ``train_transform=None``,
            ``num_workers=0``; see
            :class:`~lightning_dlopt.data.images.ImageDataModule`.

    Raises:
        DataError: if a folder or images are missing, ``val/`` or ``test/`` has a class that the
            training set lacks, or a file can't be decoded; one line that names the path.
    """

    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)

    def __init__(
        self,
        data_dir: str | Path,
        *args: Any,
        image_size: int = 224,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.data_dir = check_path(self, "data_dir", data_dir)
        self.image_size = check_integer(self, "image_size", image_size, "[1, inf)")
        self.input_shape = (3, self.image_size, self.image_size)

    def read_sets(self) -> dict[str, Samples]:
        """List the image files of each set; nothing is decoded yet."""
        root = Path(self.data_dir)
        if not root.is_dir():
            raise DataError(f"{root}: there is no such folder")
        others = {"validation": root / "val", "test": root / "test"}
        there = {name: folder for name, folder in others.items() if folder.is_dir()}
        train = root / "train"
        if not train.is_dir():
            if there:
                raise DataError(f"{train}: there is no such folder beside {root}'s other sets")
            train = root
        self.classes = tuple(_class_names(train))
        sets: dict[str, Samples] = {"train": _list_images(train, self.classes)}
        for name, folder in there.items():
            sets[name] = _list_images(folder, self.classes)
        return sets

    def make_loader(self, samples: Any, training: bool, **order: Any) -> ResumableLoader[Any]:
        """Return a loader that decodes the files."""
        steps: list[torch.nn.Module] = [
            v2.Resize(self.image_size),
            v2.CenterCrop(self.image_size),
            v2.PILToTensor(),
        ]
        if training and self.train_transform is not None:
            steps.append(self.train_transform)
        steps.append(v2.ToDtype(torch.float32, scale=True))
        if self.normalize:
            steps.append(v2.Normalize(list(self.mean), list(self.std)))
        files = replace(samples, transform=v2.Compose(steps))
        return DecodingLoader(files, num_workers=self.num_workers, **order)


def _class_names(folder: Path) -> list[str]:
    names = sorted(
        path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )
    if not names:
        raise DataError(f"{folder}: the folder has no folder for a class in it")
    return names


def _list_images(folder: Path, classes: tuple[str, ...]) -> ImageFiles:
    paths: list[str] = []
    targets: list[int] = []
    for name in _class_names(folder):
        if name not in classes:
            raise DataError(f"{folder / name}: the training set has no class {name!r}")
        images = sorted(
            str(path)
            for path in (folder / name).rglob("*")
            if path.suffix.lower() in IMG_EXTENSIONS and path.is_file()
        )
        if not images:
            raise DataError(f"{folder / name}: no image files ({', '.join(IMG_EXTENSIONS)})")
        paths += images
        targets += [classes.index(name)] * len(images)
    return ImageFiles(tuple(paths), tuple(targets))
