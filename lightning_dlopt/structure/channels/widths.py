"""Which widths a module's parts had and have, as plain data, and bringing a module to them.

A plan is ``{"parts": {part: {attribute: [before, now]}}, "tensors": {name: [shape before, shape
now]}}``. "Before" is the module as its class builds it, so that a plan is complete: any module of
that class can be brought to it, whatever was removed from it so far.
"""

from typing import Any

import torch
from torch import Tensor, nn

from lightning_dlopt.core.errors import CheckpointError
from lightning_dlopt.core.parameters import plain_name
from lightning_dlopt.structure.replacing import part_names

Plan = dict[str, Any]


def structure_of(module: nn.Module) -> Plan:
    """Return the numbers that a module's parts keep as attributes, and the shapes of its tensors.

    Example:
        >>> structure_of(nn.Linear(2, 3, bias=False))
        {'parts': {'': {'in_features': 2, 'out_features': 3}}, 'tensors': {'weight': [3, 2]}}
    """
    parts = {
        name: {key: _as_list(value) for key, value in vars(part).items() if _is_numbers(value)}
        for name, part in part_names(module).items()
    }
    tensors = {name: list(tensor.shape) for name, tensor in named_tensors(module).items()}
    return {"parts": parts, "tensors": tensors}


def plan_between(before: Plan, now: Plan) -> Plan:
    """Return the plan of a change, from what :func:`structure_of` said before and after it.

    Example:
        >>> plan_between(structure_of(nn.Linear(2, 3)), structure_of(nn.Linear(2, 1)))
        {'parts': {'': {'out_features': [3, 1]}}, 'tensors': {'weight': [[3, 2], [1, 2]], \
'bias': [[3], [1]]}}
    """
    parts = {}
    for name, attributes in before["parts"].items():
        after = now["parts"][name]
        changed = {key: [old, after[key]] for key, old in attributes.items() if old != after[key]}
        if changed:
            parts[name] = changed
    tensors = {
        name: [shape, now["tensors"][name]]
        for name, shape in before["tensors"].items()
        if shape != now["tensors"][name]
    }
    return {"parts": parts, "tensors": tensors} if parts or tensors else {}


def merge(first: Plan, second: Plan) -> Plan:
    """Return one plan for a change and a later one of the same module.

    Example:
        >>> first = {"parts": {"": {"out_features": [9, 6]}}, "tensors": {}}
        >>> merge(first, {"parts": {"": {"out_features": [6, 3]}}, "tensors": {}})
        {'parts': {'': {'out_features': [9, 3]}}, 'tensors': {}}
    """
    parts = {name: dict(attributes) for name, attributes in first.get("parts", {}).items()}
    for name, attributes in second.get("parts", {}).items():
        known = parts.setdefault(name, {})
        for key, (before, now) in attributes.items():
            known[key] = [known[key][0] if key in known else before, now]
    tensors = dict(first.get("tensors", {}))
    for name, (before, now) in second.get("tensors", {}).items():
        tensors[name] = [tensors[name][0] if name in tensors else before, now]
    return {"parts": parts, "tensors": tensors} if parts or tensors else {}


def reshape_to(module: nn.Module, plan: Plan) -> None:
    """Give a module the widths of a plan, in place; the values of changed tensors become zeros.

    Args:
        module: one as its class builds it, or one from which channels were removed before.
        plan: what says the widths.

    Raises:
        CheckpointError: if the plan doesn't fit the module, which then stays as it was.

    Example:
        >>> layer = nn.Linear(2, 3)
        >>> reshape_to(layer, {"parts": {"": {"out_features": [3, 1]}},
        ...                    "tensors": {"weight": [[3, 2], [1, 2]], "bias": [[3], [1]]}})
        >>> layer, layer.weight.shape
        (Linear(in_features=2, out_features=1, bias=True), torch.Size([1, 2]))
    """
    parts, tensors = part_names(module), named_tensors(module)
    _check_fit(parts, tensors, plan)
    new: dict[int, Tensor] = {}
    for name, (_, shape) in plan.get("tensors", {}).items():
        old = tensors[name]
        if list(old.shape) != list(shape):
            new[id(old)] = torch.zeros(shape, dtype=old.dtype, device=old.device)
    put_tensors(module, new)
    for name, attributes in plan.get("parts", {}).items():
        set_attributes(parts[name], {key: now for key, (_, now) in attributes.items()})


