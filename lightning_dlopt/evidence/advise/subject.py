"""What probes see of a module and its data: copies, batches and short runs."""

import copy
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch.optim import Optimizer

from lightning_dlopt.core.batch_copy import copied
from lightning_dlopt.core.global_generators import kept_generators, seed_global
from lightning_dlopt.evidence.advise.copying import (
    copied_data,
    copied_module,
    replace_loader,
    without_setup,
)
from lightning_dlopt.evidence.advise.finding import NotDoneError, NoTimeError
from lightning_dlopt.evidence.advise.in_force import (
    WITHOUT_EFFECT,
    in_short_runs,
    keep_techniques,
)
from lightning_dlopt.evidence.advise.loaders import stream_batches
from lightning_dlopt.evidence.advise.training import (
    ConstantRates,
    HoldWeights,
    Replay,
    Training,
    Watch,
    now,
    quiet_trainer,
    quietly,
)

Kind = Literal["train", "val"]


class Subject:
    """A module and its data, to be probed and left as they are.

    Everything happens on copies, with global generators that are seeded for the probe and put
    back after it; the seed is the same for each, so that no probe depends on those before it.

    In the short runs the module has its configured optimizers at their configured rates, without
    schedules; the package's techniques among the callbacks are in force, but for those of a whole
    run (schedules, pruning); other callbacks and all loggers are left out.

    Args:
        module: as it is before training.
        data: its DataModule, or None if the module has its own loaders.
        trainer: the run's Trainer, whose precision, clipping, accumulation and techniques the
            short runs take over; None for defaults.
        config: the run's resolved configuration as plain data (``model``, ``data``, ``trainer``),
            where overlays look for keys to set; empty if there is none.
        seed: of the global generators in every run.
        clock: gives the time in seconds.

    Attributes:
        module: the user's, to be read and not to be changed.
        data: the user's, likewise.
        deadline: until when the probe at work may take; set by :meth:`allow`.
        cut_off: in words, what the probe at work couldn't finish in its time, or None.
    """

    def __init__(
        self,
        module: LightningModule,
        data: LightningDataModule | None = None,
        trainer: Trainer | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        seed: int = 0,
        clock: Callable[[], float] = now,
    ) -> None:
        self.module, self.data, self.trainer = module, data, trainer
        self.config = config or {}
        self.seed, self.clock = seed, clock
        self.deadline = float("inf")
        self.cut_off: str | None = None
        self.device = torch.device("cpu") if trainer is None else trainer.strategy.root_device
        self._step_seconds: float | None = None
        self._prepared: LightningDataModule | None = None
        self._drawn: dict[Kind, list[Any]] = {}

    def allow(self, seconds: float) -> None:
        """Give the next probe so much time."""
        self.deadline, self.cut_off = self.clock() + seconds, None

    def seconds_left(self) -> float:
        """Return how much time the probe at work has left, at least 0."""
        return max(0.0, self.deadline - self.clock())

    def check_time(self, doing: str) -> bool:
        """Return whether there is time left; if not, note what was cut off."""
        if self.seconds_left() > 0:
            return True
        self.cut_off = doing
        return False

    def affordable(self, steps: int, least: int, runs: float = 1.0) -> int:
        """Return how many steps each of some runs can have in the time left.

        As many as are wanted, or fewer, which is noted as cut off. What a step takes is measured
        once.

        Args:
            steps: wanted.
            least: below which a run would say nothing.
            runs: how many of them there will be.

        Raises:
            NoTimeError: if not even ``least`` can be had.
        """
        if self._step_seconds is None:
            self._step_seconds = self.train(max_steps=4).step_seconds
        left = self.seconds_left()
        can = steps if self._step_seconds <= 0 else int(left / runs / self._step_seconds)
        if can < least:
            raise NoTimeError(
                f"{runs * least:.0f} steps, the fewest that say anything, need "
                f"{runs * least * self._step_seconds:.0f} s, and {left:.0f} s of the budget were "
                "left for them: give a longer one"
            )
        if can < steps:
            self.cut_off = f"runs of {can} steps instead of {steps}"
        return min(steps, can)

    def copy(self) -> LightningModule:
        """Return a fresh copy of the module with its initial weights, attached to no Trainer.

        Layers that are made in ``setup`` or ``configure_model``, or by a technique, aren't there;
        :meth:`train` with ``max_steps=0`` gives a copy that has them.
        """
        return copied_module(self.module)

    @contextmanager
    def isolated(self) -> Iterator[None]:
        """Seed the global generators (torch, NumPy, Python) in the block and put them back."""
        with kept_generators(self.device), quietly():
            seed_global(self.seed, self.device)
            random.seed(self.seed)
            np.random.seed(self.seed % 2**32)  # noqa: NPY002
            yield

    def batches(self, count: int, kind: Kind = "train") -> list[Any]:
        """Return the first batches of an epoch, on the CPU, as the training step gets them.

        They have passed the hooks before and after the transfer, but not the techniques that
        change batches in training. They are copies; fewer if the loader has fewer, and none if
        there is no loader of the kind.
        """
        if len(self._drawn.get(kind, [])) < count:
            with self.isolated():
                self._drawn[kind] = list(islice(self.stream(kind), count))
        return [copied(batch, tensors=True) for batch in self._drawn[kind][:count]]

    def stream(self, kind: Kind = "train") -> Iterator[Any]:
        """Yield the batches of one epoch as :meth:`batches` gives them, without keeping any."""
        module, data = self.copy(), self._data_copy()
        module.trainer = quiet_trainer(self.trainer, [], 1)
        if data is not None:
            data.trainer = module.trainer
        yield from stream_batches(module, data, kind)

    def train(
        self,
        callbacks: Sequence[Callback] = (),
        max_steps: int = 100,
        max_seconds: float | None = None,
        batches: Sequence[Any] | None = None,
        hold_weights: bool = False,
        module: LightningModule | None = None,
        plain: bool = False,
    ) -> Training:
        """Train a copy for a few steps.

        Args:
            callbacks: that look on or interfere; they come after the user's techniques.
            max_steps: optimizer steps; with 0 the copy is only set up, as before the first step.
            max_seconds: stop after so long; what the probe has left if None, and never more.
            batches: train on these again and again, such as :meth:`batches` gives them; None
                trains on the module's own loader with all that it does.
            hold_weights: put the weights back after each step: gradients at one point.
            module: a copy to train, such as one with other weights; a fresh one if None.
            plain: leave out what regularizes and augments.

        Raises:
            NotDoneError: if there is nothing to train on.
        """
        training = Training(self.copy() if module is None else module)
        begin = self.clock()
        seconds = self.seconds_left() if max_seconds is None else max_seconds
        watch = Watch(training, begin + min(seconds, self.seconds_left()), self.clock)
        with self.isolated():
            held = [HoldWeights()] if hold_weights else []
            used = [*self.techniques(plain), ConstantRates(), *callbacks, *held, watch]
            trainer = quiet_trainer(self.trainer, used, max_steps)
            self._fit(trainer, training.module, batches, plain)
        training.seconds = self.clock() - begin
        if training.cut_off:
            self.cut_off = f"a run of {max_steps} steps after {training.steps}"
        return training

    def optimizers(self) -> list[Optimizer]:
        """Return the optimizers that a run starts with, at their configured rates.

        They train a copy that is set up for the first step.
        """
        return self.train(max_steps=0).optimizers

    def validation_metrics(self) -> list[str]:
        """Return the names of what validation logs; none if there is no validation."""
        batches = self.batches(1, "val")
        return list(self.evaluate(self.copy(), batches)) if batches else []

    def evaluate(self, module: LightningModule, batches: Sequence[Any]) -> dict[str, float]:
        """Return what the module's validation step logs for the epoch of given batches.

        Args:
            module: a copy, such as a trained one.
            batches: of training or of validation, such as :meth:`batches` gives them.

        Raises:
            NotDoneError: if the module has no validation step.
        """
        if not is_overridden("validation_step", module):
            raise NotDoneError(f"{type(self.module).__name__} has no validation_step")
        with self.isolated():
            trainer = quiet_trainer(self.trainer, self.techniques(), 1)
            trainer.limit_val_batches = 1.0
            data = self._data_copy()
            replace_loader(module, data, "val", Replay(batches))
            trainer.validate(module, datamodule=data, verbose=False)
            found = trainer.callback_metrics.items()
        return {name: float(value) for name, value in found}

    def techniques(self, plain: bool = False) -> list[Callback]:
        """Return copies of the techniques among the Trainer's callbacks that short runs have."""
        return [copy.deepcopy(one) for one in self._callbacks() if in_short_runs(one, plain)]

    def left_out(self) -> list[str]:
        """Return the class names of the callbacks whose effect short runs don't have."""
        found = [one for one in self._callbacks() if not in_short_runs(one)]
        return [type(one).__name__ for one in found if not isinstance(one, WITHOUT_EFFECT)]

    def _callbacks(self) -> list[Callback]:
        return [] if self.trainer is None else self.trainer.callbacks  # type: ignore[attr-defined]

    def _fit(self, trainer: Trainer, module: LightningModule, batches: Any, plain: bool) -> None:
        data = self._data_copy()
        if data is not None:
            keep_techniques(data, plain)
        if batches is not None:
            replace_loader(module, data, "train", Replay(batches))
        elif not is_overridden("train_dataloader", module if data is None else data):
            raise NotDoneError("there is no training data: neither a DataModule nor own loaders")
        configure_callbacks = module.configure_callbacks

        def only_techniques() -> list[Callback]:
            found = configure_callbacks()
            found = list(found) if isinstance(found, Sequence) else [found]
            return [one for one in found if in_short_runs(one, plain)]

        module.configure_callbacks = only_techniques  # type: ignore[method-assign]
        trainer.fit(module, datamodule=data)
        del module.configure_callbacks

    def prepared_data(self) -> LightningDataModule | None:
        """Return a copy of the data that is set up, to be read; None if the module has its own."""
        if self.data is None:
            return None
        if self._prepared is None:
            prepared = copied_data(self.data)
            prepared.trainer = quiet_trainer(self.trainer, [], 1)
            prepared.prepare_data()
            prepared.setup("fit")
            prepared.trainer = None
            self._prepared = without_setup(prepared)
        return self._prepared

    def _data_copy(self) -> LightningDataModule | None:
        data = self.prepared_data()
        return None if data is None else copied_data(data)
