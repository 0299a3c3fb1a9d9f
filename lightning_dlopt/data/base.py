"""The base of the DataModules: splits, seeds, ranks and the four loaders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from lightning.pytorch import LightningDataModule
from torch import Tensor
from typing_extensions import Self

from lightning_dlopt.augmentation import AugmentationMixin
from lightning_dlopt.core.checks import (
    check_flag,
    check_integer,
    check_number,
    check_text,
    owner_name,
)
from lightning_dlopt.core.errors import ArgumentTypeError, CheckpointError, DataError
from lightning_dlopt.core.mixin import TechniqueMixin
from lightning_dlopt.core.randomness import run_seed
from lightning_dlopt.core.technique import Technique
from lightning_dlopt.data.order import split_indices
from lightning_dlopt.data.resumable import ResumableLoader


class Samples(Protocol):
    """A set of samples of which a part can be taken."""

    def __len__(self) -> int: ...

    def select(self, indices: Tensor, /) -> Self:
        """Return the samples at ``indices``, an int64 tensor of shape ``(n,)``."""
        ...


def check_share(owner: object, name: str, value: int | float) -> int | float:
    """Return ``value`` if it is a number of samples (int, from 0) or a share (float in [0, 1))."""
    if isinstance(value, float):
        return check_number(owner, name, value, "[0, 1)")
    if isinstance(value, bool) or not isinstance(value, int):
        raise ArgumentTypeError(
            f"{owner_name(owner)}: {name}={value!r} must be a number of samples (an integer from "
            "0) or a share (a float in [0, 1))"
        )
    return check_integer(owner, name, value, "[0, inf)")


def check_path(owner: object, name: str, value: str | Path) -> str:
    """Return ``value``, a path that isn't empty, as a string."""
    return check_text(owner, name, str(value) if isinstance(value, Path) else value)