def put_tensors(module: nn.Module, new: dict[int, Tensor]) -> dict[nn.Parameter, nn.Parameter]:
    """Put new tensors in the place of old ones, wherever a module has them.

    Args:
        module: the module that is changed.
        new: the values, by the id of the parameter or buffer that they replace.

    Returns:
        Each parameter that was replaced, and the one that has its place.
    """
    replaced: dict[nn.Parameter, nn.Parameter] = {}
    for part in module.modules():
        touched = False
        for name, old in list(part._parameters.items()):
            if old is None or id(old) not in new:
                continue
            if old not in replaced:
                parameter = nn.Parameter(new[id(old)], requires_grad=old.requires_grad)
                vars(parameter).update(vars(old))  # marks, such as those for the weight decay
                replaced[old] = parameter
            part.register_parameter(name, replaced[old])
            touched = True
        for name, buffer in list(part._buffers.items()):
            if buffer is not None and id(buffer) in new:
                part._buffers[name] = new[id(buffer)]
        if touched and isinstance(part, nn.RNNBase):
            _refresh(part)
    return replaced


def set_attributes(part: nn.Module, values: dict[str, Any]) -> None:
    """Set numbers of a part, as a tuple where it has a tuple."""
    for key, value in values.items():
        setattr(part, key, tuple(value) if isinstance(vars(part)[key], tuple) else value)


def _refresh(part: nn.RNNBase) -> None:
    # recurrent layers also keep a list of their weights, in one piece of memory on a GPU
    part._flat_weights = [getattr(part, name, None) for name in part._flat_weights_names]
    part.flatten_parameters()


def _check_fit(parts: dict[str, nn.Module], tensors: dict[str, Tensor], plan: Plan) -> None:
    for name, attributes in plan.get("parts", {}).items():
        part = parts.get(name)
        if part is None:
            raise CheckpointError(
                f"the checkpoint's model has a part {name!r} with fewer channels, and the module "
                "has no such part"
            )
        for key, (before, now) in attributes.items():
            if type(_as_list(vars(part).get(key))) is not type(before):
                raise CheckpointError(
                    f"the checkpoint's {name!r} has {key}={now} (once {before}), and the module's "
                    f"{type(part).__name__} has no such {key}"
                )
    for name, (before, now) in plan.get("tensors", {}).items():
        if name not in tensors:
            raise CheckpointError(
                f"the checkpoint's model has {name!r} of shape {now}, and the module hasn't"
            )
        shape = list(tensors[name].shape)
        if not _could_be(shape, before, now):
            raise CheckpointError(
                f"{name!r} has shape {shape} in the module; in the checkpoint's model it was "
                f"{before} before channels were removed, and is {now}: build the module with the "
                "arguments that it was trained with"
            )


def _could_be(shape: list[int], before: list[int], now: list[int]) -> bool:
    """Return whether a tensor that was ``before`` could have ``shape`` after some removals."""
    return len(shape) == len(before) and all(
        size <= old and (size == old or old != new)
        for size, old, new in zip(shape, before, now, strict=True)
    )


def joined(*names: str) -> str:
    """Return the name of what is within a part, whose own name may be ``""``.

    Example:
        >>> joined("encoder", "weight"), joined("", "weight")
        ('encoder.weight', 'weight')
    """
    return ".".join(name for name in names if name)


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return every parameter and buffer by each of its names, without what compilers add."""
    named: dict[str, Tensor] = {
        plain_name(name): p for name, p in module.named_parameters(remove_duplicate=False)
    }
    for name, buffer in module.named_buffers(remove_duplicate=False):
        named[plain_name(name)] = buffer
    return named


def _is_numbers(value: object) -> bool:
    if isinstance(value, tuple):
        return bool(value) and all(_is_numbers(item) and type(item) is int for item in value)
    return type(value) is int


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
