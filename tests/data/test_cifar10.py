import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision import datasets
from torchvision.transforms import functional

from lightning_dlopt.core.errors import DataError
from lightning_dlopt.data import CIFAR10


@pytest.fixture
def small_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files in CIFAR-10's form, six images each, whose MD5 sums torchvision is told."""
    folder = tmp_path / datasets.CIFAR10.base_folder
    folder.mkdir()
    generator = np.random.default_rng(0)

    def write(name: str, content: Any) -> list[str]:
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return [name, hashlib.md5(data).hexdigest()]

    def batch(name: str) -> list[str]:
        images = generator.integers(0, 256, (6, 3 * 32 * 32), dtype=np.uint8)
        return write(name, {"data": images, "labels": [0, 1, 2, 3, 4, 9]})

    meta = {"label_names": list(CIFAR10.classes)}
    filename, md5 = write("batches.meta", meta)
    train = [batch(f"data_batch_{i}") for i in range(1, 6)]
    monkeypatch.setattr(datasets.CIFAR10, "train_list", train)
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [batch("test_batch")])
    monkeypatch.setattr(
        datasets.CIFAR10, "meta", {"filename": filename, "key": "label_names", "md5": md5}
    )
    return tmp_path


def test_samples_are_torchvisions(small_cifar: Path) -> None:
    module = CIFAR10(small_cifar, validation=10)
    module.prepare_data()
    module.setup()
    assert (len(module.train_set), len(module.validation_set)) == (20, 10)
    assert module.train_set.inputs.dtype == torch.uint8
    inputs, targets = next(iter(module.test_dataloader()))
    assert inputs.shape == (6, 3, 32, 32)
    reference = datasets.CIFAR10(small_cifar, train=False)
    for i in range(6):
        image, target = reference[i]
        expected = functional.normalize(functional.to_tensor(image), module.mean, module.std)
        assert torch.allclose(inputs[i], expected, atol=1e-5)
        assert targets[i].item() == target
    assert list(module.classes) == reference.classes


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="CIFAR10: no whole copy of the data set") as raised:
        CIFAR10(tmp_path).setup()
    assert "call prepare_data()" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_damaged_file(small_cifar: Path) -> None:
    path = small_cifar / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match=f"delete {path.parent} if it is there"):
        CIFAR10(small_cifar).setup()


def test_failing_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Any) -> None:
        raise OSError("<urlopen error\nno network>")

    monkeypatch.setattr(datasets.CIFAR10, "download", fail)
    with pytest.raises(DataError) as raised:
        CIFAR10(tmp_path).prepare_data()
    line = str(raised.value)
    assert line.startswith("CIFAR10: the download failed (<urlopen error no network>)")
    assert f"unpack cifar-10-python.tar.gz into {tmp_path} yourself" in line
    assert "\n" not in line
