"""The base of techniques that compute the training's cross-entropy in another way."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from lightning_dlopt.core.cross_entropy import OF_CLASSES, CatchCrossEntropy
from lightning_dlopt.core.patching import LOSS, PatchedMethod
from lightning_dlopt.core.step_arguments import batch_of
from lightning_dlopt.core.technique import Technique


class LossTechnique(Technique, ABC):
    """Replaces the cross-entropies that a module computes in its ``training_step``.

    The module sees its own batch with its own labels; only the value of the loss changes, where
    it is computed, and with it what the module logs of it. Validation, also one that calls
    ``training_step``, is left alone. A step that computes several cross-entropies has each of
    them replaced, so its own weights for them stay in force.

    A module whose first training step computes none that can be caught is refused before its
    first optimizer step: another loss, one inside what ``torch.compile`` compiled, or one of the
    others that :class:`CatchCrossEntropy` can't see. If a step computes such a loss **and** a
    cross-entropy that is seen (an auxiliary one, say), only the latter is replaced. That is what
    is wanted of a sum such as cross-entropy and ``mse_loss``, and nothing is said; if the loss
    besides is one that learns classes, too (``binary_cross_entropy`` with or without logits,
    ``linear_cross_entropy``, ``multi_margin_loss``), there is a warning. A loss that is written out
    by hand, compiled or scripted can't be told from the rest of the network, so of that there is
    none: compile the network without its loss.

    A module that sets its ``training_step`` to another method between batches is followed.

    Several such techniques train together in any order of the callbacks: each asks the next one
    around it for the cross-entropy, and the levels of :mod:`.patching` say who is around whom.
    """

    _catcher: CatchCrossEntropy | None = None
    _has_caught = False
    _has_run = False
    _has_warned = False

    @abstractmethod
    def neutral(self) -> str | None:
        """Return why the arguments leave training as it is, or None if they don't."""

    @abstractmethod
    def replace(self, logits: Tensor, target: Tensor, **options: Any) -> Tensor:
        """Return the loss; arguments as in :class:`CatchCrossEntropy`."""

    def look_at(self, batch: Any) -> None:
        """Take what is needed from the batch that the training step is about to get."""

    # ---- what Lightning calls ----

    def prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go around the training step, unless the arguments are neutral."""
        self._catcher, self._has_caught, self._has_warned = None, False, False
        why = self.neutral()
        if why is not None:
            self.warn_no_effect(why)
            return
        if is_compiled(pl_module.training_step):
            raise self.refuse(
                f"{type(pl_module).__name__} is compiled as a whole, and in a compiled training "
                "step the loss can't be caught: compile its network instead "
                "(module.network.compile())"
            )
        self.patch_step(trainer, pl_module)

    def patch_step(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replace ``training_step`` by one whose cross-entropies are caught."""
        self._catcher = catcher = CatchCrossEntropy(self.replace)

        def wrap(training_step: Callable[..., Any]) -> Callable[..., Any]:
            def step(*args: Any, **kwargs: Any) -> Any:
                if not trainer.training:
                    return training_step(*args, **kwargs)
                self._has_run = True
                self.look_at(batch_of(args, kwargs))
                catcher.restart()
                with catcher:
                    return training_step(*args, **kwargs)

            return step

        self.patch(pl_module, "training_step", wrap, level=LOSS)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Look out for the training step."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        self._has_run = False

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        """Refuse a module whose loss was not caught."""
        self.require_caught(pl_module)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Refuse a module that calls ``loss.backward()`` itself and whose loss was not caught."""
        # the automatic loop comes here also for a batch that was skipped
        if not pl_module.automatic_optimization:
            self.require_caught(pl_module)

    def require_caught(self, pl_module: LightningModule) -> None:
        """Raise a TechniqueError if the first training step has computed no cross-entropy."""
        if self._catcher is None:
            return
        if not self._has_run and not self._patches.are_in_place():
            raise self.refuse(
                f"{type(pl_module).__name__}.training_step was set to another method when the "
                "batch had begun, so its loss wasn't caught: set it in on_train_epoch_start"
            )
        if self._catcher.passed and self._catcher.caught:
            self._tell_of_others(pl_module, self._catcher.passed & OF_CLASSES)
        if self._has_caught:
            return
        if not self._catcher.caught:
            passed = ", ".join(sorted(self._catcher.passed))
            raise self.refuse(
                f"{type(pl_module).__name__}.training_step computed no cross-entropy that could be "
                "caught (torch.nn.functional.cross_entropy, nll_loss, or their modules)"
                + (f", but {passed}" if passed else "")
                + "; inside what torch.compile compiled none can be: compile the network rather "
                "than the whole module"
            )
        self._has_caught = True

    def _tell_of_others(self, pl_module: LightningModule, others: set[str]) -> None:
        if others and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"{self!r} works on the cross-entropy that {type(pl_module).__name__}."
                f"training_step computes, and not on its {', '.join(sorted(others))}: if that is "
                "the loss that matters, only another one is changed",
                stacklevel=2,
            )

    def let_go(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drop what is only needed while training."""
        self._catcher = None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_catcher": None}


def is_compiled(function: Any) -> bool:
    """Return whether a function, or what it wraps, is one that ``torch.compile`` made."""
    while function is not None:
        # there is no public way to ask; where this fails, the first step finds no loss and refuses
        if hasattr(function, "_torchdynamo_orig_callable"):
            return True
        beneath = "original" if isinstance(function, PatchedMethod) else "__wrapped__"
        function = getattr(function, beneath, None)
    return False
