"""One more pass through a training step, that leaves no trace but its loss."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_dlopt.core.global_generators import kept_generators, seed_global
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
            seed_global(seed, device)
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
