"""Loading a model that was changed in training."""

from pathlib import Path
from typing import Any, TypeVar

from lightning.pytorch import LightningModule

from lightning_dlopt.structure.surgery import restore_structure

M = TypeVar("M", bound=LightningModule)


def load_from_checkpoint(cls: type[M], path: str | Path, **arguments: Any) -> M:
    """Return a module as it was saved, with the structure that techniques had given it.

    The checkpoint holds a plan of what was done, as plain data, by which a new module is changed
    before the weights are loaded. No code in the file is run, and no further library is needed.

    Args:
        cls: the module's class, as it was written; it needs to know nothing of this package.
        path: the checkpoint.
        **arguments: what ``cls.load_from_checkpoint`` takes, such as the constructor's arguments
            that the checkpoint doesn't hold. ``weights_only`` is True by default.

    Raises:
        CheckpointError: if the plan doesn't fit the class.

    Example:
        >>> from lightning.pytorch.demos.boring_classes import BoringModel
        >>> load_from_checkpoint(BoringModel, "runs/last.ckpt")  # doctest: +SKIP
    """

    class Rebuilt(cls):  # type: ignore[valid-type, misc]
        def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            restore_structure(self, checkpoint)
            super().on_load_checkpoint(checkpoint)

    Rebuilt.__name__, Rebuilt.__qualname__ = cls.__name__, cls.__qualname__
    Rebuilt.__module__ = cls.__module__
    module: Any = Rebuilt.load_from_checkpoint(path, **{"weights_only": True, **arguments})
    module.__class__ = cls
    return module  # type: ignore[no-any-return]
