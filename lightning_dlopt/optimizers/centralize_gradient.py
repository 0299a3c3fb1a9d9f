"""Gradients with a mean of zero for each output unit."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard

from lightning_dlopt.core.checks import check_flag
from lightning_dlopt.core.errors import ArgumentError
from lightning_dlopt.core.gradients import unscale_gradients, with_gradients
from lightning_dlopt.core.parameters import Chosen, Selection, check_selection, select_parameters
from lightning_dlopt.core.strategies import strategy_kind
from lightning_dlopt.core.technique import Technique


@torch.no_grad()
def centralize_gradient_(gradients: Iterable[Tensor]) -> None:
    """Subtract from each gradient, in place, its mean over all dimensions but the first.

    Args:
        gradients: dense tensors ``(outputs, ...)``; those of fewer than two dimensions, and those
            with one number for each output, are left as they are. A DTensor may be split among
            ranks along its first dimension only.

    Raises:
        ArgumentError: if a gradient is sparse, or is split along another dimension.

    Example:
        >>> gradient = torch.tensor([[1.0, 3.0], [0.0, 0.0]])
        >>> centralize_gradient_([gradient])
        >>> gradient
        tensor([[-1.,  1.],
                [ 0.,  0.]])
    """
    for gradient in gradients:
        # one number is its own mean, and without it nothing would train
        if gradient.dim() < 2 or gradient.numel() == len(gradient):
            continue
        if gradient.layout != torch.strided:
            raise ArgumentError("a sparse gradient has no mean to subtract")
        local = gradient
        if isinstance(gradient, DTensor):
            if any(not place.is_replicate() and place != Shard(0) for place in gradient.placements):
                raise ArgumentError(
                    f"a gradient is split among ranks as {gradient.placements}: only its first "
                    "dimension may be"
                )
            local = gradient.to_local()
        if local.numel():
            local.sub_(local.mean(dim=tuple(range(1, local.dim())), keepdim=True))


class CentralizeGradient(Technique):
    """Subtract from each weight's gradient its mean, for each output unit.

    The sum of the weights of a unit stays what it was (as long as the optimizer's step is
    proportional to the gradient), which constrains the search and smooths the loss.

    Source: H. Yong, J. Huang, X. Hua, L. Zhang: Gradient Centralization: A New Optimization
    Technique for Deep Neural Networks, 2020, arXiv:2004.01461. Where a unit has a single weight (a
    gain, a layer with one input) the formula would leave nothing of its gradient; here that is
    left alone.

    It is done once for each step on the whole gradient, after every penalty and before the
    Trainer's, the module's or another technique's clipping, in whatever order the callbacks
    stand. The mean is over all dimensions but the first, which is that of the outputs in linear
    and convolutional layers (in transposed convolutions the inputs). Where the authors' code takes
    every tensor, here ``parameters`` chooses: an embedding's rows, which aren't output units, can
    be left out.

    When:
        Convolutional networks trained by SGD: it costs one pass over the gradients, and there is
        nothing to tune.

    When not:
        With Adam and the like the sums aren't kept, since their steps aren't proportional to the
        gradient; for embeddings, which ``parameters`` should leave out.

    Args:
        parameters: ``"weights"`` or ``"all"`` (both: every tensor of two or more dimensions), or
            a list of name patterns, of which those of fewer than two dimensions are left alone.
        conv_only: leave out tensors of two dimensions: linear layers and embeddings.

    Raises:
        TechniqueError: before the first step, under manual optimization, for strategies other
            than one device, DDP and FSDP2 (split along the first dimension), for sparse gradients,
            and if a pattern matches nothing.

    Example:
        >>> CentralizeGradient(conv_only=True)
        CentralizeGradient(conv_only=True)
    """

    def __init__(self, parameters: Selection = "weights", conv_only: bool = False) -> None:
        self.parameters = check_selection(self, "parameters", parameters)
        self.conv_only = check_flag(self, "conv_only", conv_only)

    def prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go in front of the clipping."""
        if not pl_module.automatic_optimization:
            raise self.refuse(
                "under manual optimization nothing is called between the penalties and the step: "
                "call centralize_gradient_ before the optimizer's step"
            )
        if strategy_kind(trainer) == "other":
            raise self.refuse(
                f"{type(trainer.strategy).__name__} isn't supported: use one device, DDP or FSDP2"
            )

        by_name = not isinstance(self.parameters, str)
        named = Chosen(lambda: {id(p) for _, p in select_parameters(pl_module, self.parameters)})

        def clipping(original: Callable[..., Any]) -> Callable[..., Any]:
            def centralized(optimizer: Any, *args: Any, **kwargs: Any) -> None:
                if unscale_gradients(trainer, optimizer):
                    parameters = with_gradients(optimizer)
                    self._centralize(named.among(parameters) if by_name else parameters)
                original(optimizer, *args, **kwargs)

            return centralized

        self.patch(pl_module, "configure_gradient_clipping", clipping)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose the parameters."""
        try:
            selected = select_parameters(pl_module, self.parameters)
        except ArgumentError as error:
            raise self.refuse(str(error)) from error
        if not any(self._can_be_centralized(p) for _, p in selected):
            self.warn_no_effect(
                f"no parameter that trains and is chosen has {self._dimensions} or more dimensions"
            )

    @property
    def _dimensions(self) -> int:
        return 3 if self.conv_only else 2

    def _can_be_centralized(self, parameter: Tensor) -> bool:
        return parameter.dim() >= self._dimensions

    def _centralize(self, parameters: list[Tensor]) -> None:
        chosen = (p.grad for p in parameters if self._can_be_centralized(p))
        try:
            centralize_gradient_(gradient for gradient in chosen if gradient is not None)
        except ArgumentError as error:
            raise self.refuse(str(error)) from error
