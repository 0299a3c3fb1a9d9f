"""Squeeze-and-excitation behind convolutions."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torchvision.ops import SqueezeExcitation  # type: ignore[import-untyped]

from lightning_dlopt.core.checks import check_integer
from lightning_dlopt.core.errors import CheckpointError
from lightning_dlopt.core.parameters import check_patterns
from lightning_dlopt.structure.low_rank import LowRankPair
from lightning_dlopt.structure.new_parts import drawing_from
from lightning_dlopt.structure.replacing import matching_parts, part_names, replace_part
from lightning_dlopt.structure.surgery import Surgery


class ExcitedConv(nn.Sequential):
    """A convolution, and behind it the squeeze-and-excitation of its output."""


def _out_channels(part: nn.Module | None) -> int | None:
    """Return how many channels come out of a convolution in one or two layers; None of others."""
    last = part[1] if isinstance(part, LowRankPair) else part
    return last.out_channels if isinstance(last, nn.Conv2d) else None


def squeeze_excite(
    module: nn.Module,
    target: str | Sequence[str] = "all",
    *,
    reduction: int = 16,
    min_channels: int = 64,
    generator: torch.Generator | None = None,
) -> list[str]:
    """Put a squeeze-and-excitation behind convolutions, in place, and return their names.

    Each becomes a ``Sequential`` of itself and torchvision's ``SqueezeExcitation``: the channels'
    means over all places go through two 1 x 1 convolutions, with ReLU between them and a sigmoid
    at the end, and give the factors by which the channels are multiplied. Convolutions that have
    one already stay as they are, and so do those inside of a network's own. The two layers that
    :class:`LowRank` has put in place of a convolution count as one. See
    :class:`SqueezeExcite`.

    Args:
        module: the module that is changed. A convolution by itself has no place to put it.
        target: ``"all"``, or name patterns of convolutions.
        reduction: how many times fewer channels there are between the two, at least 1.
        min_channels: convolutions of fewer output channels stay as they are; at least 1.
        generator: for the new weights, which torch initializes; the global one by default.

    Raises:
        ArgumentError: if an argument is outside its range, or a pattern matches nothing.

    Example:
        >>> squeeze_excite(nn.Sequential(nn.Conv2d(3, 64, 3), nn.Conv2d(64, 8, 3)))
        ['0']
    """
    check_patterns("squeeze_excite", "target", target, "all")
    check_integer("squeeze_excite", "reduction", reduction, "[1, inf)")
    check_integer("squeeze_excite", "min_channels", min_channels, "[1, inf)")
    left_out = {
        id(part)
        for outer in module.modules()
        if isinstance(outer, ExcitedConv | SqueezeExcitation | LowRankPair)
        for part in outer.modules()
        if part is not outer or not isinstance(part, LowRankPair)
    }

    def fits(part: nn.Module) -> bool:
        channels = _out_channels(part)
        return (
            channels is not None
            and channels >= min_channels
            and part is not module
            and id(part) not in left_out
        )

    found = matching_parts(module, target, fits)
    for _, layer in found:
        _excite(module, layer, reduction, generator)
    return [name for name, _ in found]


def _excite(
    module: nn.Module, layer: nn.Module, reduction: int, generator: torch.Generator | None
) -> None:
    channels = _out_channels(layer)
    assert channels is not None
    with drawing_from(generator):
        excitation = SqueezeExcitation(channels, max(channels // reduction, 1))
    like = next(layer.parameters())
    excitation.to(like.device, like.dtype).train(layer.training)
    replace_part(module, layer, ExcitedConv(layer, excitation))


class SqueezeExcite(Surgery):
    """Lets each channel of a convolution's output be weighted by what all channels hold.

    What changes in training: before it starts, a squeeze-and-excitation is put behind every
    selected convolution. The model has more parameters (``2 c² / reduction`` for ``c`` channels),
    which start at torch's own initialization, and hardly more multiply-adds. Names in the
    ``state_dict`` change: ``conv.weight`` becomes ``conv.0.weight``.

    From J. Hu, L. Shen, S. Albanie, G. Sun, E. Wu, Squeeze-and-Excitation Networks (2017,
    arXiv:1709.01507), who put one at the end of each residual block; here one stands behind each
    convolution, and ``target`` says behind which.

    When:
        Convolutional networks of many channels, for a few more parameters.

    When not:
        Latency at small batches, for it adds many small operations; a pretrained network that isn't
        trained further, whose outputs it changes.

    Args:
        target: ``"all"``, or name patterns of convolutions.
        reduction: how many times fewer channels there are inside, at least 1.
        min_channels: convolutions of fewer output channels stay as they are; at least 1.

    Raises:
        ArgumentError, ArgumentTypeError: if an argument has a bad value.
        TechniqueError: if a pattern matches nothing, or the optimizer was made before ``setup``.

    A checkpoint keeps the arguments and the plan: which convolutions have one.
    :func:`load_from_checkpoint` rebuilds the model.

    Example:
        >>> SqueezeExcite(min_channels=16)
        SqueezeExcite(min_channels=16)
    """

    makes = (ExcitedConv,)

    def __init__(
        self, target: str | Sequence[str] = "all", reduction: int = 16, min_channels: int = 64
    ) -> None:
        self.target = check_patterns(self, "target", target, "all")
        self.reduction = check_integer(self, "reduction", reduction, "[1, inf)")
        self.min_channels = check_integer(self, "min_channels", min_channels, "[1, inf)")

    def operate(self, module: nn.Module, generator: torch.Generator) -> dict[str, Any]:
        """Put them in, and return where."""
        layers = squeeze_excite(
            module,
            self.target,
            reduction=self.reduction,
            min_channels=self.min_channels,
            generator=generator,
        )
        if not layers:
            self.warn_no_effect(
                f"there is no convolution of {self.min_channels} or more channels among its target"
            )
            return {}
        return {"layers": layers, "reduction": self.reduction}

    @classmethod
    def redo(cls, module: nn.Module, plan: dict[str, Any]) -> None:
        """Put them in where the plan says."""
        parts = part_names(module)
        for name in plan["layers"]:
            layer = parts.get(name)
            if layer is not None and _out_channels(layer) is not None:
                _excite(module, layer, plan["reduction"], None)
            elif not isinstance(layer, ExcitedConv):
                raise CheckpointError(
                    f"SqueezeExcite: the checkpoint has a convolution {name!r}, and the module's "
                    f"is {type(layer).__name__ if layer is not None else 'missing'}"
                )
