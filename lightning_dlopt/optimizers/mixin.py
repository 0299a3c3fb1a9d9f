"""The optimizer techniques for modules that bring their own."""

from collections.abc import Sequence
from typing import Any

from lightning_dlopt.core.mixin import TechniqueMixin, check_techniques
from lightning_dlopt.core.technique import Technique


class OptimizerMixin(TechniqueMixin):
    """Gives a LightningModule an ``optimization`` argument; put it before ``LightningModule``.

    Training is the same as with the techniques among the Trainer's callbacks.

    Args:
        *args: handed on to the next class.
        optimization: one technique or a list of them.
        **kwargs: handed on to the next class.

    Raises:
        ArgumentTypeError: if ``optimization`` holds something else.
    """

    def __init__(
        self, *args: Any, optimization: Technique | Sequence[Technique] = (), **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.add_techniques(*check_techniques(self, "optimization", optimization))
