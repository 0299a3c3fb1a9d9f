"""The batches of a loader, as a training step gets them."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor

from lightning_dlopt.core.batch import find_key, get_field
from lightning_dlopt.core.errors import TechniqueError
from lightning_dlopt.evidence.advise.finding import NotDoneError


def stream_batches(
    module: LightningModule, data: LightningDataModule | None, kind: Literal["train", "val"]
) -> Iterator[Any]:
    """Yield the batches of one epoch, on the CPU, after the hooks before and after the transfer.

    Of several loaders it is the first; none if there is no loader of the kind.

    Args:
        module: a copy, attached to a Trainer.
        data: a copy that is set up and attached to it, or None if the module has its own loaders.
        kind: of loader.
    """
    source: Any = module if data is None else data
    if not is_overridden(f"{kind}_dataloader", source):
        return
    loader = getattr(source, f"{kind}_dataloader")()
    while isinstance(loader, Mapping | list | tuple):
        loader = next(iter(loader.values() if isinstance(loader, Mapping) else loader), None)
    # a loader's truth would be its length, which one of an IterableDataset doesn't know
    for batch in [] if loader is None else loader:
        for name in ("on_before_batch_transfer", "on_after_batch_transfer"):
            overrides = data is not None and is_overridden(name, data)
            batch = getattr(data if overrides else module, name)(batch, 0)
        yield batch


def tensor_in(batch: Any, role: Literal["input", "target"]) -> Tensor:
    """Return a batch's input or target.

    Raises:
        NotDoneError: if it can't be told where it is, or is no tensor.

    Example:
        >>> import torch
        >>> tensor_in({"image": torch.zeros(2, 3), "label": torch.tensor([4, 5])}, "target")
        tensor([4, 5])
    """
    try:
        found = get_field(batch, find_key(batch, role))
    except TechniqueError:
        found = None
    if not isinstance(found, Tensor):
        raise NotDoneError(
            f"it can't be told where the {role} is in a batch, a {type(batch).__name__}"
            + (f" with {', '.join(map(str, batch))}" if isinstance(batch, Mapping) else "")
        )
    return found
