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
        structure: a technique that changes the network, or a list of them.

    Shape:
        A batch is ``(tokens, targets)``; targets are class indices ``(batch,)`` of an integer type,
        or probabilities ``(batch, num_classes)``, of which metrics take the largest.

    Raises:
        ArgumentError: if an argument is outside its range, or, before the first batch of any
            command, if the data has more token ids or classes than the network, or another
            ``pad_id`` (where both say what they have).

    Example:
        >>> import torch
        >>> from lightning_dlopt import RecurrentNet
        >>> classifier = TextClassifier(RecurrentNet(100, 3), num_classes=3)
        >>> classifier(torch.tensor([[5, 6, 7], [8, 0, 0]])).shape
        torch.Size([2, 3])
    """

    def _check_data(self) -> None:
        """Raise an ArgumentError if the attached DataModule's texts don't fit the network."""
        super()._check_data()
        data: Any = getattr(self.trainer, "datamodule", None)
        names = f"{type(data).__name__} has {{}}, but the network {type(self.network).__name__} has"
        there = len(getattr(data, "vocabulary", ()))
        size = getattr(self.network, "vocab_size", there)
        if isinstance(size, int) and size < there:
            raise ArgumentError(
                f"TextClassifier: {names.format(f'{there} token ids')} vocab_size={size}: give "
                "both the same vocab_size"
            )
        padding = getattr(data, "pad_id", None)
        own = getattr(self.network, "pad_id", padding)
        if isinstance(padding, int) and isinstance(own, int) and own != padding:
            raise ArgumentError(
                f"TextClassifier: {names.format(f'pad_id={padding}')} pad_id={own}: the network "
                "would read padding as words"
            )
