"""Parameters that were cut in mid-training, and what must be cut with them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_dlopt.core.errors import TechniqueError
from lightning_dlopt.core.parameters import plain_name

#: Which indices of which dimensions stay, one cut after the other.
Cuts: TypeAlias = Sequence[tuple[int, Sequence[int] | Tensor]]


def cut(tensor: Tensor, cuts: Cuts) -> Tensor:
    """Return what is kept of a tensor; a dimension of size 1 stays as it is.

    Example:
        >>> cut(torch.arange(6).reshape(2, 3), [(0, [1]), (1, [0, 2])])
        tensor([[3, 5]])
    """
    for dim, indices in cuts:
        if tensor.shape[dim] != 1:
            tensor = tensor.index_select(dim, torch.as_tensor(indices, device=tensor.device))
    return tensor


class Replaced:
    """Which parameters of a module were replaced by cut ones, and how.

    Args:
        module: the module as it is before its parameters are replaced.
        kept: the cuts of parameters and buffers, by any of their names.

    Example:
        >>> layer = nn.Linear(3, 2)
        >>> replaced = Replaced(layer, {"weight": [(0, [1])], "bias": [(0, [1])]})
        >>> old, layer.weight = layer.weight, nn.Parameter(layer.weight[1:].detach())
        >>> replaced.add([(old, layer.weight)])
        >>> replaced.now(old) is layer.weight, replaced.cut(old, torch.zeros(2, 3)).shape
        (True, torch.Size([1, 3]))
    """

    def __init__(self, module: nn.Module, kept: Mapping[str, Cuts]) -> None:
        plain = {plain_name(name): cuts for name, cuts in kept.items()}
        tensors = [
            *module.named_parameters(remove_duplicate=False),
            *module.named_buffers(remove_duplicate=False),
        ]
        self._cuts = {id(t): plain[plain_name(n)] for n, t in tensors if plain_name(n) in plain}
        self._named = {plain_name(n): self._cuts[id(t)] for n, t in tensors if id(t) in self._cuts}
        self._pairs: dict[int, tuple[nn.Parameter, nn.Parameter]] = {}

    def add(self, pairs: Iterable[tuple[nn.Parameter, nn.Parameter]]) -> None:
        """Note the pairs of parameters, each the old one and the one that stands in its place."""
        self._pairs |= {id(old): (old, new) for old, new in pairs}

    def now(self, parameter: Any) -> Any:
        """Return what stands in the parameter's place, or the parameter itself."""
        return self._pairs[id(parameter)][1] if id(parameter) in self._pairs else parameter

    def cut(self, parameter: Tensor, tensor: Tensor) -> Tensor:
        """Return what is left of a tensor that belongs to an old parameter and has its shape."""
        if id(parameter) not in self._cuts or tensor.dim() == 0:
            return tensor
        rest, new = cut(tensor, self._cuts[id(parameter)]), self.now(parameter)
        if rest.shape != new.shape:
            return rest
        # fused optimizers want their state in the order in memory that the parameter has
        return torch.empty_like(new, dtype=rest.dtype, requires_grad=False).copy_(rest)

    def cut_named(self, name: str, tensor: Tensor) -> Tensor:
        """Return what is left of a tensor of the shape that the tensor of that name had."""
        return cut(tensor, self._named.get(plain_name(name), ()))

    def check_state(self, optimizers: Sequence[Optimizer]) -> None:
        """Raise a TechniqueError if an optimizer's state can't be cut; before anything is."""
        for optimizer in optimizers:
            for parameter, state in optimizer.state.items():
                for name, value in state.items():
                    if id(parameter) in self._cuts and not self._can_cut(parameter, value):
                        raise TechniqueError(
                            f"the state {name!r} of {type(optimizer).__name__} isn't of its "
                            "parameters' shape, so that no channels can be taken out of it"
                        )

    def _can_cut(self, parameter: Tensor, value: object) -> bool:
        if not isinstance(value, Tensor):
            return value is None or isinstance(value, bool | int | float | str)
        if value.numel() == 1:
            return True
        return value.dim() == parameter.dim() and all(
            value.shape[dim] in (1, parameter.shape[dim]) for dim, _ in self._cuts[id(parameter)]
        )

    def replace_in(self, optimizer: Optimizer) -> None:
        """Give an optimizer the new parameters, each with what is left of the old one's state."""
        for group in optimizer.param_groups:
            for index, parameter in enumerate(group["params"]):
                group["params"][index] = self.now(parameter)
        states = list(optimizer.state.items())
        optimizer.state.clear()  # in place, and in order: wrappers and checkpoints have this dict
        for parameter, state in states:
            optimizer.state[self.now(parameter)] = {
                name: self.cut(parameter, value) if isinstance(value, Tensor) else value
                for name, value in state.items()
            }
