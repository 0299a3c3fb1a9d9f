import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_dlopt.core.errors import DataError
from lightning_dlopt.data.idx import read_idx

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
VALUES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


def content(values: np.ndarray, kind: int = 8) -> bytes:
    header = bytes([0, 0, kind, values.ndim])
    return header + b"".join(n.to_bytes(4, "big") for n in values.shape) + values.tobytes()


@pytest.mark.parametrize("shape", [(24,), (4, 6), (2, 3, 4), (0,), (0, 28, 28)])
@pytest.mark.parametrize("compressed", [False, True])
def test_reads_what_was_written(tmp_path: Path, shape: tuple[int, ...], compressed: bool) -> None:
    values = VALUES.flatten()[: int(np.prod(shape))].reshape(shape)
    path = tmp_path / ("a.gz" if compressed else "a")
    path.write_bytes(gzip.compress(content(values)) if compressed else content(values))
    tensor = read_idx(path)
    assert tensor.dtype == torch.uint8
    assert np.array_equal(tensor.numpy(), values)


def test_real_files_are_as_numpy_reads_them() -> None:
    for name, start, shape in (
        ("t10k-images-idx3-ubyte.gz", 16, (10000, 28, 28)),
        ("t10k-labels-idx1-ubyte.gz", 8, (10000,)),
    ):
        with gzip.open(DEBIAN / name) as file:
            expected = np.frombuffer(file.read(), np.uint8, offset=start).reshape(shape)
        assert np.array_equal(read_idx(DEBIAN / name).numpy(), expected)


GOOD = content(VALUES)
PACKED = gzip.compress(GOOD, mtime=0)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a", b"", "the file is empty"),
        ("a.gz", b"", "the file is empty"),
        ("a.gz", gzip.compress(b"", mtime=0), "the file is empty"),
        ("a", GOOD[:-1], "39 bytes instead of the 40 that 2x3x4 values take"),
        ("a", GOOD + b"x", "41 bytes instead of the 40"),
        ("a", GOOD[:10], "the header is cut off"),
        ("a", GOOD[:3], "not an IDX file"),
        ("a", b"<html>not found</html>", "not an IDX file .it begins with 3c 68 74 6d"),
        ("a", PACKED, "not an IDX file .it begins with 1f 8b"),
        ("a", content(VALUES, kind=0x0D), "IDX data type 0x0d instead of 0x08"),
        ("a.gz", GOOD, "not a valid gzip file"),
        ("a.gz", PACKED[:-9], "the compressed data is cut off"),
        ("a.gz", PACKED[:14], "the compressed data is cut off"),
        ("a.gz", PACKED[:-8] + b"\1" * 8, "not a valid gzip file .CRC"),
        ("a.gz", PACKED[:12] + b"\xff" * 20 + PACKED[32:], "not a valid gzip file"),
    ],
)
def test_damaged_files(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(DataError, match=message) as raised:
        read_idx(path)
    line = str(raised.value)
    assert line.startswith(f"{path}: ")
    assert line.endswith("delete the file and install or download it again")
    assert "\n" not in line


def test_missing_and_unreadable(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.gz: there is no such file"):
        read_idx(tmp_path / "nothing.gz")
    with pytest.raises(DataError, match=r"can't be read \(Is a directory"):
        read_idx(tmp_path)
