"""The regularization techniques for modules that bring their own."""

from collections.abc import Sequence
from typing import Any

from lightning_dlopt.core.mixin import TechniqueMixin, check_techniques
from lightning_dlopt.core.technique import Technique


class RegularizationMixin(TechniqueMixin):
    """Gives a LightningModule a ``regularization`` argument; put it before ``LightningModule``.

    Training is the same as with the techniques among the Trainer's callbacks.

    Args:
        *args: handed on to the next class.
        regularization: one technique or a list of them.
        **kwargs: handed on to the next class.

    Raises:
        ArgumentTypeError: if ``regularization`` holds something else.
    """

    def __init__(
        self, *args: Any, regularization: Technique | Sequence[Technique] = (), **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.add_techniques(*check_techniques(self, "regularization", regularization))
