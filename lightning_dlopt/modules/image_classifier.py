"""A LightningModule that trains any network to classify images."""

from lightning_dlopt.modules.classifier import Classifier


class ImageClassifier(Classifier):
    """Trains ``network`` to classify images, with cross-entropy, and reports its accuracy.

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

    Shape:
        A batch is ``(inputs, targets)``; targets are class indices ``(batch,)`` of an integer type,
        or probabilities ``(batch, num_classes)``, of which metrics take the largest.

    Raises:
        ArgumentError: if an argument is outside its range, or, before the first batch of any
            command, if the data has more classes (where it says how many).

    Example:
        >>> import torch
        >>> from lightning_dlopt import MLP
        >>> classifier = ImageClassifier(MLP([64, 32, 10]))
        >>> classifier(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """
