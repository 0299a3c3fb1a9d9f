"""What every test starts from and leaves behind."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """Lightning and its CLI set variables; each test gets the ones before it."""
    before = dict(os.environ)
    os.environ.pop("PL_GLOBAL_SEED", None)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def recipes() -> Path:
    """The folder of the recipes."""
    return ROOT / "recipes"


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    """Forget what other tests have compiled: torch stops compiling what it has seen too often."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()
