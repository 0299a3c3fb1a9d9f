import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image


@contextmanager
def _unchanged_global_randomness() -> Iterator[None]:
    torch_state, python_state = torch.get_rng_state(), random.getstate()
    numpy_state = np.random.get_state()  # noqa: NPY002
    yield
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert random.getstate() == python_state
    after = np.random.get_state()  # noqa: NPY002
    assert np.array_equal(after[1], numpy_state[1])
    assert after[2:] == numpy_state[2:]


@pytest.fixture
def unchanged_global_randomness() -> Callable[[], AbstractContextManager[None]]:
    return _unchanged_global_randomness


@pytest.fixture
def make_images() -> Callable[..., Path]:
    """Write ``count`` images of one color for each class; sample i of class k is (40k, i, 7)."""

    def make(folder: Path, classes: tuple[str, ...] = ("cat", "dog"), count: int = 5) -> Path:
        for target, name in enumerate(classes):
            (folder / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                image = Image.new("RGB", (12, 9), (40 * target, i, 7))
                image.save(folder / name / f"{i}.png")
        return folder

    return make
