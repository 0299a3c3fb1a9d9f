"""What the LightningModules that classify share."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.classification import MulticlassAccuracy

from lightning_dlopt.augmentation import AugmentationMixin
from lightning_dlopt.core.checks import check_integer
from lightning_dlopt.core.errors import ArgumentError
from lightning_dlopt.core.log_interval import is_logging_step
from lightning_dlopt.core.technique import Technique
from lightning_dlopt.schedules import Schedule, ScheduleMixin
from lightning_dlopt.structure import StructureMixin

Batch: TypeAlias = tuple[Tensor, Tensor]


class Classifier(ScheduleMixin, AugmentationMixin, StructureMixin, LightningModule):
    """Trains ``network`` with cross-entropy and reports its accuracy.

    Logs ``train_loss`` and ``train_accuracy`` of the batch at the Trainer's logging interval, and
    ``val_loss``, ``val_accuracy``, ``test_loss``, ``test_accuracy`` over their whole sets.

    Args:
        network: maps inputs to logits of shape ``(batch, num_classes)``.
        num_classes: number of classes, at least 2.
        optimizer: builds the optimizer from the parameters; Adam at its defaults if none is
            given, in torch's fused form.
        schedule: a learning-rate schedule, or None for a constant rate.
        augmentation: a technique that changes training batches, or a list of them.
        structure: a technique that changes the network, or a list of them.

    Raises:
        ArgumentError: if an argument is outside its range, or, before the first batch of any
            command, if the data has more classes (where it says how many).

    Shape:
        A batch is ``(inputs, targets)``; targets are class indices ``(batch,)`` of an integer type,
        or probabilities ``(batch, num_classes)``, of which metrics take the largest.
    """

    def __init__(
        self,
        network: nn.Module,
        num_classes: int = 10,
        optimizer: OptimizerCallable | None = None,
        schedule: Schedule | None = None,
        augmentation: Technique | Sequence[Technique] = (),
        structure: Technique | Sequence[Technique] = (),
    ) -> None:
        super().__init__(schedule=schedule, augmentation=augmentation, structure=structure)
        self.network = network
        self.num_classes = check_integer(self, "num_classes", num_classes, "[2, inf)")
        self.optimizer = optimizer or partial(torch.optim.Adam, fused=True)
        metric = partial(MulticlassAccuracy, num_classes, average="micro", validate_args=False)
        self.val_accuracy = metric()
        self.test_accuracy = metric()

    def on_fit_start(self) -> None:
        """Compare with the data, as before every other command."""
        super().on_fit_start()
        self._check_data()

    def on_validation_start(self) -> None:
        """Compare with the data."""
        super().on_validation_start()
        self._check_data()

    def on_test_start(self) -> None:
        """Compare with the data."""
        super().on_test_start()
        self._check_data()

    def on_predict_start(self) -> None:
        """Compare with the data."""
        super().on_predict_start()
        self._check_data()

    def _check_data(self) -> None:
        """Raise an ArgumentError if the attached DataModule has more classes."""
        data: Any = getattr(self.trainer, "datamodule", None)
        there = len(getattr(data, "classes", ()))
        here = getattr(self.network, "num_classes", there)
        if isinstance(here, int) and here < there:
            raise ArgumentError(
                f"{type(self).__name__}: {type(data).__name__} has {there} classes, but the "
                f"network {type(self.network).__name__} has num_classes={here}"
            )
        if there > self.num_classes:
            raise ArgumentError(
                f"{type(self).__name__}: num_classes={self.num_classes}, but "
                f"{type(data).__name__} has {there} classes"
            )

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.network(inputs)
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the cross-entropy of a batch."""
        inputs, targets = batch
        logits = self(inputs)
        loss = functional.cross_entropy(logits, targets)
        if is_logging_step(self.trainer):
            hits = (logits.argmax(1) == hard_labels(targets)).float().mean()
            self.log("train_loss", loss, prog_bar=True)
            self.log("train_accuracy", hits, prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Update the validation metrics."""
        self._evaluate(batch, "val", self.val_accuracy)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Update the test metrics."""
        self._evaluate(batch, "test", self.test_accuracy)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the probabilities of the classes, ``(batch, num_classes)``."""
        inputs = batch[0] if isinstance(batch, tuple | list) else batch
        return self(inputs).softmax(1)  # type: ignore[no-any-return]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Build the optimizer over the parameters that are trained.

        Raises:
            ArgumentError: if the optimizer refuses its arguments.
        """
        trained: Iterable[nn.Parameter] = (p for p in self.parameters() if p.requires_grad)
        try:
            return self.optimizer(trained)
        except (ValueError, TypeError) as error:
            raise ArgumentError(f"{type(self).__name__}: optimizer: {error}") from error

    def _evaluate(self, batch: Batch, split: str, accuracy: MulticlassAccuracy) -> None:
        inputs, targets = batch
        logits = self(inputs)
        accuracy.update(logits, hard_labels(targets))
        options: dict[str, Any] = {"on_epoch": True, "prog_bar": True, "batch_size": len(inputs)}
        self.log(
            f"{split}_loss", functional.cross_entropy(logits, targets), sync_dist=True, **options
        )
        self.log(f"{split}_accuracy", accuracy, **options)


def hard_labels(targets: Tensor) -> Tensor:
    """Return class indices: integer targets as they are, of probabilities the largest."""
    return targets.argmax(1) if targets.is_floating_point() else targets
