"""The regularization techniques for modules that bring their own."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_dlopt.core.mixin import TechniqueMixin, check_techniques
from lightning_dlopt.core.technique import Technique
from lightning_dlopt.regularization.penalty_base import Penalty


class RegularizationMixin(TechniqueMixin):
    """Gives a LightningModule a ``regularization`` argument; put it before ``LightningModule``.

    Training is the same as with the techniques among the Trainer's callbacks.

    Args:
        *args: handed on to the next class.
        regularization: one technique or a list of them.
        **kwargs: handed on to the next class.

    Raises:
        ArgumentTypeError: if ``regularization`` holds something else.

    Example:
        >>> from lightning.pytorch.demos.boring_classes import BoringModel
        >>> from lightning_dlopt.regularization import L2
        >>> class Ridge(RegularizationMixin, BoringModel):
        ...     pass
        >>> module = Ridge(regularization=L2(0.1))
        >>> module.regularization_loss().item() > 0
        True
    """

    technique_arguments: ClassVar[tuple[str, ...]] = ("regularization",)

    def __init__(
        self, *args: Any, regularization: Technique | Sequence[Technique] = (), **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.add_techniques(*check_techniques(self, "regularization", regularization))

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def regularization_loss(self) -> Tensor:
        """Return the sum of the penalties that the module brings, differentiable.

        That is of its :class:`L1`, :class:`L2` and :class:`ElasticNet`; 0 if it brings none. Its
        gradient is what they add by themselves, and a module needs it only to say otherwise where
        the penalty acts: in its own loss, in one of several losses, under manual optimization.

        Nothing is penalized twice: once a backward pass has gone through the returned tensor, the
        penalties leave the gradients alone until the end of ``fit``. Looking at the value, or
        logging it, changes nothing.

        Raises:
            TechniqueError: in the backward pass, if a penalty's ``method`` isn't the one that acts
                on gradients, or if earlier steps of this ``fit`` were penalized without it.
        """
        penalties = [one for one in self._own_techniques if isinstance(one, Penalty)]
        module: Any = self
        total: Any = torch.zeros((), device=module.device)
        for penalty in penalties:
            total = total + penalty.value(module)

        def learn(_: Tensor) -> None:
            for penalty in penalties:
                penalty.joins_loss()

        if total.requires_grad:
            total.register_hook(learn)
        return total  # type: ignore[no-any-return]
