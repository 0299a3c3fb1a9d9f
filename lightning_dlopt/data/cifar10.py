"""CIFAR-10: small color photographs."""

import pickle
from pathlib import Path
from typing import Any

import torch
from torchvision import datasets  # type: ignore[import-untyped]

from lightning_dlopt.core.errors import DataError, one_line
from lightning_dlopt.data.base import Samples, check_path
from lightning_dlopt.data.images import ImageDataModule, check_samples


class CIFAR10(ImageDataModule):
    """50000 training and 10000 test color photographs, ``(3, 32, 32)``, ten classes.

    A. Krizhevsky: Learning Multiple Layers of Features from Tiny Images, 2009. The files are
    torchvision's: ``data_dir/cifar-10-batches-py``, checked by their MD5 sums, downloaded by
    ``prepare_data`` if they aren't there.

    Args:
        data_dir: Folder that holds ``cifar-10-batches-py``, and where a download goes.
        **kwargs: ``batch_size=32``, ``eval_batch_size=512``, ``validation=0.1``, ``split_seed=0``,
            ``seed=None``, ``drop_last=False``, ``normalize=True``, ``train_transform=None``,
            ``num_workers=0``; see
            :class:`~lightning_dlopt.data.images.ImageDataModule`.

    Raises:
        DataError: if the files can't be found or are damaged.
    """

    classes = (
        "airplane", "automobile", "bird", "cat", "deer",
        "dog", "frog", "horse", "ship", "truck",
    )  # fmt: skip
    input_shape = (3, 32, 32)
    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2470, 0.2435, 0.2616)

    def __init__(self, data_dir: str | Path = "data", *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.data_dir = check_path(self, "data_dir", data_dir)

    def prepare_data(self) -> None:
        """Download the files into ``data_dir`` unless they are there, whole.

        Raises:
            DataError: if that fails.
        """
        try:
            datasets.CIFAR10(self.data_dir, download=True)
        except (OSError, RuntimeError) as error:
            raise self._failure("the download failed", error) from error

    def read_sets(self) -> dict[str, Samples]:
        """Read torchvision's files as uint8."""
        sets: dict[str, Samples] = {}
        for part in ("train", "test"):
            try:
                source = datasets.CIFAR10(self.data_dir, train=part == "train")
            except (OSError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
                raise self._failure("no whole copy of the data set", error) from error
            # torchvision keeps (N, H, W, C).
            images = torch.from_numpy(source.data).permute(0, 3, 1, 2).contiguous()
            targets = torch.tensor(source.targets)
            sets[part] = check_samples(self.data_dir, images, targets, self.num_classes)
        return sets

    def _failure(self, what: str, error: Exception) -> DataError:
        folder = Path(self.data_dir) / datasets.CIFAR10.base_folder
        return DataError(
            f"CIFAR10: {what} ({one_line(error)}): delete {folder} if it is there, then call "
            "prepare_data() with a network, or unpack cifar-10-python.tar.gz into "
            f"{self.data_dir} yourself"
        )
