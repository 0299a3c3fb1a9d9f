"""MNIST and Fashion-MNIST: where the files come from, and that they fit together."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision import datasets
from torchvision.transforms import functional

from lightning_dlopt.core.errors import DataError
from lightning_dlopt.data import MNIST, FashionMNIST
from lightning_dlopt.data.idx_images import IdxImages

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
NAMES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "t10k": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def write_idx(path: Path, values: np.ndarray) -> None:
    header = bytes([0, 0, 8, values.ndim])
    data = header + b"".join(n.to_bytes(4, "big") for n in values.shape)
    data += values.astype(np.uint8).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def write_set(folder: Path, suffix: str = "", shift: int = 0) -> Path:
    """Twenty training and ten test images of one grey value each."""
    for (images, labels), count in zip(NAMES.values(), (20, 10), strict=True):
        values = (np.arange(count) + shift)[:, None, None] * np.ones((1, 28, 28))
        write_idx(folder / f"{images}{suffix}", values)
        write_idx(folder / f"{labels}{suffix}", np.arange(count) % 10)
    return folder


@pytest.fixture(scope="module")
def fashion() -> FashionMNIST:
    assert DEBIAN.is_dir(), "apt-get install dataset-fashion-mnist"
    module = FashionMNIST("a folder that does not exist", validation=0)
    module.prepare_data()
    module.setup()
    return module


def test_real_fashion_mnist_comes_from_debians_package(fashion: FashionMNIST) -> None:
    assert fashion.train_set.inputs.shape == (60000, 1, 28, 28)
    assert fashion.train_set.inputs.dtype == torch.uint8
    assert fashion.test_set.inputs.shape == (10000, 1, 28, 28)
    assert fashion.train_set.targets.bincount().tolist() == [6000] * 10
    values = fashion.train_set.inputs.double() / 255
    assert values.mean().item() == pytest.approx(fashion.mean[0], abs=5e-5)
    assert values.std().item() == pytest.approx(fashion.std[0], abs=5e-5)
    assert not Path("a folder that does not exist").exists()


def test_real_samples_are_torchvisions(fashion: FashionMNIST, tmp_path: Path) -> None:
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for name in (name for pair in NAMES.values() for name in pair):
        (raw / name).write_bytes(gzip.decompress((DEBIAN / f"{name}.gz").read_bytes()))
    reference = datasets.FashionMNIST(tmp_path, train=False)
    inputs, targets = next(iter(fashion.test_dataloader()))
    for i in (0, 7, 511):
        image, target = reference[i]
        expected = functional.normalize(functional.to_tensor(image), fashion.mean, fashion.std)
        assert torch.allclose(inputs[i], expected, atol=1e-5)
        assert targets[i].item() == target
    assert fashion.classes == tuple(reference.classes)


def test_real_training_batches(fashion: FashionMNIST) -> None:
    loader = fashion.train_dataloader()
    assert len(loader) == 1875
    inputs, targets = next(iter(loader))
    assert inputs.shape == (32, 1, 28, 28)
    assert inputs.dtype == torch.float32
    assert targets.dtype == torch.int64


@pytest.mark.parametrize("kind", [MNIST, FashionMNIST])
@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("below", [False, True])
def test_files_in_the_given_folder(
    tmp_path: Path, kind: type[IdxImages], suffix: str, below: bool
) -> None:
    write_set(tmp_path / kind.__name__ / "raw" if below else tmp_path, suffix)
    module = kind(tmp_path, validation=5, normalize=False)
    module.prepare_data()
    module.setup()
    assert (len(module.train_set), len(module.validation_set)) == (15, 5)
    inputs, targets = next(iter(module.test_dataloader()))
    assert torch.allclose(inputs[:, 0, 3, 4], torch.arange(10) / 255)
    assert targets.tolist() == list(range(10))


def test_given_folder_comes_before_its_subfolder(tmp_path: Path) -> None:
    write_set(tmp_path)
    write_set(tmp_path / "MNIST" / "raw", shift=100)
    module = MNIST(tmp_path)
    module.setup()
    assert module.test_set.inputs[0, 0, 0, 0] == 0


@pytest.mark.parametrize("kind", [MNIST, FashionMNIST])
@pytest.mark.parametrize("below", [False, True])
def test_folder_with_some_of_the_files_is_an_error(
    tmp_path: Path, kind: type[IdxImages], below: bool
) -> None:
    folder = write_set(tmp_path / kind.__name__ / "raw" if below else tmp_path)
    (folder / "t10k-labels-idx1-ubyte").unlink()
    (folder / "train-images-idx3-ubyte").unlink()
    module = kind(tmp_path)
    for act in (module.prepare_data, module.setup):
        with pytest.raises(DataError) as raised:
            act()
        line = str(raised.value)
        assert line.startswith(f"{folder}: train-images-idx3-ubyte, t10k-labels-idx1-ubyte missing")
        assert "\n" not in line


def no_network(*_: Any, **__: Any) -> None:
    raise RuntimeError("Error downloading train-images-idx3-ubyte.gz:\nTried https://…")


@pytest.mark.parametrize("kind", [MNIST, FashionMNIST])
def test_failing_download_says_where_it_looked_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[IdxImages]
) -> None:
    no_network.__name__ = kind.__name__
    monkeypatch.setattr(kind, "downloader", staticmethod(no_network))
    monkeypatch.setattr(kind, "system_dirs", (str(tmp_path / "system"),))
    module = kind(tmp_path / "here")
    with pytest.raises(DataError) as raised:
        module.prepare_data()
    line = str(raised.value)
    assert f"{tmp_path}/here, {tmp_path}/here/{kind.__name__}/raw, {tmp_path}/system" in line
    assert "the download failed (Error downloading" in line
    assert f"put the files into {tmp_path}/here yourself" in line
    assert ("apt-get install dataset-fashion-mnist" in line) == (kind is FashionMNIST)
    assert "\n" not in line
    with pytest.raises(DataError, match=r"in none of .* call prepare_data\(\)"):
        module.setup()


def test_download_goes_through_torchvision_into_data_dir(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(self: datasets.MNIST) -> None:
        write_set(Path(self.raw_folder))

    monkeypatch.setattr(datasets.MNIST, "download", fetch)
    module = MNIST(tmp_path)
    module.prepare_data()
    module.setup()
    assert len(module.test_set) == 10


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("train-labels-idx1-ubyte", np.arange(19) % 10, "20 images, but 19 labels"),
        ("train-labels-idx1-ubyte", np.arange(20), "labels run from 0 to 19, not within 0..9"),
        ("t10k-images-idx3-ubyte", np.zeros((10, 8, 8)), r"shape \(10, 8, 8\) instead of \(N, 28"),
        ("t10k-labels-idx1-ubyte", np.zeros((10, 28, 28)), r"shape \(10, 28, 28\) instead of \(N,"),
    ],
)
def test_files_that_do_not_fit_together(
    tmp_path: Path, name: str, values: np.ndarray, message: str
) -> None:
    write_set(tmp_path)
    write_idx(tmp_path / name, values)
    with pytest.raises(DataError, match=message) as raised:
        MNIST(tmp_path).setup()
    assert str(tmp_path) in str(raised.value)


def test_empty_set(tmp_path: Path) -> None:
    write_set(tmp_path)
    write_idx(tmp_path / "t10k-images-idx3-ubyte", np.zeros((0, 28, 28)))
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.zeros(0))
    with pytest.raises(DataError, match="no images"):
        MNIST(tmp_path).setup()


def test_damaged_file_is_named(tmp_path: Path) -> None:
    path = write_set(tmp_path) / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=f"{path}: .*; delete the file and install"):
        MNIST(tmp_path).setup()
