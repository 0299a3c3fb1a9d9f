"""The optimizer techniques for modules that bring their own."""

from collections.abc import Sequence
from typing import Any, ClassVar

from lightning.pytorch import LightningModule
from torch.optim import SGD

from lightning_dlopt.core.errors import TechniqueError
from lightning_dlopt.core.mixin import TechniqueMixin, check_techniques
from lightning_dlopt.core.technique import Technique, techniques_of
from lightning_dlopt.optimizers.use_optimizer import UseOptimizer


class OptimizerMixin(TechniqueMixin):
    """Gives a LightningModule an ``optimization`` argument; put it before ``LightningModule``.

    Training is the same as with the techniques among the Trainer's callbacks. A module that
    carries a :class:`UseOptimizer` needs no ``configure_optimizers`` of its own: all its
    parameters are trained then.

    Args:
        *args: handed on to the next class.
        optimization: one technique or a list of them.
        **kwargs: handed on to the next class.

    Raises:
        ArgumentTypeError: if ``optimization`` holds something else.

    Example:
        >>> import torch
        >>> class Plain(OptimizerMixin, LightningModule):
        ...     pass
        >>> Plain(optimization=UseOptimizer(torch.optim.Adam)).configure_optimizers
        <bound method OptimizerMixin.configure_optimizers of Plain()>
    """

    technique_arguments: ClassVar[tuple[str, ...]] = ("optimization",)

    def __init__(
        self, *args: Any, optimization: Technique | Sequence[Technique] = (), **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.add_techniques(*check_techniques(self, "optimization", optimization))

    def configure_optimizers(self) -> Any:
        """Return the next class's optimizers, or one over all parameters, to be replaced.

        Raises:
            TechniqueError: if neither the module nor a UseOptimizer says which optimizer.
        """
        inherited: Any = super().configure_optimizers  # type: ignore[misc]
        if getattr(inherited, "__func__", None) is not LightningModule.configure_optimizers:
            return inherited()
        module: Any = self
        if not any(isinstance(one, UseOptimizer) for one in techniques_of(module.trainer)):
            raise TechniqueError(
                f"{type(self).__name__} has no configure_optimizers: define it, or give "
                "optimization=UseOptimizer(...)"
            )
        parameters = [p for p in module.parameters() if p.is_floating_point()]
        if not parameters:
            raise TechniqueError(f"{type(self).__name__} has no parameters to train")
        return SGD(parameters)  # only its list of parameters is used
