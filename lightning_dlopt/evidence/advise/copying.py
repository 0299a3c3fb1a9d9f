"""Copies of a module and its data that can be trained while the originals stay as they are."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_dlopt.core.errors import one_line
from lightning_dlopt.evidence.advise.finding import NotDoneError

#: From how many bytes, or items of a list, data are shared by the copies of a DataModule.
_LARGE_BYTES, _LARGE_LIST = 2**20, 10_000


def copied_module(module: LightningModule) -> LightningModule:
    """Return a deep copy; an optimizer that was made outside the module comes with it.

    Raises:
        NotDoneError: if the module can't be copied.
    """
    try:
        attached: Any = module.trainer
    except RuntimeError:  # to none
        attached = None
    try:
        twin = copy.deepcopy(module, {} if attached is None else {id(attached): None})
    except Exception as error:  # a lock, an open file, and whatever a module may hold
        raise NotDoneError(
            f"{type(module).__name__} can't be copied: {type(error).__name__}: {one_line(error)}"
        ) from error
    if "configure_optimizers" in vars(module):  # LightningCLI's, over the original's parameters
        same = {id(p): q for p, q in zip(module.parameters(), twin.parameters(), strict=True)}

        def configure_optimizers() -> list[Optimizer]:
            twins = []
            for optimizer in optimizers_in(module.configure_optimizers()):
                other = copy.deepcopy(optimizer, dict(same))
                vars(other).pop("step", None)  # as a scheduler wraps it, it is the original's
                twins.append(other)
            return twins

        twin.configure_optimizers = configure_optimizers  # type: ignore[method-assign]
    return twin


def optimizers_in(configured: Any) -> list[Optimizer]:
    """Return the optimizers in what ``configure_optimizers`` returned, whatever its form."""
    if isinstance(configured, Optimizer):
        return [configured]
    if isinstance(configured, Mapping):
        return optimizers_in(configured.get("optimizer"))
    if isinstance(configured, list | tuple):
        return [one for item in configured for one in optimizers_in(item)]
    return []


def copied_data(data: LightningDataModule) -> LightningDataModule:
    """Return a deep copy of a DataModule which shares large tensors, arrays and lists with it.

    Raises:
        NotDoneError: if it can't be copied.
    """
    memo: dict[int, Any] = {id(large): large for large in _large_parts(data, set())}
    attached = vars(data).get("trainer")
    if attached is not None:
        memo[id(attached)] = None
    try:
        return copy.deepcopy(data, memo)
    except Exception as error:
        raise NotDoneError(
            f"{type(data).__name__} can't be copied: {type(error).__name__}: {one_line(error)}"
        ) from error


def _large_parts(value: Any, seen: set[int]) -> Iterator[Any]:
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Tensor | np.ndarray):
        if value.nbytes >= _LARGE_BYTES:
            yield value
    elif isinstance(value, list | tuple) and len(value) >= _LARGE_LIST:
        yield value
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from _large_parts(item, seen)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _large_parts(item, seen)
    elif hasattr(value, "__dict__") and not isinstance(value, type | nn.Module | torch.Generator):
        yield from _large_parts(vars(value), seen)


def without_setup(data: LightningDataModule) -> LightningDataModule:
    """Return a DataModule that is set up, so that its copies don't read the data again."""
    data.prepare_data = data.setup = _nothing  # type: ignore[method-assign]
    return data


def _nothing(*_: Any, **__: Any) -> None:
    pass


def _as_it_is(batch: Any, *_: Any) -> Any:
    return batch


def replace_loader(module: Any, data: Any, kind: str, loader: Any) -> None:
    """Let copies give batches that have passed their hooks already."""
    source = module if data is None else data
    setattr(source, f"{kind}_dataloader", lambda: loader)
    for part in (module, data):
        if part is not None:
            part.on_before_batch_transfer = part.on_after_batch_transfer = _as_it_is
