"""Whether the optimizers still train the module after other parts have changed it."""

import weakref
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningModule
from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from lightning_dlopt.core.errors import TechniqueError
from lightning_dlopt.core.parameters import plain_name


def in_optimizers(optimizers: Sequence[Optimizer]) -> dict[int, nn.Parameter]:
    """Return the parameters of all optimizers, by id."""
    groups = (group for optimizer in optimizers for group in optimizer.param_groups)
    return {id(parameter): parameter for group in groups for parameter in group["params"]}


class Coverage:
    """Remembers a module's parameters, to find those that optimizers lost sight of since.

    An optimizer that is made before the model is changed (the stock ``--optimizer`` of a command
    line, or one that the module made in its constructor) goes on with the parameters of removed
    layers, and never trains the new ones; nothing raises.

    Two findings are certain enough to refuse. An optimizer holds a parameter that was in the
    module and isn't any more. Or the optimizers hold every trainable parameter that the module
    had and not one of those it got since: what was to train everything doesn't. Parameters that
    a module leaves out of its optimizers by itself, or trains without owning them, are no
    finding. An optimizer over FSDP2's shards isn't looked at: it can only have been made after
    the model was changed and sharded.

    Args:
        module: the module as it is now. No parameter of it is kept alive.

    Example:
        >>> import torch
        >>> layers = nn.Sequential(nn.Linear(2, 2))
        >>> coverage, optimizer = Coverage(layers), torch.optim.SGD(layers.parameters())
        >>> layers[0] = nn.Linear(2, 3)
        >>> coverage.lost(layers, [optimizer])
        (['0.weight', '0.bias'], ['0.weight', '0.bias'])
    """

    def __init__(self, module: nn.Module) -> None:
        self._before = {
            id(parameter): (plain_name(name), parameter.requires_grad, weakref.ref(parameter))
            for name, parameter in module.named_parameters()
        }

    def __getstate__(self) -> dict[str, Any]:
        return {"_before": {}}  # a copy in another process has other parameters

    def lost(
        self, module: nn.Module, optimizers: Sequence[Optimizer]
    ) -> tuple[list[str], list[str]]:
        """Return the names of removed parameters still in an optimizer, and of untrained new ones.

        Names of the first are those that the parameters had.
        """
        held = in_optimizers(optimizers)
        if any(isinstance(parameter, DTensor) for parameter in held.values()):
            return [], []  # FSDP2 puts whole parameters in the place of shards, from time to time
        now = {id(p): (plain_name(name), p) for name, p in module.named_parameters()}
        # an id can be used again once its parameter is gone
        before = {
            key: (name, trainable)
            for key, (name, trainable, reference) in self._before.items()
            if (reference() is held[key] if key in held else reference() is not None)
        }
        removed = [name for key, (name, _) in before.items() if key in held and key not in now]
        trained_all = len(before) == len(self._before) and all(
            key in held for key, (_, trainable) in before.items() if trainable
        )
        new = {key: entry for key, entry in now.items() if key not in before}
        # an optimizer that has some of the new ones was made when they were there
        if not before or not trained_all or any(key in held for key in new):
            return removed, []
        return removed, [name for name, parameter in new.values() if parameter.requires_grad]

    def check(
        self, owner: object, module: LightningModule, optimizers: Sequence[Optimizer]
    ) -> None:
        """Raise a TechniqueError, in the name of ``owner``, if parameters were lost sight of."""
        removed, untrained = self.lost(module, optimizers)
        findings = []
        if removed:
            findings.append(f"it still trains {listed(removed)}, which the module has no longer")
        if untrained:
            findings.append(f"it doesn't train {listed(untrained)}, which came in since")
        if findings:
            raise TechniqueError(
                f"{owner}: the optimizer of {type(module).__name__} was made before the model was "
                f"changed: {', and '.join(findings)}. Make it in configure_optimizers, which runs "
                "after the setup of all callbacks, instead of beforehand or by --optimizer; change "
                "the model in setup; and freeze (requires_grad_(False)) what isn't to be trained"
            )


def listed(names: Sequence[str], most: int = 4) -> str:
    """Return names for a message, the first few of many.

    Example:
        >>> listed(["a", "b", "c"], most=2)
        'a, b and 1 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
