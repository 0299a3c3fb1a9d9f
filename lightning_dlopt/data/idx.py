"""The IDX file format, in which MNIST and Fashion-MNIST are distributed."""

import gzip
import math
import os
import zlib
from pathlib import Path

import torch
from torch import Tensor

from lightning_dlopt.core.errors import DataError

_UNSIGNED_BYTE = 0x08


def read_idx(path: str | os.PathLike[str]) -> Tensor:
    """Read an IDX file of unsigned bytes, plain or (name ending in ``.gz``) compressed.

    Args:
        path: The file.

    Returns:
        A uint8 tensor with the dimensions that the file states.

    Raises:
        DataError: if the file is missing, empty, cut off, too long or no such file; one line that
            names it, says what is wrong and what to do.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "labels"
        >>> _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3]) + bytes([7, 8, 9]))
        >>> read_idx(path)
        tensor([7, 8, 9], dtype=torch.uint8)
    """
    path = Path(path)
    try:
        content = path.read_bytes()
        if path.suffix == ".gz" and content:
            content = gzip.decompress(content)
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file") from error
    except EOFError as error:
        raise _damaged(path, "the compressed data is cut off") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise _damaged(path, f"not a valid gzip file ({error})") from error
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror or error})") from error
    if not content:
        raise _damaged(path, "the file is empty")
    if len(content) < 4 or content[:2] != b"\0\0" or content[3] == 0:
        raise _damaged(path, f"not an IDX file (it begins with {content[:4].hex(' ')})")
    if content[2] != _UNSIGNED_BYTE:
        raise _damaged(path, f"IDX data type 0x{content[2]:02x} instead of 0x08 (unsigned bytes)")
    start = 4 + 4 * content[3]
    shape = [int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4)]
    if len(content) < start:
        raise _damaged(path, "the header is cut off")
    expected = start + math.prod(shape)
    if len(content) != expected:
        dimensions = "x".join(map(str, shape))
        raise _damaged(
            path, f"{len(content)} bytes instead of the {expected} that {dimensions} values take"
        )
    if not math.prod(shape):
        return torch.empty(shape, dtype=torch.uint8)
    return torch.frombuffer(bytearray(content[start:]), dtype=torch.uint8).view(shape)


def _damaged(path: Path, what: str) -> DataError:
    return DataError(f"{path}: {what}; delete the file and install or download it again")
