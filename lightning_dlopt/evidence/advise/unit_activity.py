"""Which units of a network say the same whatever they are shown."""

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle
from typing_extensions import Self

from lightning_dlopt.core.parameters import plain_name

_RECTIFIERS = {
    functional.relu,
    functional.relu_,
    functional.relu6,
    functional.threshold,
    torch.relu,
    torch.relu_,
    Tensor.relu,
    Tensor.relu_,
}
_OTHERS = {
    functional.celu,
    functional.elu,
    functional.gelu,
    functional.hardsigmoid,
    functional.hardswish,
    functional.hardtanh,
    functional.leaky_relu,
    functional.mish,
    functional.selu,
    functional.sigmoid,
    functional.silu,
    functional.softplus,
    functional.tanh,
    torch.sigmoid,
    torch.tanh,
    Tensor.sigmoid,
    Tensor.tanh,
}
_ALONG_LAST = {functional.linear, functional.layer_norm}
_ALONG_CHANNELS = {
    functional.conv1d,
    functional.conv2d,
    functional.conv3d,
    functional.conv_transpose1d,
    functional.conv_transpose2d,
    functional.conv_transpose3d,
    torch.conv1d,
    torch.conv2d,
    torch.conv3d,
}


class Activity(NamedTuple):
    """What the units of one activation gave out.

    Attributes:
        layer: the module that called the activation, and which of its calls it was if it has
            several.
        rectifier: whether it is a ReLU.
        samples: values seen of each unit: samples times positions.
        constant: ``(units,)``, true for a unit whose values were all the same.
        zero: ``(units,)``, true for a unit that gave nothing but zeros.
    """

    layer: str
    rectifier: bool
    samples: int
    constant: Tensor
    zero: Tensor

    @property
    def dead(self) -> float:
        """The share of the units that are constant, in [0, 1]."""
        return float(self.constant.double().mean())


class WatchUnits(TorchFunctionMode):
    """While it is entered, keep the range of each unit of every activation function.

    It sees the functions of ``torch.nn.functional``, and so their modules. A unit is a feature of
    what a linear layer gave out, or a channel of a convolution; its values are taken over all
    samples, and over all places of an image or a text. Within what ``torch.compile`` compiled
    nothing can be seen.

    Args:
        module: its parts' names are those of the layers.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        >>> _ = net[0].bias.data.copy_(torch.tensor([0.0, 0.0, -99.0]))
        >>> with WatchUnits(net) as watch:
        ...     _ = net(torch.randn(50, 2))
        >>> [(one.layer, one.zero.tolist()) for one in watch.activities()]
        [('1', [False, False, True])]
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._module = module
        self._handles: list[RemovableHandle] = []
        self._stack: list[str] = []
        self._calls: dict[str, int] = {}
        self._axis = 1
        self._ranges: dict[tuple[str, int], _Range] = {}

    def __enter__(self) -> Self:
        for name, part in self._module.named_modules():
            if isinstance(part, torch.jit.ScriptModule):
                continue
            self._handles += [
                part.register_forward_pre_hook(
                    partial(self._open, plain_name(name) or type(part).__name__)
                ),
                part.register_forward_hook(self._close, always_call=True),
            ]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._stack.clear()
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def start_batch(self) -> None:
        """Count the calls of each layer anew."""
        self._calls.clear()

    def activities(self) -> list[Activity]:
        """Return what was seen, in the order of the first calls."""
        several = {layer for layer, call in self._ranges if call > 0}
        return [
            found.activity(f"{layer} (call {call + 1})" if layer in several else layer)
            for (layer, call), found in self._ranges.items()
            if not found.uneven
        ]

    def _open(self, name: str, *_: Any) -> None:
        self._stack.append(name)

    def _close(self, *_: Any) -> None:
        if self._stack:
            self._stack.pop()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if torch.compiler.is_compiling():
            return result
        if func in _ALONG_LAST:
            self._axis = -1
        elif func in _ALONG_CHANNELS:
            self._axis = 1
        elif func in _RECTIFIERS or func in _OTHERS:
            self._see(result, func in _RECTIFIERS)
        return result

    def _see(self, values: Any, rectifier: bool) -> None:
        if not isinstance(values, Tensor) or values.dim() < 2 or not values.numel():
            return
        layer = self._stack[-1] if self._stack else ""
        call = self._calls[layer] = self._calls.get(layer, -1) + 1
        units = values.detach().movedim(self._axis, -1).flatten(0, -2)
        key = layer, call
        if key not in self._ranges:
            self._ranges[key] = _Range(rectifier, units)
        else:
            self._ranges[key].widen(units)


class _Range:
    """The least and the greatest value of each unit so far."""

    def __init__(self, rectifier: bool, values: Tensor) -> None:
        self.rectifier = rectifier
        self.samples = len(values)
        self.least, self.most = values.amin(0), values.amax(0)
        self.uneven = False

    def widen(self, values: Tensor) -> None:
        if self.uneven or values.shape[1:] != self.least.shape:
            self.uneven = True  # such as positions, of which each batch has another number
            return
        self.samples += len(values)
        self.least = torch.minimum(self.least, values.amin(0))
        self.most = torch.maximum(self.most, values.amax(0))

    def activity(self, layer: str) -> Activity:
        constant = self.least == self.most
        zero = constant & (self.most == 0)
        return Activity(layer, self.rectifier, self.samples, constant.cpu(), zero.cpu())
