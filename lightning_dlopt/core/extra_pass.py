"""One more pass through a training step, that leaves no trace but its loss."""

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_dlopt.core.patching import Patches


@contextmanager
def extra_pass(
    module: LightningModule, seed: int | None = None, device: torch.device | None = None
) -> Iterator[None]:
    """Run a second pass of ``module.training_step`` in this block; the first one counts.

    What the module logs by ``self.log`` is dropped; buffers (BatchNorm's statistics), the states of
    torchmetrics in the module and the global random generators are afterwards as they were before.
    What a training step counts in plain attributes of its own can't be known, and counts on.

    Args:
        module: the module; anything it holds is found through its submodules.
        seed: for torch's global generators within the block. By default they go on from where
            they are.
        device: where the pass draws besides the CPU; by default the module's device.

    Example:
        >>> module = LightningModule()
        >>> with extra_pass(module, seed=3):
        ...     first = torch.rand(1)
        >>> with extra_pass(module, seed=3):
        ...     again = torch.rand(1)
        >>> bool(first == again)
        True
    """
    patches, device = Patches(), device or module.device
    with ExitStack() as stack:
        stack.callback(patches.undo)
        for part in module.modules():
            if isinstance(part, LightningModule):
                patches.patch(part, "log", lambda _: _do_not_log)
        stack.enter_context(kept_buffers(module))
        stack.enter_context(kept_metrics(module))
        stack.enter_context(kept_generators(device))
        if seed is not None:
            _seed_global_generators(seed, device)
        yield


def _do_not_log(*args: Any, **kwargs: Any) -> None:
    """Stand in for ``self.log``."""


@contextmanager
def kept_buffers(module: nn.Module) -> Iterator[None]:
    """Let copies stand in for the module's buffers.

    The buffers themselves aren't written back to: an earlier pass may have saved them for its
    backward pass, which would then fail.
    """
    places = [
        (owner, name, buffer)
        for owner in module.modules()
        for name, buffer in owner.named_buffers(recurse=False)
    ]
    copies = {id(buffer): buffer.clone() for _, _, buffer in places}
    try:
        for owner, name, buffer in places:
            setattr(owner, name, copies[id(buffer)])
        yield
    finally:
        for owner, name, buffer in places:
            setattr(owner, name, buffer)


@contextmanager
def kept_metrics(module: nn.Module) -> Iterator[None]:
    """Let copies stand in for the states of the torchmetrics in a module."""
    metrics = [part for part in module.modules() if isinstance(part, Metric)]
    kept = [dict(vars(metric)) for metric in metrics]
    try:
        for metric in metrics:
            for name, state in metric.metric_state.items():
                setattr(metric, name, state.clone() if isinstance(state, Tensor) else list(state))
        yield
    finally:
        for metric, attributes in zip(metrics, kept, strict=True):
            vars(metric).clear()
            vars(metric).update(attributes)


@contextmanager
def kept_generators(device: torch.device) -> Iterator[None]:
    """Bring the global generators of Python, numpy, torch and ``device`` back to where they are."""
    # NumPy's global generator is read and set, never drawn from
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    cpu, other = torch.get_rng_state(), None
    if device.type not in ("cpu", "meta"):
        other = torch.get_device_module(device).get_rng_state(*_where(device))
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(cpu)
        if other is not None:
            torch.get_device_module(device).set_rng_state(other, *_where(device))


def _where(device: torch.device) -> tuple[torch.device, ...]:
    return () if device.type == "mps" else (device,)  # there is one of it, and it isn't named


def _seed_global_generators(seed: int, device: torch.device) -> None:
    # not torch.manual_seed, which seeds every device of the machine
    torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())
    if device.type not in ("cpu", "meta"):
        state = torch.Generator(device).manual_seed(seed).get_state()
        torch.get_device_module(device).set_rng_state(state, *_where(device))
