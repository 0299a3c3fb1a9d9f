"""Labels of which every other class gets a small share."""

from typing import Any, ClassVar

from torch import Tensor
from torch.nn import functional

from lightning_dlopt.core.checks import check_number
from lightning_dlopt.core.errors import ArgumentError, ConflictError
from lightning_dlopt.core.loss_technique import LossTechnique


def smooth_labels(target: Tensor, smoothing: float, num_classes: int | None = None) -> Tensor:
    """Return ``(1 - smoothing) · target + smoothing / C`` as probabilities of C classes.

    Args:
        target: class indices ``(N, …)`` of an integer type, or probabilities ``(N, C, …)``.
        smoothing: the share that is spread over all classes, in [0, 1].
        num_classes: C; needed for class indices only.

    Returns:
        Probabilities ``(N, C, …)``.

    Raises:
        ArgumentError: if ``smoothing`` is out of range, or class indices come without C.

    Example:
        >>> import torch
        >>> smooth_labels(torch.tensor([0]), 0.2, num_classes=2)
        tensor([[0.9000, 0.1000]])
    """
    smoothing = check_number("smooth_labels", "smoothing", smoothing, "[0, 1]")
    if not target.is_floating_point():
        if num_classes is None:
            raise ArgumentError("smooth_labels: num_classes=None is needed for class indices")
        target = functional.one_hot(target.long(), num_classes).movedim(-1, 1).float()
    return target * (1 - smoothing) + smoothing / target.shape[1]


class LabelSmoothing(LossTechnique):
    """Train on labels of which every class gets a share, so that the network stays less sure.

    The training loss becomes ``cross_entropy(…, label_smoothing=smoothing)``, with what else the
    module gave it (``weight``, ``ignore_index``, ``reduction``, soft targets). The module goes on
    seeing its hard labels, so its metrics are right, and the validation loss stays what it was;
    the training loss that it logs is the smoothed one. Works under manual optimization.

    Source: C. Szegedy, V. Vanhoucke, S. Ioffe, J. Shlens, Z. Wojna, Rethinking the Inception
    Architecture for Computer Vision, 2016, arXiv:1512.00567, section 7, with the uniform
    distribution over the classes.

    When:
        Classifiers that grow too sure of themselves in long runs; labels that are partly wrong.

    When not:
        The network is to be a teacher for Distillation, of whose knowledge it takes away (R.
        Müller, S. Kornblith, G. Hinton, When Does Label Smoothing Help?, 2019, arXiv:1906.02629).

    Args:
        smoothing: the share that is spread evenly over all classes, the right one among them, in
            [0, 1]. At 0 nothing is patched.

    Raises:
        ConflictError: in the first step, if the module smooths its labels itself.
        TechniqueError: in the first step, if it computes no cross-entropy; see
            :class:`LossTechnique`.

    The checkpoint keeps the arguments.

    Example:
        >>> LabelSmoothing(0.2)
        LabelSmoothing(smoothing=0.2)
    """

    exclusive: ClassVar[str | None] = "label smoothing"

    def __init__(self, smoothing: float = 0.1) -> None:
        self.smoothing = check_number(self, "smoothing", smoothing, "[0, 1]")

    def neutral(self) -> str | None:
        """Return why there is nothing to do, if smoothing is 0."""
        return "smoothing is 0" if self.smoothing == 0 else None

    def replace(self, logits: Tensor, target: Tensor, **options: Any) -> Tensor:
        """Return the cross-entropy with smoothed labels."""
        if options["label_smoothing"]:
            raise ConflictError(
                f"{self!r}: the module smooths its labels itself (cross_entropy with "
                f"label_smoothing={options['label_smoothing']!r}): keep one of the two"
            )
        return functional.cross_entropy(
            logits, target, **{**options, "label_smoothing": self.smoothing}
        )
