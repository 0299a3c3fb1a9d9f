"""The base of techniques that change the model before its weights and optimizers come."""

import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import nn
from torch.distributed.tensor import DTensor

from lightning_dlopt.core.coverage import Coverage
from lightning_dlopt.core.errors import ArgumentError, CheckpointError
from lightning_dlopt.core.strategies import starts_processes_later
from lightning_dlopt.core.technique import Technique
from lightning_dlopt.structure.plan import (
    CheckpointHook,
    Entry,
    PlanSaver,
    drop_entries,
    find_entry,
    plan_of,
    subclasses,
    take_plan,
    write_entry,
)


class Surgery(Technique):
    """Changes the model once, and leaves it changed.

    The work is done in ``setup``, before the weights of a checkpoint are restored, before the
    optimizers are made and before a strategy wraps the model: after the module's own ``setup`` if
    it has one, and after its ``configure_model`` if it has no parameters before. What was done is
    noted in the module as plain data (:mod:`lightning_dlopt.structure.plan`) and goes into every
    checkpoint of it, those with ``save_weights_only=True`` and those of later runs included. A
    module that has an entry of this technique is left as it is, unless it has made its layers anew
    since, as a ``setup`` may do that is called for every training.

    Strategies that start processes out of a running one (``ddp_spawn``, ``ddp_notebook``) change
    and train the model in those. The module at hand stays as it was and gets only those weights
    back whose names it has, which is told: its trained form is in the checkpoints.
    """

    required_on_resume: ClassVar[bool] = True
    #: The classes of the parts that this technique makes, if all that it does is to make them.
    makes: ClassVar[tuple[type[nn.Module], ...]] = ()
    #: Whether the weights have the names and shapes that they had, and another meaning.
    hidden: ClassVar[bool] = False
    _coverage: Coverage | None = None

    @abstractmethod
    def operate(self, module: nn.Module, generator: torch.Generator) -> dict[str, Any]:
        """Change the module in place; return how, as plain data, or {} if nothing matched.

        Args:
            module: the module, on the CPU or wherever its parameters are.
            generator: for new parameters; the same on every rank.
        """

    @classmethod
    @abstractmethod
    def redo(cls, module: nn.Module, plan: dict[str, Any]) -> None:
        """Bring a module to the structure that ``plan`` says; the weights come afterwards.

        Args:
            module: one that this technique never changed, or one that it changed by the same plan
                or another.
            plan: what :meth:`operate` returned.

        Raises:
            CheckpointError: if the plan doesn't fit the module.
        """

    def record(self, module: nn.Module, plan: dict[str, Any]) -> None:
        """Note in the module what was done to it."""
        name = type(self).__name__
        _note(module, Entry(technique=name, key=self.state_key, plan=plan, hidden=self.hidden))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Change the model, or see to it that it is changed once it is there."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit":  # a model that was trained with it is tested with it
            self._patches.undo()
            self.watch_restore(trainer, pl_module)

        def and_then(original: Callable[..., Any]) -> Callable[..., Any]:
            def hook(*args: Any, **kwargs: Any) -> None:
                original(*args, **kwargs)
                self._change(pl_module)

            return hook

        if is_overridden("configure_model", pl_module) and not has_parameters(pl_module):
            self.patch(pl_module, "configure_model", and_then)
        elif is_overridden("setup", pl_module):
            self.patch(pl_module, "setup", and_then)
        else:
            self._change(pl_module)

    def _change(self, module: LightningModule) -> None:
        if find_entry(module, self.state_key) is not None:
            if not self.makes or any(isinstance(part, self.makes) for part in module.modules()):
                return
            drop_entries(module, type(self).__name__)  # all that was changed is gone
        self._coverage = Coverage(module)
        for name, parameter in module.named_parameters():
            if isinstance(parameter, DTensor):
                raise self.refuse(
                    f"{name} is sharded already: shard the model in configure_model, and make its "
                    "layers in the constructor or in setup"
                )
        try:
            plan = self.operate(module, self.keyed(0))
        except ArgumentError as error:
            raise self.refuse(str(error)) from error
        if plan:
            self.record(module, plan)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse optimizers that go on with the parameters of before."""
        if (
            starts_processes_later(trainer)
            and trainer.is_global_zero
            and find_entry(pl_module, self.state_key) is not None
        ):
            warnings.warn(
                f"{self!r} changes the model in the processes that fit has started, and not in the "
                "one that called it: the module there is wrong after training. Load a checkpoint "
                "by structure.load_from_checkpoint, or use strategy='ddp'",
                stacklevel=2,
            )
        if self._coverage is not None:
            self._coverage.check(self, pl_module, trainer.optimizers)

    def let_go(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget what was before."""
        self._coverage = None

    def before_restore(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Bring the model to the structure that the checkpoint's weights have."""
        if trainer.state.fn == "fit":
            super().before_restore(trainer, pl_module, checkpoint)
        restore_structure(pl_module, checkpoint)


def has_parameters(module: nn.Module) -> bool:
    """Return whether a module has any parameter yet."""
    return next(module.parameters(), None) is not None


def restore_structure(module: nn.Module, checkpoint: Mapping[str, Any]) -> None:
    """Bring a module to the structure that the checkpoint's weights have.

    Args:
        module: one that was never changed, or that the same techniques changed before.
        checkpoint: the content of a checkpoint.

    Raises:
        CheckpointError: if the module was changed by other techniques than the checkpoint's, or
            the plan doesn't fit it.
    """
    saved, own = take_plan(checkpoint), plan_of(module)
    keys, own_keys = [entry["key"] for entry in saved], [entry["key"] for entry in own]
    if own and keys != own_keys:
        raise CheckpointError(
            f"the model was changed by {', '.join(own_keys)}, and the checkpoint's by "
            f"{', '.join(keys) or 'nothing'}: resume with the same techniques in the same order"
        )
    known: dict[str, type[Surgery]] = {cls.__name__: cls for cls in _surgeries()}
    for index, entry in enumerate(saved):
        if own and own[index] == entry:
            continue
        if entry["technique"] not in known:
            raise CheckpointError(
                f"the checkpoint's model was changed by {entry['key']}, which isn't known here: "
                f"import the module that defines {entry['technique']}"
            )
        try:
            known[entry["technique"]].redo(module, entry["plan"])
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise CheckpointError(
                f"the checkpoint's plan of {entry['key']} can't be followed; it is damaged, or of "
                f"another version of this package ({type(error).__name__}: {error})"
            ) from error
        _note(module, entry)


class PlanLoader(CheckpointHook):
    """Brings a changed module to the structure that a checkpoint's weights have."""

    name = "on_load_checkpoint"

    def __call__(self, checkpoint: dict[str, Any]) -> None:
        """Do so, and then what the module does by itself."""
        restore_structure(self.module, checkpoint)
        super().__call__(checkpoint)


def _note(module: nn.Module, entry: Entry) -> None:
    for hook in (PlanSaver, PlanLoader):
        hook.put(module)
    write_entry(module, entry)


def _surgeries() -> list[type[Any]]:
    import lightning_dlopt.structure  # noqa: F401  the package's own are known once it is loaded

    return list(subclasses(Surgery))
