"""How a module carries its own techniques."""

import inspect
from collections.abc import Sequence
from typing import Any, ClassVar

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer

from lightning_dlopt.core.checks import owner_name
from lightning_dlopt.core.errors import ArgumentTypeError, ConflictError, TechniqueError
from lightning_dlopt.core.technique import Technique


def check_techniques(owner: object, name: str, value: Any) -> list[Technique]:
    """Return ``value``, one technique or a sequence of them, as a list, or raise."""
    techniques = [value] if isinstance(value, Technique) else value
    if not isinstance(techniques, Sequence) or not all(
        isinstance(technique, Technique) for technique in techniques
    ):
        raise ArgumentTypeError(
            f"{owner_name(owner)}: {name}={value!r} must be a technique of lightning_dlopt, "
            "or a list of them"
        )
    return list(techniques)


class _TrainerOfData:
    """The ``trainer`` of a DataModule; the moment it is set, the Trainer gets the techniques.

    That is before every run, whichever of Lightning's hooks the DataModule overrides.
    """

    def __get__(self, owner: Any, _: type | None = None) -> Any:
        return self if owner is None else vars(owner).get("trainer")

    def __set__(self, owner: Any, trainer: Trainer | None) -> None:
        vars(owner)["trainer"] = trainer
        if trainer is not None:
            owner.bring_techniques(trainer)


class TechniqueMixin:
    """Base of the families' mixins: a module, or its data, brings techniques to any Trainer.

    They are the same objects as in ``Trainer(callbacks=[...])``, so both forms train alike to the
    last bit and leave the same state in a checkpoint. A LightningModule returns them from its
    ``configure_callbacks``; a LightningDataModule puts them before the Trainer's own when it is
    given the Trainer.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse a class in which Lightning's constructor would never reach the mixin's."""
        super().__init_subclass__(**kwargs)
        order = cls.__mro__
        for base in (LightningModule, LightningDataModule):
            if base in order and order.index(base) < order.index(TechniqueMixin):
                raise ArgumentTypeError(
                    f"{cls.__name__}: the mixins come before {base.__name__} (and before any "
                    "module that they are added to) in the list of base classes"
                )
        if LightningDataModule in order:
            cls.trainer = _TrainerOfData()  # type: ignore[attr-defined]

    #: The constructor's arguments that hold techniques, in a subclass.
    technique_arguments: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._own_techniques: list[Technique] = []

    def add_techniques(self, *techniques: Technique | None) -> None:
        """Take up techniques; None is left out."""
        for technique in techniques:
            if technique is not None:
                technique.brought_by = "module" if isinstance(self, LightningModule) else "data"
                self._own_techniques.append(technique)

    def save_hyperparameters(self, *args: Any, **kwargs: Any) -> None:
        """Save hyperparameters as Lightning does, without the techniques.

        They are no plain data, and a checkpoint keeps them with their state. A module that is
        loaded by ``load_from_checkpoint`` has those that it is given there.
        """
        given = kwargs.pop("ignore", None) or ()
        ignored = {given} if isinstance(given, str) else set(given)
        for cls in type(self).__mro__:
            ignored |= set(vars(cls).get("technique_arguments", ()))
        frame = kwargs.pop("frame", None) or inspect.currentframe().f_back  # type: ignore[union-attr]
        super().save_hyperparameters(*args, ignore=sorted(ignored), frame=frame, **kwargs)  # type: ignore[misc]

    def configure_callbacks(self) -> Sequence[Callback] | Callback:
        """Return the module's techniques, and what a base class returns.

        Raises:
            ConflictError: if the Trainer has a technique of the same class; Lightning would let
                the module's take its place without a word.
        """
        inherited: Any = super().configure_callbacks()  # type: ignore[misc]
        callbacks = list(inherited) if isinstance(inherited, Sequence) else [inherited]
        trainer: Any = self.trainer  # type: ignore[attr-defined]
        self._take_place(trainer, "module", callbacks)
        return [*callbacks, *self._own_techniques]

    def bring_techniques(self, trainer: Any) -> None:
        """Put a DataModule's techniques before the callbacks that the Trainer has.

        Raises:
            ConflictError: if the Trainer has a technique of the same class.
        """
        self._take_place(trainer, "data", [])
        trainer.callbacks = [*self._own_techniques, *trainer.callbacks]

    def _take_place(self, trainer: Any, brought_by: str, callbacks: list[Callback]) -> None:
        # what was brought to an earlier run of this Trainer went with what brought it
        trainer.callbacks = [
            c for c in trainer.callbacks if getattr(c, "brought_by", None) != brought_by
        ]
        if not hasattr(self, "_own_techniques"):
            raise TechniqueError(
                f"{type(self).__name__} has not called the constructor of its mixins: call "
                "super().__init__(...) in its own"
            )
        for mine in self._own_techniques:
            for theirs in trainer.callbacks:
                if isinstance(mine, type(theirs)) and theirs not in callbacks:
                    raise ConflictError(
                        f"{type(self).__name__} brings {mine!r}, and the Trainer has {theirs!r}: "
                        "keep one of them"
                    )
