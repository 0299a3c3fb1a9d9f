"""What the loaders share: an own order, exact resume, and a share for each rank."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

from torch import Tensor

from lightning_dlopt.core.checks import check_integer
from lightning_dlopt.core.errors import CheckpointError, DataError
from lightning_dlopt.data.order import check_order, count_batches, epoch_batches

Batch = TypeVar("Batch")


class _Place:
    """The next batch: ``position`` of ``epoch``."""

    def __init__(self, epoch: int, position: int) -> None:
        self.epoch = epoch
        self.position = position
        self.begun = False


class _BatchSampler:
    """Where Lightning looks for ``set_epoch``, which it calls before every epoch."""

    def __init__(self, loader: "ResumableLoader[Any]") -> None:
        self.sampler = loader


class ResumableLoader(ABC, Generic[Batch]):
    """Base of the loaders that yield whole batches in an order of their own.

    The order depends on (seed, epoch) only. No global random number generator is read or moved.
    Lightning saves the loader's state in its checkpoints and restores it, so a run that stopped
    in the middle of an epoch goes on with the very next batch.

    Every new ``iter()`` is a new epoch; the first one after :meth:`load_state_dict` continues the
    saved epoch. An iterator takes its epoch when its first batch is asked for.

    It isn't a ``torch.utils.data.DataLoader``, so Lightning neither wraps it nor adds a sampler.

    Args:
        size: Number of samples.
        batch_size: Samples in a batch of one rank, at least 1.
        shuffle: Whether each epoch has a random order (training); otherwise every sample comes
            exactly once over all ranks (evaluation).
        seed: Key of the order, any integer.
        rank: This process's number, in ``[0, world_size)``.
        world_size: Number of processes that share the samples.
        drop_last: Whether an incomplete last global batch is left out.

    Raises:
        ArgumentError: if a number is outside its range.
        DataError: if there are too few samples for one batch on every rank.
    """

    def __init__(
        self,
        size: int,
        *,
        batch_size: int = 32,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
    ) -> None:
        self.size = size
        check_order(self, batch_size, shuffle, rank, world_size, drop_last)
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = check_integer(self, "seed", seed, "(-inf, inf)")
        self.world_size = world_size
        self.rank = rank
        self.drop_last = drop_last
        if size < 1:
            raise DataError(f"{type(self).__name__}: there are no samples")
        self._batches = count_batches(
            size, batch_size, shuffle=shuffle, world_size=world_size, drop_last=drop_last
        )
        self._place = _Place(0, 0)

    @abstractmethod
    def _load(self, batches: list[Tensor], epoch: int) -> Iterator[Batch]:
        """Yield the samples at each of ``batches``, which are int64 index tensors."""

    def _lengths(self) -> Tensor | None:
        """Return the samples' lengths if batches are to hold samples of similar length."""
        return None

    def __len__(self) -> int:
        return self._batches

    def __iter__(self) -> Iterator[Batch]:
        # A generator: nothing happens before its first batch is asked for, because Lightning
        # makes iterators that it throws away, and sets the epoch after having made one.
        if self._place.begun:
            self._place = _Place(self._place.epoch + 1, 0)
        place = self._place
        place.begun = True
        for batch in self._load(self._order(place.epoch)[place.position :], place.epoch):
            place.position += 1
            yield batch

    def first_batch(self, draws: int = 0) -> Batch:
        """Return the first batch of all; the place stays where it is.

        Args:
            draws: the epoch whose random draws a sample's transform has. At 0 the batch is the one
                that training begins with; at others it has the same samples.
        """
        return next(self._load(self._order(0)[:1], draws))

    def _order(self, epoch: int) -> list[Tensor]:
        return epoch_batches(
            self.size,
            self.batch_size,
            shuffle=self.shuffle,
            seed=self.seed,
            epoch=epoch,
            rank=self.rank,
            world_size=self.world_size,
            drop_last=self.drop_last,
            lengths=self._lengths(),
        )

    @property
    def batch_sampler(self) -> _BatchSampler:
        """The object on which Lightning finds :meth:`set_epoch`."""
        return _BatchSampler(self)

    def set_epoch(self, epoch: int) -> None:
        """Make ``epoch`` the next one; a resumed place in this very epoch is kept."""
        if self._place.begun or self._place.epoch != epoch:
            self._place = _Place(check_integer(self, "epoch", epoch, "[0, inf)"), 0)

    def state_dict(self) -> dict[str, int]:
        """Return the place in the order as plain integers, the same on every rank.

        ``epoch`` and ``position`` (batches handed out in it) are the place; the rest says in which
        order it is one.
        """
        return {"epoch": self._place.epoch, "position": self._place.position, **self._order_key()}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Continue from a saved place; the end of an epoch is the start of the next.

        Raises:
            CheckpointError: if the place lies inside an epoch that has another order here.
        """
        try:
            epoch, position, batches = (
                int(state_dict[name]) for name in ("epoch", "position", "batches")
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{type(self).__name__}: {state_dict!r} is not a state that this loader saved"
            ) from error
        if position >= batches:
            epoch, position = epoch + 1, 0
        if position > 0:
            for name, here in self._order_key().items():
                if state_dict.get(name) != here:
                    raise CheckpointError(
                        f"{type(self).__name__}: the checkpoint was saved inside an epoch with "
                        f"{name}={state_dict.get(name)}, but this loader has {name}={here}: resume "
                        "with the same data, read in the same way, and the same batch size and "
                        "seed, or from an epoch's end"
                    )
        self._place = _Place(epoch, position)

    def _order_key(self) -> dict[str, int]:
        return {
            "batches": len(self),
            "size": self.size,
            "global_batch_size": self.batch_size * self.world_size,
            "seed": self.seed,
        }
