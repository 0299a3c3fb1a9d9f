"""Convolutions whose kernels are standardized before they are used."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from lightning_dlopt.core.checks import check_number
from lightning_dlopt.core.parameters import check_patterns
from lightning_dlopt.structure import convolutions as c
from lightning_dlopt.structure.changing_class import (
    Classes,
    change_class,
    find_layers,
    planned_layers,
)
from lightning_dlopt.structure.surgery import Surgery

_CLASSES: Classes = {
    nn.Conv1d: c.StandardizedConv1d,
    nn.Conv2d: c.StandardizedConv2d,
    nn.Conv3d: c.StandardizedConv3d,
    nn.ConvTranspose1d: c.StandardizedConvTranspose1d,
    nn.ConvTranspose2d: c.StandardizedConvTranspose2d,
    nn.ConvTranspose3d: c.StandardizedConvTranspose3d,
    c.BlurredConv2d: c.StandardizedBlurredConv2d,
}


def standardize_weights(
    module: nn.Module, target: str | Sequence[str] = "all", *, eps: float = 1e-6
) -> list[str]:
    """Let convolutions standardize their kernels, in place, and return their names.

    The layers keep their parameters and names. See :class:`WeightStandardization`.

    Args:
        module: the module that is changed, or a convolution by itself.
        target: ``"all"``, or name patterns of convolutions.
        eps: is added to the variance; above 0.

    Raises:
        ArgumentError, ArgumentTypeError: if an argument has a bad value, or a pattern matches
            nothing.

    Warns:
        NoEffectWarning: if a convolution is left as it is, since its class isn't torch's own.

    Example:
        >>> standardize_weights(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Linear(8, 2)))
        ['0']
    """
    target = check_patterns("standardize_weights", "target", target, "all")
    eps = check_number("standardize_weights", "eps", eps, "(0, inf)")

    def fits(layer: _ConvNd) -> bool:
        # of a kernel of one number nothing would be left without its mean
        return layer.in_channels // layer.groups * math.prod(layer.kernel_size) != 1

    found = find_layers("standardize_weights", module, target, _CLASSES, _ConvNd, fits)
    change_class([layer for _, layer in found], _CLASSES, standardize_eps=eps)
    return [name for name, _ in found]


class WeightStandardization(Surgery):
    """Gives convolutions kernels of mean 0 and variance 1, whatever their weights are.

    What changes in training: each selected convolution (of one to three axes, transposed ones
    included) is computed with ``(w - mean) / sqrt(variance + eps)``, where mean and variance are
    those of all weights that make one output channel. Gradients go through this, so those of a
    channel's weights sum to 0, and the loss is smoother. It is meant for networks with group
    normalization and small batches. The same in validation. The weights that are stored and
    trained, and their names in the ``state_dict``, stay as they are.

    A standardized kernel makes outputs about ``sqrt(n)`` times as large as its inputs, for ``n``
    weights, and none of them can be learned away: each needs a normalization behind it. Name in
    ``target`` those that have one, where a network has others, such as the 1 x 1 convolutions of a
    squeeze-and-excitation or a last one that gives the result. A pretrained network computes
    something else with it, frozen layers too, and must be trained further. Weights that were pruned
    to 0 aren't 0 in the standardized kernel.

    From S. Qiao, H. Wang, C. Liu, W. Shen, A. Yuille, Weight Standardization (2019,
    arXiv:1903.10520). Their program divides by the deviation, of ``n - 1``, plus 1e-5; here the
    variance is of ``n``, and ``eps`` is added to it within the root, as in batch normalization.

    Convolutions with one weight for each output channel (1 x 1 and depthwise) stay as they are,
    since nothing would be left of it; so do those of others' classes, which is told.

    When:
        Networks with group normalization, for batches too small for batch norm.

    When not:
        Convolutions without a normalization behind them; large batches with batch norm, which leave
        it little to do.

    Args:
        target: ``"all"``, or name patterns of convolutions.
        eps: is added to the variance; above 0.

    Raises:
        ArgumentError, ArgumentTypeError: if an argument has a bad value.
        TechniqueError: if a pattern matches nothing.

    A checkpoint keeps the arguments and the plan: which convolutions are standardized, and ``eps``.
    :func:`load_from_checkpoint` rebuilds the model. The weights' names are as they were, and so
    that nothing loads them into layers which compute something else, there is one more name among
    them, by which a module as it was written refuses them.

    Example:
        >>> WeightStandardization(["layer*.conv?"])
        WeightStandardization(target=['layer*.conv?'])
    """

    hidden = True
    makes = tuple(_CLASSES.values())

    def __init__(self, target: str | Sequence[str] = "all", eps: float = 1e-6) -> None:
        self.target = check_patterns(self, "target", target, "all")
        self.eps = check_number(self, "eps", eps, "(0, inf)")

    def operate(self, module: nn.Module, generator: torch.Generator) -> dict[str, Any]:
        """Change the convolutions, and return which."""
        layers = standardize_weights(module, self.target, eps=self.eps)
        if not layers:
            self.warn_no_effect(
                "there is no convolution of torch, of more than one weight for each output "
                "channel, among its target"
            )
            return {}
        return {"layers": layers, "eps": self.eps}

    @classmethod
    def redo(cls, module: nn.Module, plan: dict[str, Any]) -> None:
        """Change those that the plan names."""
        layers = planned_layers(cls.__name__, module, plan["layers"], _CLASSES)
        change_class(layers, _CLASSES, standardize_eps=plan["eps"])
