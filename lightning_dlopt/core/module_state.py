"""What a forward pass may change besides the weights, to be put back after an extra pass."""

from collections import deque
from collections.abc import Iterable
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

#: What torch and Lightning keep in every module; not the user's state.
_FRAMEWORK = frozenset(vars(LightningModule()))


class ModuleState:
    """A module's state at one moment: buffers, metric states, counters and other attributes.

    Frozen parameters are state, too: a momentum teacher's move in the training step.

    Kept are the attributes of every submodule, with the contents of tensors that have no gradient
    and of lists, dicts, sets and deques; what lies deeper is not looked into.

    Args:
        module: the module whose state is kept. Its trained parameters aren't.

    Example:
        >>> norm = nn.BatchNorm1d(2)
        >>> state = ModuleState(norm)
        >>> _ = norm(torch.randn(4, 2))
        >>> state.restore_attributes(), state.restore_contents()
        (None, None)
        >>> norm.running_mean, int(norm.num_batches_tracked)
        (tensor([0., 0.]), 0)
    """

    def __init__(self, module: nn.Module) -> None:
        self._spaces: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._tensors: dict[int, tuple[Tensor, Tensor]] = {}
        self._containers: dict[int, tuple[Any, Any]] = {}
        for part in module.modules():
            space = vars(part)
            names = space.keys() - _FRAMEWORK
            if names:
                self._keep(space, {name: space[name] for name in names})
            buffers = space.get("_buffers")
            if buffers is None:  # a scripted module
                buffers = dict(part.named_buffers(recurse=False))
            if buffers:
                self._keep(buffers, dict(buffers))
            parameters = space.get("_parameters")
            if parameters is None:
                parameters = dict(part.named_parameters(recurse=False))
            self._keep_contents(parameters.values())  # what is bound to a name isn't kept

    def restore_attributes(self) -> None:
        """Bind every attribute to what it was bound to, and fill lists and dicts as they were."""
        for space, kept in self._spaces:
            for name in space.keys() - kept.keys() - _FRAMEWORK:
                del space[name]
            space.update(kept)
        for container, copy in self._containers.values():
            container.clear()
            (container.extend if isinstance(container, list | deque) else container.update)(copy)

    def restore_contents(self) -> None:
        """Fill every tensor as it was; not while a backward pass still needs what is in it."""
        with torch.no_grad():
            for tensor, copy in self._tensors.values():
                tensor.copy_(copy)

    def _keep(self, space: dict[str, Any], kept: dict[str, Any]) -> None:
        self._spaces.append((space, kept))
        self._keep_contents(kept.values())

    def _keep_contents(self, values: Iterable[Any]) -> None:
        for value in values:
            if isinstance(value, Tensor):
                if id(value) not in self._tensors and _is_state(value):
                    self._tensors[id(value)] = value, value.detach().clone()
            elif isinstance(value, list | dict | set | deque):
                self._containers[id(value)] = value, value.copy()


def _is_state(tensor: Tensor) -> bool:
    # results have a gradient, and what was made in inference mode can't be changed in training
    return not (is_lazy(tensor) or tensor.requires_grad or tensor.is_inference())
