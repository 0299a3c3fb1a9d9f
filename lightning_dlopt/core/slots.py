"""Where a module's tensors are, so that they can be found again when they have been replaced."""

from typing import Any

from torch import Tensor, nn

#: A module's own dict of parameters or buffers, and a name in it.
Slot = tuple[dict[str, Any], str]


def tensor_slots(module: nn.Module) -> dict[str, Slot]:
    """Return where the module's parameters and buffers are, by name; a shared one comes once.

    Example:
        >>> slots = tensor_slots(nn.Sequential(nn.BatchNorm1d(2)))
        >>> list(slots)
        ['0.weight', '0.bias', '0.running_mean', '0.running_var', '0.num_batches_tracked']
        >>> space, key = slots["0.bias"]
        >>> space[key].tolist()
        [0.0, 0.0]
    """
    slots: dict[str, Slot] = {}
    seen: set[int] = set()
    for prefix, part in module.named_modules():
        space = vars(part)
        parameters, buffers = space.get("_parameters"), space.get("_buffers")
        if parameters is None or buffers is None:  # a scripted module
            parameters = dict(part.named_parameters(recurse=False))
            buffers = dict(part.named_buffers(recurse=False))
        for tensors in (parameters, buffers):
            for name, tensor in tensors.items():
                if tensor is not None and id(tensor) not in seen:
                    seen.add(id(tensor))
                    slots[f"{prefix}.{name}".lstrip(".")] = tensors, name
    return slots


def tensor_copies(module: nn.Module) -> dict[str, Tensor]:
    """Return copies of the module's parameters and buffers, by name; a shared one comes once."""
    return {
        name: space[key].detach().clone() for name, (space, key) in tensor_slots(module).items()
    }
