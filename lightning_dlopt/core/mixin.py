"""How a module carries its own techniques."""

import inspect
from collections.abc import Sequence
from typing import Any, ClassVar

from lightning.pytorch import Callback, LightningModule

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


class TechniqueMixin:
    """Base of the families' mixins: the module brings its techniques to any Trainer.

    They are the same objects as in ``Trainer(callbacks=[...])``, returned by the module's
    ``configure_callbacks``, so both forms train alike to the last bit and leave the same state in
    a checkpoint.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse a class in which Lightning's constructor would never reach the mixin's."""
        super().__init_subclass__(**kwargs)
        order = cls.__mro__
        if LightningModule in order and order.index(LightningModule) < order.index(TechniqueMixin):
            raise ArgumentTypeError(
                f"{cls.__name__}: the mixins come before LightningModule (and before any module "
                "that they are added to) in the list of base classes"
            )

    #: The constructor's arguments that hold techniques, in a subclass.
    technique_arguments: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._own_techniques: list[Technique] = []

    def add_techniques(self, *techniques: Technique | None) -> None:
        """Take up techniques; None is left out."""
        for technique in techniques:
            if technique is not None:
                technique.is_brought = True
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
        # what a module brought to an earlier fit of this Trainer went with that module
        trainer.callbacks = [c for c in trainer.callbacks if not getattr(c, "is_brought", False)]
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
        return [*callbacks, *self._own_techniques]
