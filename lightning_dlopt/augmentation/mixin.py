"""The augmentation techniques for modules and data that bring their own."""

from collections.abc import Sequence
from typing import Any, ClassVar

from lightning_dlopt.core.batch_technique import BatchTechnique
from lightning_dlopt.core.errors import ArgumentTypeError
from lightning_dlopt.core.mixin import TechniqueMixin, check_techniques
from lightning_dlopt.core.technique import Technique


class AugmentationMixin(TechniqueMixin):
    """Gives a LightningModule or a LightningDataModule an ``augmentation`` argument.

    Put it before ``LightningModule`` or ``LightningDataModule`` in the list of base classes.
    Training is the same as with the techniques among the Trainer's callbacks. Those of the data
    work before those of the Trainer, and these before those of the module.

    Args:
        *args: handed on to the next class.
        augmentation: one technique or a list of them.
        **kwargs: handed on to the next class.

    Raises:
        ArgumentTypeError: if ``augmentation`` holds something else than techniques that change the
            batch.

    Example:
        >>> from lightning.pytorch.demos.boring_classes import BoringDataModule
        >>> from lightning_dlopt.augmentation import RandomErase
        >>> class Data(AugmentationMixin, BoringDataModule):
        ...     pass
        >>> Data(augmentation=RandomErase(0.25)).augmentation
        [RandomErase(probability=0.25)]
    """

    technique_arguments: ClassVar[tuple[str, ...]] = ("augmentation",)

    def __init__(
        self, *args: Any, augmentation: Technique | Sequence[Technique] = (), **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        techniques = check_techniques(self, "augmentation", augmentation)
        for technique in techniques:
            if not isinstance(technique, BatchTechnique):
                raise ArgumentTypeError(
                    f"{type(self).__name__}: augmentation holds {technique!r}, which changes no "
                    "batches: give it to the Trainer, or to the mixin of its family"
                )
        self._augmentation = techniques
        self.add_techniques(*techniques)

    @property
    def augmentation(self) -> list[Technique]:
        """The techniques that were given to the constructor; they can't be set later."""
        return list(self._augmentation)
