"""The base of techniques that work on the model as all others have made it."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from lightning_dlopt.core.patching import OUTERMOST
from lightning_dlopt.core.technique import Technique


class AfterSurgery(Technique):
    """Works on the model once every :class:`Surgery` has changed it, wherever that is listed.

    A surgery changes the model in ``setup``, around the module's ``configure_model``, or when it
    sees a checkpoint whose model was changed. In training :meth:`finish` comes after all of these,
    and before weights are loaded and a strategy wraps the model; it may be called twice. In
    validation, testing and prediction it is called once, when everything is ready.
    """

    @abstractmethod
    def finish(self, trainer: Trainer, module: LightningModule) -> None:
        """Do the work; the second time on a model that may have other parts."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """See to it that :meth:`finish` is called in training."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return

        def wrap(configure_model: Callable[[], None]) -> Callable[[], None]:
            def hook() -> None:
                configure_model()
                self.finish(trainer, pl_module)

            return hook

        self.patch(pl_module, "configure_model", wrap, OUTERMOST + 1)

    def watch_restore(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See to it that :meth:`finish` is called after the surgeries have seen a checkpoint."""

        def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
            def on_load_checkpoint(checkpoint: dict[str, Any]) -> None:
                self.before_restore(trainer, pl_module, checkpoint)
                original(checkpoint)
                self.finish(trainer, pl_module)

            return on_load_checkpoint

        self.patch(pl_module, "on_load_checkpoint", wrap, OUTERMOST + 1)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do the work, if it isn't the validation within a training."""
        if trainer.state.fn == "validate":
            self.finish(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do the work."""
        self.finish(trainer, pl_module)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do the work."""
        self.finish(trainer, pl_module)
