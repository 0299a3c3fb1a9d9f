"""Blurring before samples are taken."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from lightning_dlopt.core.checks import check_integer
from lightning_dlopt.core.parameters import check_patterns
from lightning_dlopt.structure.changing_class import (
    Classes,
    change_class,
    find_layers,
    planned_layers,
)
from lightning_dlopt.structure.convolutions import (
    BlurredConv2d,
    BlurredMaxPool2d,
    StandardizedBlurredConv2d,
    StandardizedConv2d,
    pair,
)
from lightning_dlopt.structure.surgery import Surgery

_CLASSES: Classes = {
    nn.Conv2d: BlurredConv2d,
    nn.MaxPool2d: BlurredMaxPool2d,
    StandardizedConv2d: StandardizedBlurredConv2d,
}


def blur_pool(
    module: nn.Module, target: str | Sequence[str] = "all", *, min_channels: int = 16
) -> list[str]:
    """Let layers with a stride blur before they take samples, in place, and return their names.

    The layers keep their parameters and names. See :class:`BlurPool`.

    Args:
        module: the module that is changed, or such a layer by itself.
        target: ``"all"``, or name patterns of convolutions and max-poolings.
        min_channels: convolutions of fewer input channels stay as they are; at least 1.

    Raises:
        ArgumentError, ArgumentTypeError: if an argument has a bad value, or a pattern matches
            nothing.

    Warns:
        NoEffectWarning: if a layer is left as it is, since its class isn't torch's own.

    Example:
        >>> blur_pool(nn.Sequential(nn.Conv2d(3, 16, 3, stride=2), nn.MaxPool2d(2)))
        ['1']
    """
    target = check_patterns("blur_pool", "target", target, "all")
    check_integer("blur_pool", "min_channels", min_channels, "[1, inf)")

    def fits(layer: nn.Conv2d | nn.MaxPool2d) -> bool:
        if isinstance(layer, nn.MaxPool2d):
            # the places of maxima, which some networks go back to, have no blurred counterpart
            return max(pair(layer.stride)) > 1 and not layer.return_indices
        many = layer.in_channels >= min_channels or isinstance(layer, LazyModuleMixin)
        return max(layer.stride) > 1 and many

    kind = (nn.Conv2d, nn.MaxPool2d)
    found = find_layers("blur_pool", module, target, _CLASSES, kind, fits)
    change_class([layer for _, layer in found], _CLASSES)
    return [name for name, _ in found]


class BlurPool(Surgery):
    """Blurs before convolutions and max-poolings with a stride take their samples.

    What changes in training: along each axis with a stride, a ``Conv2d`` first blurs its input with
    [1, 2, 1] / 4, and a ``MaxPool2d`` takes its maximum around every pixel, blurs the maxima, and
    then takes every n-th. So the output depends less on where an object is by a pixel or two. The
    same in validation. There are no new parameters, sizes stay, and so do the names in the
    ``state_dict``: weights trained without it can be loaded, but should be trained further.

    From R. Zhang, Making Convolutional Networks Shift-Invariant Again (2019, arXiv:1904.11486).
    There a convolution is computed at every pixel, and blurred behind its ReLU, which takes
    ``stride²`` times the multiply-adds. Here, as by default in MosaicML's Composer, the blur is
    before the convolution. The two commute, so without a ReLU between, they would be equal except
    at the border. Beyond the border stand copies of the outermost pixels, there their reflection;
    the kernel is the same for every stride; and average poolings, which blur anyway, stay.

    A max-pooling with ``return_indices=True`` stays as it is, and so do layers of others' classes,
    which is told.

    When:
        Convolutional networks with strides or poolings whose output jumps when the image moves by a
        pixel.

    When not:
        Objects always at the same place; fine details that a blur takes away; time, for each blur
        is a pass more.

    Args:
        target: ``"all"``, or name patterns of convolutions and max-poolings.
        min_channels: convolutions of fewer input channels stay as they are, such as the first one
            of all, which sees the image itself; at least 1.

    Raises:
        ArgumentError, ArgumentTypeError: if an argument has a bad value.
        TechniqueError: if a pattern matches nothing.

    A checkpoint keeps the arguments and the plan: which layers blur.
    :func:`load_from_checkpoint` rebuilds the model. The weights' names are as they were, and so
    that nothing loads them into layers which compute something else, there is one more name among
    them, by which a module as it was written refuses them.

    Example:
        >>> BlurPool(min_channels=32)
        BlurPool(min_channels=32)
    """

    hidden = True
    makes = (BlurredConv2d, BlurredMaxPool2d)

    def __init__(self, target: str | Sequence[str] = "all", min_channels: int = 16) -> None:
        self.target = check_patterns(self, "target", target, "all")
        self.min_channels = check_integer(self, "min_channels", min_channels, "[1, inf)")

    def operate(self, module: nn.Module, generator: torch.Generator) -> dict[str, Any]:
        """Change the layers, and return which."""
        layers = blur_pool(module, self.target, min_channels=self.min_channels)
        if not layers:
            self.warn_no_effect(
                f"there is no MaxPool2d, nor a Conv2d of {self.min_channels} or more input "
                "channels, with a stride among its target"
            )
            return {}
        return {"layers": layers}

    @classmethod
    def redo(cls, module: nn.Module, plan: dict[str, Any]) -> None:
        """Change those that the plan names."""
        change_class(planned_layers(cls.__name__, module, plan["layers"], _CLASSES), _CLASSES)
