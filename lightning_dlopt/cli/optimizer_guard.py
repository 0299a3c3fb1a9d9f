"""Parameters that no optimizer trains because it was made too early are found, not passed over."""

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_dlopt.core.coverage import Coverage


class OptimizerGuard(Callback):
    """Compares the optimizers with the module after all callbacks have changed what they change.

    The optimizer of ``--optimizer`` exists before any callback runs; see :class:`Coverage`.
    """

    def __init__(self) -> None:
        self._coverage: Coverage | None = None

    def remember(self, module: LightningModule) -> None:
        """Note the parameters that the module has before training."""
        self._coverage = Coverage(module)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raise a TechniqueError if a parameter was lost sight of."""
        if self._coverage is not None:
            self._coverage.check("dlopt fit", pl_module, trainer.optimizers)
