"""The global generators: torch's on the CPU and one device, Python's, NumPy's.

No technique draws from them; what a training step draws is put back after an extra pass.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


class GlobalGenerators:
    """The states of the global generators at one moment.

    Args:
        device: the device whose generator is kept besides the CPU's.

    Example:
        >>> before = GlobalGenerators(torch.device("cpu"))
        >>> first = torch.rand(())
        >>> before.restore()
        >>> bool(torch.rand(()) == first)
        True
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._torch = torch.get_rng_state()
        if _has_own(device):
            self._on_device = torch.get_device_module(device).get_rng_state(*_name(device))
        self._python = random.getstate()
        # NumPy's global generator is read and set, never drawn from
        self._numpy = np.random.get_state()  # noqa: NPY002

    def restore(self) -> None:
        """Set the generators to the states that were kept."""
        torch.set_rng_state(self._torch)
        if _has_own(self._device):
            module = torch.get_device_module(self._device)
            module.set_rng_state(self._on_device, *_name(self._device))
        random.setstate(self._python)
        np.random.set_state(self._numpy)  # noqa: NPY002


@contextmanager
def kept_generators(device: torch.device) -> Iterator[None]:
    """Bring the global generators back to where they are now, when the block ends."""
    before = GlobalGenerators(device)
    try:
        yield
    finally:
        before.restore()


def seed_global(seed: int, device: torch.device) -> None:
    """Seed torch's global generators of the CPU and ``device``; to be used in a kept block."""
    # not torch.manual_seed, which seeds every device of the machine
    torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())
    if _has_own(device):
        state = torch.Generator(device).manual_seed(seed).get_state()
        torch.get_device_module(device).set_rng_state(state, *_name(device))


def _has_own(device: torch.device) -> bool:
    return device.type not in ("cpu", "meta")


def _name(device: torch.device) -> tuple[torch.device, ...]:
    return () if device.type == "mps" else (device,)  # there is one of it, and it isn't named
