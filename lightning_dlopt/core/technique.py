"""The base of every technique's callback."""

import inspect
import warnings
import zlib
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_dlopt.core.errors import ConflictError, NoEffectWarning, TechniqueError
from lightning_dlopt.core.gradients import note_backward
from lightning_dlopt.core.patching import OUTERMOST, Patches
from lightning_dlopt.core.plain import plain
from lightning_dlopt.core.randomness import keyed_generator, run_seed
from lightning_dlopt.core.replaced import Replaced
from lightning_dlopt.core.resume import SavedTechnique, check_all_present, saved_techniques


class Technique(Callback):
    """A training technique as a Lightning callback that works on modules nobody edits.

    A subclass checks its constructor's arguments, stores each under its own name, does its work
    in :meth:`prepare` and in the hook that fits what it changes, and replaces methods of the
    module through :meth:`patch` only, so that nothing is left behind after training.

    Its state in a checkpoint is plain data: its arguments, and what :meth:`extra_state` adds.
    """

    #: Techniques that share this word exclude each other.
    exclusive: ClassVar[str | None] = None
    #: Whether a checkpoint made with this technique can't be resumed without it.
    required_on_resume: ClassVar[bool] = False
    #: Whether it goes on rightly when parameters are cut in mid-training; what it has of a
    #: parameter's shape it then cuts in :meth:`parameters_replaced`.
    follows_cuts: ClassVar[bool] = True
    #: What brings this object, if it isn't the Trainer's list of callbacks.
    brought_by: Literal["module", "data"] | None = None
    #: Arguments that say how to start rather than what is done.
    not_identity: ClassVar[frozenset[str]] = frozenset()

    def arguments(self) -> dict[str, Any]:
        """Return the constructor's arguments by name, as plain data."""
        return {
            name: plain(getattr(self, name)) for name in inspect.signature(type(self)).parameters
        }

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self)).parameters
        shown = [
            f"{name}={value!r}"
            for name, value in self.arguments().items()
            if name not in self.not_identity and value != plain(defaults[name].default)
        ]
        return f"{type(self).__name__}({', '.join(shown)})"

    @cached_property  # Lightning reads it at every hook of every batch
    def state_key(self) -> str:
        """Return the key of this technique's state in a checkpoint: its class and arguments."""
        return repr(self)

    def prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do what must be done before weights are restored and optimizers are made."""

    def let_go(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave nothing behind: called after training, and after an exception in it."""

    def before_restore(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Look at a checkpoint of a run that is resumed, before its weights are loaded."""
        check_all_present(saved_techniques(checkpoint), techniques_of(trainer))

    def parameters_replaced(
        self, trainer: Trainer, pl_module: LightningModule, replaced: Replaced
    ) -> None:
        """Follow parameters that were replaced by cut ones, between two steps or after the last.

        Module and optimizers have the new ones already. What is kept by parameter or has a
        parameter's shape must follow.
        """

    def extra_state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps besides the arguments, as plain data or tensors."""
        return {}

    def check_resume(self, saved: list[SavedTechnique]) -> None:
        """Raise a CheckpointError if this technique can't go on from what was ``saved``."""

    def patch(
        self,
        owner: Any,
        name: str,
        wrap: Callable[[Callable[..., Any]], Callable[..., Any]],
        level: int = OUTERMOST,
    ) -> None:
        """Replace a method of one object until training ends; see :class:`Patches`."""
        self._patches.patch(owner, name, wrap, level)

    def generator(
        self,
        trainer: Trainer,
        device: torch.device | str = "cpu",
        *,
        same_on_all_ranks: bool = False,
        key: Sequence[int] = (),
    ) -> torch.Generator:
        """Return this technique's generator for the current training batch.

        It is keyed by the run's seed, the technique, the rank and the number of batches so far:
        the same after a resume, another for every technique and rank, and no global generator is
        read or moved. ``key`` tells several draws within a batch from each other.
        """
        rank = 0 if same_on_all_ranks else trainer.global_rank
        return self.keyed(trainer.fit_loop.total_batch_idx, rank=rank, key=key, device=device)

    def keyed(
        self,
        batch: int,
        *,
        rank: int = 0,
        key: Sequence[int] = (),
        device: torch.device | str = "cpu",
    ) -> torch.Generator:
        """Return the generator of the training batch of that number, counted from 0."""
        technique = zlib.crc32(self.state_key.encode())
        return keyed_generator(run_seed(), technique, rank, batch, *key, device=device)

    def warn_no_effect(self, why: str) -> None:
        """Tell the user that this technique does nothing in this run."""
        warnings.warn(f"{self!r} has no effect: {why}", NoEffectWarning, stacklevel=2)

    def refuse(self, why: str) -> TechniqueError:
        """Return the error that says why this technique can't work here; the caller raises it."""
        return TechniqueError(f"{self!r}: {why}")

    def check_rivals(self, techniques: "Sequence[Technique]") -> None:
        """Raise a ConflictError if another one of ``techniques`` is of the same exclusive kind."""
        for other in techniques:
            if (
                other is not self
                and self.exclusive is not None
                and other.exclusive == self.exclusive
            ):
                raise ConflictError(
                    f"{self!r} and {other!r} are both a {self.exclusive}: keep one of them"
                )

    # ---- what Lightning calls ----

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a second technique of the same exclusive kind, then prepare."""
        if stage != "fit":
            return
        self.check_rivals(techniques_of(trainer))
        self._patches.undo()
        self.watch_restore(trainer, pl_module)
        self.prepare(trainer, pl_module)

    def watch_restore(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See to it that :meth:`before_restore` is called.

        In ``setup`` the Trainer doesn't know yet what it resumes, and its callbacks are shown the
        checkpoint only after the module has its weights.
        """

        def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
            def on_load_checkpoint(checkpoint: dict[str, Any]) -> None:
                self.before_restore(trainer, pl_module, checkpoint)
                original(checkpoint)

            return on_load_checkpoint

        self.patch(pl_module, "on_load_checkpoint", wrap)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Follow a module that has set its ``training_step`` to another method since."""
        self._patches.follow(pl_module, "training_step")

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that this batch has gradients."""
        note_backward(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Put the module's own methods back, and let go of the rest."""
        self._patches.undo()
        self.let_go(trainer, pl_module)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Do the same: after an exception, no teardown is called."""
        self._patches.undo()
        self.let_go(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Return the technique's name, arguments and state, as plain data."""
        return {
            "technique": repr(self),
            "exclusive": self.exclusive,
            "required": self.required_on_resume,
            "arguments": self.arguments(),
            **self.extra_state(),
        }

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Compare the checkpoint's techniques with this run's, if it is for training."""
        if trainer.state.fn == "fit":
            self.check_resume(saved_techniques(checkpoint))

    def __getstate__(self) -> dict[str, Any]:
        # a copy of a module in mid-training must not undo what was done to the original; and
        # Lightning has put the module's log methods here, with which the module would come along
        left_out = {"_patches", "log", "log_dict"}
        return {name: value for name, value in vars(self).items() if name not in left_out}

    @cached_property  # made on first use, so that a subclass needn't call super().__init__()
    def _patches(self) -> Patches:
        return Patches()


def techniques_of(trainer: Trainer) -> list[Technique]:
    """Return the techniques among a Trainer's callbacks."""
    return [c for c in trainer.callbacks if isinstance(c, Technique)]  # type: ignore[attr-defined]
