"""A LightningModule that trains any network to classify texts."""

from typing import Any

from lightning_dlopt.core.errors import ArgumentError
from lightning_dlopt.modules.classifier import Classifier


class TextClassifier(Classifier):
    """Trains ``network`` to classify texts, with cross-entropy, and reports its accuracy.

    Logs ``train_loss`` and ``train_accuracy`` of the batch at the Trainer's logging interval, and
    ``val_loss``, ``val_accuracy``, ``test_loss``, ``test_accuracy`` over their whole sets.

    Args:
        network: maps token ids ``(batch, length)`` to logits ``(batch, num_classes)``, such as
            :class:`~lightning_dlopt.structure.RecurrentNet`.
        num_classes: number of classes, at least 2.
        optimizer: builds the optimizer from the parameters; Adam at its defaults if none is
            given, in torch's fused form.
        schedule: a learning-rate schedule, or None for a constant rate.
        augmentation: a technique that changes training batches, or a list of them.

    Shape:
        A batch is ``(tokens, targets)``; targets are class indices ``(batch,)`` of an integer type,
        or probabilities ``(batch, num_classes)``, of which metrics take the largest.

    Raises:
        ArgumentError: if an argument is outside its range, or, before the first step, if the data
            has more token ids or classes than the network (where both say how many they have).

    Example:
        >>> import torch
        >>> from lightning_dlopt import RecurrentNet
        >>> classifier = TextClassifier(RecurrentNet(100, 3), num_classes=3)
        >>> classifier(torch.tensor([[5, 6, 7], [8, 0, 0]])).shape
        torch.Size([2, 3])
    """

    def on_fit_start(self) -> None:
        """Compare the network with the data."""
        super().on_fit_start()
        data: Any = getattr(self.trainer, "datamodule", None)
        for name, there in (
            ("vocab_size", len(getattr(data, "vocabulary", ()))),
            ("num_classes", len(getattr(data, "classes", ()))),
        ):
            here = getattr(self.network, name, there)
            if isinstance(here, int) and here < there:
                what = "token ids" if name == "vocab_size" else "classes"
                raise ArgumentError(
                    f"TextClassifier: {type(data).__name__} has {there} {what}, but the network "
                    f"{type(self.network).__name__} has {name}={here}"
                    + (": give both the same vocab_size" if name == "vocab_size" else "")
                )
        if len(getattr(data, "classes", ())) > self.num_classes:
            raise ArgumentError(
                f"TextClassifier: num_classes={self.num_classes}, but {type(data).__name__} has "
                f"{len(data.classes)} classes"
            )
