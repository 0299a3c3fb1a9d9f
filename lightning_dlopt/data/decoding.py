"""The loader for data that doesn't fit in memory, or that is read sample by sample."""

import random
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from lightning_dlopt.core.checks import check_integer
from lightning_dlopt.core.errors import DataError
from lightning_dlopt.core.randomness import keyed_generator, mix_key
from lightning_dlopt.data.resumable import ResumableLoader


class SampleSource(Protocol):
    """A map-style data set: samples by their index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class _KeyedSamples:
    """Batches of a data set's samples, each drawn under the key (seed, epoch, index).

    What a random transform makes of a sample then depends neither on the number of worker
    processes nor on where the run was resumed, and the draws leave no trace outside.
    """

    def __init__(self, dataset: SampleSource, seed: int, epoch: int) -> None:
        self.dataset = dataset
        self.seed = seed
        self.epoch = epoch

    def __getitem__(self, index: int) -> Any:
        key = mix_key(self.seed, self.epoch, index)
        state = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002
        try:
            # Not torch.manual_seed, which seeds the accelerators too.
            torch.default_generator.manual_seed(key)
            random.seed(key)
            np.random.seed(key % 2**32)  # noqa: NPY002 (transforms use the global one)
            return self.dataset[index]
        finally:
            torch.set_rng_state(state[0])
            random.setstate(state[1])
            np.random.set_state(state[2])  # noqa: NPY002

    def __getitems__(self, indices: list[int]) -> list[Any] | DataError:
        try:
            return [self[index] for index in indices]
        except DataError as error:
            # As a value: torch would raise it again with the worker's traceback for a message.
            return DataError(str(error))


class _Collate:
    """Apply ``collate`` to the samples of a batch, and hand an error through."""

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, samples: list[Any] | DataError) -> Any:
        return samples if isinstance(samples, DataError) else self.collate(samples)


class DecodingLoader(ResumableLoader[Any]):
    """Yield batches of samples that are read, and decoded, one by one, in worker processes.

    Order, resume and sharing among ranks are those of
    :class:`~lightning_dlopt.data.resumable.ResumableLoader`. The workers are started anew for
    each epoch with the index batches that remain of it. Global random number generators that a
    sample's transform draws from (torch's, numpy's, Python's) are seeded by (seed, epoch, index)
    around each sample and put back afterwards.

    Args:
        dataset: Map-style data set, ``len(dataset)`` and ``dataset[index]``. A
            :class:`~lightning_dlopt.core.errors.DataError` that it raises, in a worker too,
            reaches the caller with its one-line message.
        num_workers: Worker processes, at least 0; with 0 samples are read in this process.
        collate: Makes a batch of a list of samples; torch's ``default_collate`` if not given.
        **order: ``batch_size=32``, ``shuffle=False``, ``seed=0``, ``rank=0``, ``world_size=1``,
            ``drop_last=False``, as in ``ResumableLoader``.

    Raises:
        ArgumentError: if a number is outside its range.
        DataError: if there are too few samples for the ranks.

    Example:
        >>> loader = DecodingLoader([(1.0, 0), (2.0, 1), (3.0, 0)], batch_size=2)
        >>> [targets.tolist() for inputs, targets in loader]
        [[0, 1], [0]]
    """

    def __init__(
        self,
        dataset: SampleSource,
        *,
        num_workers: int = 0,
        collate: Callable[[list[Any]], Any] | None = None,
        **order: Any,
    ) -> None:
        super().__init__(len(dataset), **order)
        # Not under the name ``dataset``, by which Lightning would know a DataLoader.
        self.samples = dataset
        self.num_workers = check_integer(self, "num_workers", num_workers, "[0, inf)")
        self.collate = collate

    def _load(self, batches: list[Tensor], epoch: int) -> Iterator[Any]:
        loader: DataLoader[Any] = DataLoader(
            _KeyedSamples(self.samples, self.seed, epoch),  # type: ignore[arg-type]
            batch_sampler=[batch.tolist() for batch in batches],
            num_workers=self.num_workers,
            collate_fn=_Collate(self.collate or default_collate),
            # Without its own, every iterator would draw the workers' seed from the global one.
            generator=keyed_generator(self.seed, epoch),
        )
        for batch in loader:
            if isinstance(batch, DataError):
                raise batch
            yield batch
