"""What a training step predicts, caught where it computes its loss."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from lightning_dlopt.core.cross_entropy import read_arguments


class Predictions(NamedTuple):
    """Of N samples: the predicted class, ``(N,)``, the target, ``(N,)``, and how many classes."""

    predicted: Tensor
    targets: Tensor
    num_classes: int


class CatchPredictions(TorchFunctionMode):
    """While it is entered, keep what goes into cross-entropies of one class for each sample.

    Caught are ``cross_entropy``, ``nll_loss`` and, with one output a sample, the two
    ``binary_cross_entropy`` functions of ``torch.nn.functional``, and so their modules. Nothing is
    changed. Within what ``torch.compile`` compiled nothing can be seen.

    Attributes:
        found: one for each loss that was seen, in order.
        others: shapes of the scores of cross-entropies that aren't of one class for each sample.

    Example:
        >>> with CatchPredictions() as catch:
        ...     loss = functional.cross_entropy(torch.eye(3), torch.tensor([0, 1, 1]))
        >>> catch.found[0].predicted, catch.found[0].targets
        (tensor([0, 1, 2]), tensor([0, 1, 1]))
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Predictions] = []
        self.others: list[tuple[int, ...]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.compiler.is_compiling():
            pass
        elif func is functional.cross_entropy or func is functional.nll_loss:
            scores, targets, _ = read_arguments(*args, **kwargs)
            self._keep(scores.detach(), targets.detach())
        elif func in (
            functional.binary_cross_entropy,
            functional.binary_cross_entropy_with_logits,
        ):
            given = dict(zip(("input", "target"), args, strict=False)) | kwargs
            scores, targets = given["input"], given["target"]
            middle = 0.5 if func is functional.binary_cross_entropy else 0.0
            self._keep_binary(scores.detach() - middle, targets.detach())
        return func(*args, **kwargs)

    def _keep(self, scores: Tensor, targets: Tensor) -> None:
        if scores.dim() != 2 or targets.shape not in (scores.shape, scores.shape[:1]):
            self.others.append(tuple(scores.shape))
            return
        hard = targets if targets.dim() == 1 else targets.argmax(1)
        self.found.append(Predictions(scores.argmax(1), hard, scores.shape[1]))

    def _keep_binary(self, scores: Tensor, targets: Tensor) -> None:
        if scores.numel() != len(scores) or scores.shape != targets.shape:
            self.others.append(tuple(scores.shape))
            return
        predicted = (scores.flatten() > 0).long()
        self.found.append(Predictions(predicted, (targets.flatten() > 0.5).long(), 2))