class ClassificationDataModule(AugmentationMixin, LightningDataModule):
    """Base of the DataModules; a subclass says where its samples come from.

    Batches are tuples ``(inputs, targets)``; targets are int64, ``(B,)``. Training batches are
    shuffled by an order of their own, keyed by (seed, epoch), which no other random draw changes
    and which resumes exactly in the middle of an epoch. Rank and number of ranks come from the
    attached Trainer. Nothing here reads or moves a global random number generator.

    A subclass implements :meth:`read_sets` and :meth:`make_loader`, and sets ``classes``.

    Args:
        batch_size: Samples in a training batch of one rank, at least 1.
        eval_batch_size: Samples in a batch of validation, test and prediction, at least 1.
        validation: How much of the training set is held out for validation: an integer is a
            number of samples, a float a share in [0, 1). With 0 there is no validation loader.
            A data set that brings its own validation set isn't split.
        split_seed: Key of the split, apart from ``seed``, so that runs with several seeds share
            one split. A checkpoint of another split is refused.
        seed: Key of the training order; None takes the run's (``seed_everything``, otherwise 0).
            A resumed run goes on with the seed in its checkpoint.
        drop_last: Whether an incomplete last training batch is left out.
        augmentation: A technique that changes training batches, or a list of them; see
            :class:`~lightning_dlopt.augmentation.AugmentationMixin`.

    Attributes:
        classes: Names of the classes, by target.
        num_classes: How many there are.
        train_set: The training samples; None before :meth:`setup`.
        validation_set: The held-out samples; None if there are none.
        test_set: The test samples; None if there are none.

    Raises:
        ArgumentError: if an argument is outside its range.
        ArgumentTypeError: if an argument has the wrong type or isn't known.
    """

    classes: tuple[str, ...] = ()

    def __init__(
        self,
        *args: Any,
        batch_size: int = 32,
        eval_batch_size: int = 512,
        validation: int | float = 0.1,
        split_seed: int = 0,
        seed: int | None = None,
        drop_last: bool = False,
        augmentation: Technique | Sequence[Technique] = (),
        **kwargs: Any,
    ) -> None:
        order = type(self).__mro__
        following = order[order.index(TechniqueMixin) + 1]
        if following is LightningDataModule and (args or kwargs):
            # Lightning's constructor accepts everything, and so a misspelt argument.
            unknown = ", ".join([*(repr(arg) for arg in args), *(f"{key}=" for key in kwargs)])
            raise ArgumentTypeError(f"{owner_name(self)}: unknown argument(s) {unknown}")
        super().__init__(*args, augmentation=augmentation, **kwargs)
        self.batch_size = check_integer(self, "batch_size", batch_size, "[1, inf)")
        self.eval_batch_size = check_integer(self, "eval_batch_size", eval_batch_size, "[1, inf)")
        self.validation = check_share(self, "validation", validation)
        self.split_seed = check_integer(self, "split_seed", split_seed, "(-inf, inf)")
        self.seed = None if seed is None else check_integer(self, "seed", seed, "(-inf, inf)")
        self.drop_last = check_flag(self, "drop_last", drop_last)
        self.train_set: Samples | None = None
        self.validation_set: Samples | None = None
        self.test_set: Samples | None = None
        self._restored_seed: int | None = None
        self._restored_place: dict[str, int] | None = None
        self._train_loader: ResumableLoader[Any] | None = None

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.classes)

    def read_sets(self) -> dict[str, Samples]:
        """Return the samples under ``"train"`` and, if there are, ``"validation"``, ``"test"``."""
        raise NotImplementedError

    def make_loader(self, samples: Any, training: bool, **order: Any) -> ResumableLoader[Any]:
        """Return the loader of one of the sets; ``order`` is for the loader's constructor."""
        raise NotImplementedError

    def setup(self, stage: str | None = None) -> None:
        """Read the data and split off the validation set, if that isn't done yet.

        Raises:
            DataError: if the data is missing or damaged, or nothing is left to train on.
        """
        if stage == "fit":  # what an earlier run left isn't this one's
            self._train_loader = self._restored_place = None
        if self.train_set is not None:
            return
        sets = self.read_sets()
        train = sets["train"]
        self.validation_set = sets.get("validation")
        if self.validation_set is None and self.validation > 0:
            stay, held_out = split_indices(len(train), self.validation, self.split_seed)
            self.validation_set = train.select(held_out)
            train = train.select(stay)
        self.test_set = sets.get("test")
        self.train_set = train

    def train_dataloader(self) -> ResumableLoader[Any]:
        """Return a loader of the training set: shuffled, and resumable in mid-epoch."""
        # Lightning turns off shuffling for ``overfit_batches`` in torch's DataLoader only.
        overfit = self.trainer is not None and self.trainer.overfit_batches > 0  # type: ignore[attr-defined]
        loader = self.make_loader(
            self._set("train"),
            training=True,
            batch_size=self.batch_size,
            shuffle=not overfit,
            drop_last=self.drop_last,
            **self._keys(),
        )
        # Lightning restores a loader's place only if it makes the loader after the restore; a
        # module that asks for ``estimated_stepping_batches`` has it made before.
        self._go_to_place(loader)
        self._train_loader = loader
        return loader

    def val_dataloader(self) -> ResumableLoader[Any] | list[Any]:
        """Return a loader of the validation set, or an empty list if there is none."""
        self.setup()
        return [] if self.validation_set is None else self._evaluation_loader("validation")

    def test_dataloader(self) -> ResumableLoader[Any]:
        """Return a loader of the test set; raises a DataError if there is none."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> ResumableLoader[Any]:
        """Return a loader of the test set, with targets; raises a DataError if there is none."""
        return self._evaluation_loader("test")

    def state_dict(self) -> dict[str, Any]:
        """Return the seeds of the training order and the split, and the place in the order."""
        place = {} if self._train_loader is None else self._train_loader.state_dict()
        seeds = {"seed": self._order_seed(), "split_seed": self.split_seed}
        return {**seeds, **({"place": place} if place else {})}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the saved place, and the seed unless the constructor was given one.

        Raises:
            CheckpointError: if the checkpoint is of another split, of which samples that are held
                out here were trained on.
        """
        split_seed = state_dict.get("split_seed", self.split_seed)
        if split_seed != self.split_seed:
            raise CheckpointError(
                f"{owner_name(self)}: the checkpoint was trained with split_seed={split_seed}, but "
                f"here split_seed={self.split_seed}: what is held out here was trained on there"
            )
        self._restored_seed = state_dict.get("seed")
        self._restored_place = state_dict.get("place")
        if self._train_loader is not None and self._is_fitting():
            # a module that asks for ``estimated_stepping_batches`` in its ``setup`` had it made
            self._restore(self._train_loader)

    def _is_fitting(self) -> bool:
        return self.trainer is not None and self.trainer.state.fn == "fit"

    def _restore(self, loader: ResumableLoader[Any]) -> None:
        """Bring a loader that was made before the restore into the restored state."""
        loader.seed = self._order_seed()
        self._go_to_place(loader)

    def _go_to_place(self, loader: ResumableLoader[Any]) -> None:
        if self._restored_place is not None:
            loader.load_state_dict(self._restored_place)
            self._restored_place = None

    def _order_seed(self) -> int:
        if self.seed is not None:
            return self.seed
        return run_seed() if self._restored_seed is None else self._restored_seed

    def _keys(self) -> dict[str, int]:
        # None without a process group. Under tensor parallelism the ranks that share one batch
        # have the same number here, unlike ``global_rank``.
        ranks = (self.trainer and self.trainer.distributed_sampler_kwargs) or {}
        return {
            "seed": self._order_seed(),
            "rank": ranks.get("rank", 0),
            "world_size": ranks.get("num_replicas", 1),
        }

    def _set(self, name: str) -> Samples:
        self.setup()
        samples: Samples | None = getattr(self, f"{name}_set")
        if samples is None:
            raise DataError(f"{owner_name(self)}: there is no {name} set")
        return samples

    def _evaluation_loader(self, name: str) -> ResumableLoader[Any]:
        return self.make_loader(
            self._set(name), training=False, batch_size=self.eval_batch_size, **self._keys()
        )
