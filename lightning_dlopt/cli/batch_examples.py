"""What a module is called with, out of a run's batches."""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor

from lightning_dlopt.cli.mistakes import UsageError
from lightning_dlopt.core.batch import Key, find_key, get_field
from lightning_dlopt.core.errors import TechniqueError

_OWNER = "dlopt export"
_EMPTY = inspect.Parameter.empty
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@contextmanager
def attached(trainer: Trainer | None, *parts: Any) -> Iterator[None]:
    """Let a module and a DataModule see the run's Trainer in the block, as their hooks may need.

    Not longer: by a Trainer that runs no loop, a ``forward`` that logs would fail.
    """
    for part in parts:
        part.trainer = trainer
    try:
        yield
    finally:
        for part in parts:
            part.trainer = None


class BatchExamples:
    """The batches of a run, as a module's ``forward`` takes them.

    Args:
        module: whose ``forward`` it is.
        data: the run's DataModule, or None if the module has its own loaders.
        input_key: where the input is in a batch, if it isn't clear.
        state: what a checkpoint holds of the DataModule, restored after its ``setup``.
        trainer: the run's, which both can look at while batches are made.
    """

    def __init__(
        self,
        module: LightningModule,
        data: Any,
        input_key: Key | None = None,
        state: dict[str, Any] | None = None,
        trainer: Trainer | None = None,
    ) -> None:
        self.module = module
        self.data = data
        self.input_key = input_key
        self.state = state
        self._trainer = trainer
        self._stages: set[str] = set()

    def first(self) -> Any:
        """Return the module's own example, or the input of the first batch of validation.

        Raises:
            UsageError: if there is neither, nor a batch for testing or training.
        """
        own = self.module.example_input_array
        if own is not None:
            return tuple(own) if isinstance(own, list) else own
        for kind in ("val", "test", "train"):
            for batch in self.batches(kind):
                return self.example_of(batch)
        raise UsageError(
            "there is nothing to export the module with: it has no example_input_array, and the "
            "configuration no data (data.class_path)"
        )

    def batches(self, kind: str) -> Iterator[Any]:
        """Yield the batches of ``"train"``, ``"val"`` or ``"test"``; none if there are none."""
        source = self.module if self.data is None else self.data
        if not is_overridden(f"{kind}_dataloader", source):
            return
        with self._attached():
            loader = iter(self._loader(kind, source))
        while True:
            with self._attached():
                try:
                    batch = self._transferred(next(loader))
                except StopIteration:
                    return
            yield batch

    def _attached(self) -> AbstractContextManager[None]:
        return attached(self._trainer, self.module, *([] if self.data is None else [self.data]))

    def _loader(self, kind: str, source: Any) -> Any:
        stage = "test" if kind == "test" else "fit"
        if self.data is not None and stage not in self._stages:
            first = not self._stages
            self._stages.add(stage)
            if first:
                self.data.prepare_data()
            self.data.setup(stage)
            if first and self.state is not None:
                self.data.load_state_dict(self.state)
        loader = getattr(source, f"{kind}_dataloader")()
        if isinstance(loader, Mapping):
            loader = list(loader.values())
        if isinstance(loader, list | tuple):
            loader = next(iter(loader), [])
        return loader

    def _transferred(self, batch: Any) -> Any:
        for name in ("on_before_batch_transfer", "on_after_batch_transfer"):
            overrides = self.data is not None and is_overridden(name, self.data)
            batch = getattr(self.data if overrides else self.module, name)(batch, 0)
        return batch

    def labelled(self, kind: str) -> Iterator[tuple[Any, Any]]:
        """Yield examples with their targets, None where a batch has none."""
        for batch in self.batches(kind):
            try:
                target = get_field(batch, find_key(batch, "target", None, _OWNER))
            except TechniqueError:
                target = None
            yield self.example_of(batch), target

    def example_of(self, batch: Any) -> Any:
        """Return the arguments of ``forward`` that a batch holds.

        A dict's values go to the arguments of the same names, if each that has no default finds
        one; a tuple's go to the first arguments, as many as have none.

        Raises:
            TechniqueError: if it isn't clear where the input is.
        """
        if isinstance(batch, Tensor):
            return batch
        given = inspect.signature(self.module.forward).parameters.values()
        needed = [one.name for one in given if one.default is _EMPTY and one.kind in _POSITIONAL]
        if self.input_key is None and isinstance(batch, Mapping):
            if needed and all(name in batch for name in needed):
                return {one.name: batch[one.name] for one in given if one.name in batch}
        elif self.input_key is None and isinstance(batch, tuple | list) and len(needed) > 1:
            return tuple(batch[: len(needed)])
        return get_field(batch, find_key(batch, "input", self.input_key, _OWNER))
