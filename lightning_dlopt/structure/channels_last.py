"""Weights and activations of convolutions with the channels last in memory."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_dlopt.core.errors import ArgumentError
from lightning_dlopt.core.named_modules import select_modules
from lightning_dlopt.core.parameters import check_patterns, plain_name
from lightning_dlopt.core.strategies import strategy_kind
from lightning_dlopt.structure.after_surgery import AfterSurgery

Strides: TypeAlias = tuple[int, ...]

_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


def to_channels_last(module: nn.Module, target: str | Sequence[str] = "all") -> list[str]:
    """Lay out parameters of four and five dimensions with the channels last, in place.

    Values, shapes and names stay. See :class:`ChannelsLast` for what it is good for.

    Args:
        module: any module; its parameters stay the same objects.
        target: ``"all"``, or name patterns of parts.

    Returns:
        The names of the parameters that had another layout.

    Raises:
        ArgumentError: if ``target`` is none of these, or a pattern matches nothing.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> to_channels_last(network)
        ['0.weight']
        >>> network(torch.zeros(2, 3, 9, 9)).is_contiguous(memory_format=torch.channels_last)
        True
    """
    check_patterns("to_channels_last", "target", target, "all")
    found = _other_layouts(module, target)
    for _, parameter in found:
        _lay_out(parameter, channels_last_strides(parameter))
    return [name for name, _ in found]


def channels_last_strides(tensor: Tensor) -> Strides:
    """Return the strides of a tensor of that shape whose channels are last in memory.

    Example:
        >>> channels_last_strides(torch.zeros(8, 3, 5, 5)), channels_last_strides(torch.zeros(2))
        ((75, 1, 15, 3), (1,))
    """
    memory_format = _FORMATS.get(tensor.dim(), torch.contiguous_format)
    return torch.empty(tensor.shape, device="meta", memory_format=memory_format).stride()


def _other_layouts(
    module: nn.Module, target: str | Sequence[str]
) -> list[tuple[str, nn.Parameter]]:
    """Return the parameters among the target whose layout isn't channels-last yet."""
    parts = [module] if isinstance(target, str) else [p for _, p in select_modules(module, target)]
    chosen = {id(parameter) for part in parts for parameter in part.parameters()}
    return [
        (plain_name(name), parameter)
        for name, parameter in module.named_parameters()
        # not is_contiguous(): a kernel of 1 x 1 is so in both formats, and torch goes by strides
        if id(parameter) in chosen and parameter.stride() != channels_last_strides(parameter)
    ]


def _laid_out(tensor: Tensor, strides: Strides) -> Tensor:
    empty = torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype, device=tensor.device)
    return empty.copy_(tensor.detach())


def _lay_out(parameter: Tensor, strides: Strides) -> None:
    parameter.data = _laid_out(parameter, strides)
    if parameter.grad is not None:
        parameter.grad = _laid_out(parameter.grad, strides)


def _follow_layout(optimizers: Iterable[Optimizer]) -> None:
    """Lay out the optimizers' state as the parameters are.

    Torch's fused optimizers on the CPU go through the memory of both side by side: with another
    layout they would silently use the wrong elements.
    """
    for optimizer in optimizers:
        for parameter, state in optimizer.state.items():
            for key, value in state.items():
                if (
                    isinstance(value, Tensor)
                    and value.shape == parameter.shape
                    and value.stride() != parameter.stride()
                ):
                    state[key] = _laid_out(value, parameter.stride())


def _usual_layout(state: Any) -> Any:
    """Return the same state with contiguous tensors."""
    if isinstance(state, dict):
        return {key: _usual_layout(value) for key, value in state.items()}
    if isinstance(state, list):
        return [_usual_layout(value) for value in state]
    return state.contiguous() if isinstance(state, Tensor) else state


class ChannelsLast(AfterSurgery):
    """Lets convolutions work on images whose channels are last in memory.

    What changes in training: nothing but the order of the sums' terms. Weights of four dimensions
    get torch's ``channels_last`` layout, and those of five ``channels_last_3d``, in training,
    validation, testing and prediction. A convolution with such a weight gives its output the same
    layout, and the layers behind it keep it, so the batch needs no change. It is for
    convolutional networks: kernels for mixed precision on GPUs, and oneDNN's on the CPU, are made
    for this layout and needn't reorder memory. How much that is depends on the network and the
    device, and where a layer has no such kernel it gets slower: measure it.

    Source: V. Fedyunin, Channels Last Memory Format in PyTorch (2020, a tutorial of PyTorch). Here
    it is a part of training: it comes after all techniques that change the model, in whatever
    order they are listed, and an optimizer's restored state gets the weights' layout, too. After
    training, and after an exception, everything has the layout that it had before.

    When:
        Convolutional networks in 16 bits on a GPU, or on a CPU whose kernels want this layout.

    When not:
        Networks with few convolutions or few channels; wherever it hasn't been measured.

    Args:
        target: ``"all"``, or name patterns of parts.

    Raises:
        ArgumentError, ArgumentTypeError: if ``target`` is none of these.
        TechniqueError: if a pattern matches nothing, or if the strategy cuts parameters in pieces,
            which have no layout.

    Warns:
        NoEffectWarning: if no parameter had another layout.

    A checkpoint keeps the arguments only, and an optimizer's state in the usual layout, so it can
    be resumed with or without this technique.

    Example:
        >>> ChannelsLast(target=["backbone"])
        ChannelsLast(target=['backbone'])
    """

    _before: Sequence[tuple[nn.Parameter, Strides]] = ()

    def __init__(self, target: str | Sequence[str] = "all") -> None:
        self.target = check_patterns(self, "target", target, "all")

    def finish(self, trainer: Trainer, module: LightningModule) -> None:
        """Change the layout, and keep in mind what it was."""
        kind = strategy_kind(trainer)
        if kind not in ("single", "replicated"):
            raise self.refuse(
                f"{type(trainer.strategy).__name__} keeps pieces of parameters, which have no "
                "layout: train with one device or with DDP"
            )
        try:
            found = _other_layouts(module, self.target)
        except ArgumentError as error:
            raise self.refuse(str(error)) from error
        self._before = [*self._before, *((p, p.stride()) for _, p in found)]
        for _, parameter in found:
            _lay_out(parameter, channels_last_strides(parameter))

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell if there was nothing to do."""
        if not self._before:
            self.warn_no_effect(
                "among its target is no weight of four or five dimensions whose channels aren't "
                "last already"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give restored optimizers the weights' layout."""
        _follow_layout(trainer.optimizers)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Write the optimizers' state in the usual layout."""
        checkpoint["optimizer_states"] = _usual_layout(checkpoint["optimizer_states"])

    def let_go(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give everything the layout that it had."""
        for parameter, strides in self._before:
            _lay_out(parameter, strides)
        self._before = ()
        _follow_layout(trainer.optimizers)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_before"}
