"""The structure techniques for modules that bring their own."""

from collections.abc import Sequence
from typing import Any, ClassVar

from lightning_dlopt.core.mixin import TechniqueMixin, check_techniques
from lightning_dlopt.core.technique import Technique
from lightning_dlopt.structure.surgery import restore_structure


class StructureMixin(TechniqueMixin):
    """Gives a LightningModule a ``structure`` argument; put it before ``LightningModule``.

    Training is the same as with the techniques among the Trainer's callbacks. Besides, the
    module's own ``load_from_checkpoint`` rebuilds a model that was changed in training.

    Args:
        *args: handed on to the next class.
        structure: one technique or a list of them.
        **kwargs: handed on to the next class.

    Raises:
        ArgumentTypeError: if ``structure`` holds something else.

    Example:
        >>> from lightning.pytorch.demos.boring_classes import BoringModel
        >>> from lightning_dlopt.structure import SqueezeExcite
        >>> class Network(StructureMixin, BoringModel):
        ...     pass
        >>> module = Network(structure=SqueezeExcite())
    """

    technique_arguments: ClassVar[tuple[str, ...]] = ("structure",)

    def __init__(
        self, *args: Any, structure: Technique | Sequence[Technique] = (), **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.add_techniques(*check_techniques(self, "structure", structure))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Bring the model to the structure that the checkpoint's weights have."""
        module: Any = self
        restore_structure(module, checkpoint)
        super().on_load_checkpoint(checkpoint)  # type: ignore[misc]
