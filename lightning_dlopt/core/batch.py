"""Where a batch's input and target are, in batches of any form."""

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from torch import Tensor

from lightning_dlopt.core.checks import owner_name
from lightning_dlopt.core.errors import ArgumentTypeError, TechniqueError

#: A position in a tuple or list, or a key or field's name.
Key: TypeAlias = int | str
Role: TypeAlias = Literal["input", "target", "mask"]

#: What people call them, by role; in tuples and lists they come in this order.
USUAL_NAMES: dict[Role, tuple[str, ...]] = {
    "input": ("x", "input", "inputs", "image", "images", "pixel_values"),
    "target": ("y", "target", "targets", "label", "labels"),
    "mask": ("mask", "masks"),
}
_POSITIONS: dict[Role, int] = {"input": 0, "target": 1, "mask": 2}


def check_key(owner: object, name: str, value: Any) -> Key | None:
    """Return ``value`` if it is a position, a key or None, or raise an ArgumentTypeError."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | str)):
        raise ArgumentTypeError(
            f"{owner_name(owner)}: {name}={value!r} must be an int (a position), a str (a key or "
            "a field's name) or None"
        )
    return value


def _field_names(batch: Any) -> list[Any] | None:
    """Return the names in a dict, named tuple or dataclass; None for what has no names."""
    if isinstance(batch, Mapping):
        return list(batch)
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return list(batch._fields)
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        return [field.name for field in dataclasses.fields(batch)]
    return None


def fields_of(batch: Any) -> dict[Key, Any]:
    """Return what a batch holds by name, or by position where there are no names.

    Example:
        >>> fields_of({"x": 1, "y": 2}), fields_of((3, 4))
        ({'x': 1, 'y': 2}, {0: 3, 1: 4})
    """
    names = _field_names(batch)
    if names is not None:
        return {name: get_field(batch, name) for name in names}
    return dict(enumerate(batch)) if isinstance(batch, tuple | list) else {}


def find_key(
    batch: Any,
    role: Role,
    key: Key | None = None,
    owner: object = "find_key",
    first: Sequence[str] = (),
) -> Key:
    """Return where the input, the target or the mask of ``batch`` is.

    Args:
        batch: a tuple or list (positions 0, 1 and 2), or a dict, named tuple or dataclass (the
            usual names, :data:`USUAL_NAMES`).
        role: ``"input"``, ``"target"`` or ``"mask"``.
        key: where the user says that it is; only checked then.
        owner: what asks, for the message.
        first: names that come before the usual ones.

    Raises:
        TechniqueError: if it isn't there, or more than one name is usual; the message lists the
            batch's keys.

    Example:
        >>> find_key({"image": 1, "label": 2}, "target")
        'label'
        >>> find_key((1, 2, 3), "target")
        1
    """
    names = _field_names(batch)
    if names is not None:
        positional = isinstance(batch, tuple) and isinstance(key, int)
        usual = [name for name in first if name in names] or [
            name for name in USUAL_NAMES[role] if name in names
        ]
        found = usual if key is None else [key]
        if len(found) == 1 and (found[0] in names or (positional and _has_position(batch, key))):
            return found[0]
        has = "the keys " + (", ".join(repr(name) for name in names) or "(none)")
    elif isinstance(batch, tuple | list):
        position = _POSITIONS[role] if key is None else key
        if _has_position(batch, position):
            return position
        has = f"{len(batch)} items"
    else:
        has = "no fields that are known of"
    where = f"{role}_key={key!r} isn't in it" if key is not None else f"its {role} isn't clear"
    raise TechniqueError(
        f"{owner_name(owner)}: the batch, a {type(batch).__name__}, has {has}, and {where}: "
        f"say by {role}_key= where the {role} is"
    )


def _has_position(batch: Any, position: Any) -> bool:
    return isinstance(position, int) and -len(batch) <= position < len(batch)


def get_field(batch: Any, key: Key) -> Any:
    """Return what is at ``key``, as :func:`find_key` gives it.

    Example:
        >>> get_field(("images", "labels"), 1)
        'labels'
    """
    if isinstance(key, str) and not isinstance(batch, Mapping):
        return getattr(batch, key)
    return batch[key]


def replace_fields(batch: Any, changes: Mapping[Any, Any]) -> Any:
    """Return a batch of the same type with some fields replaced; ``batch`` stays as it is.

    Args:
        batch: a tuple, list, dict, named tuple or dataclass (also a frozen one).
        changes: new values by the keys that :func:`find_key` gives.

    Example:
        >>> batch = {"x": 1, "y": 2}
        >>> replace_fields(batch, {"x": 5}), batch
        ({'x': 5, 'y': 2}, {'x': 1, 'y': 2})
    """
    if isinstance(batch, tuple):
        items = list(batch)
        fields = getattr(batch, "_fields", ())
        for key, value in changes.items():
            items[fields.index(key) if isinstance(key, str) else key] = value
        return type(batch)(*items) if fields else type(batch)(items)
    twin = copy.copy(batch)
    for key, value in changes.items():
        if isinstance(key, str) and not isinstance(batch, Mapping):
            object.__setattr__(twin, key, value)  # also where a dataclass is frozen
        else:
            twin[key] = value
    return twin


def get_tensor(batch: Any, role: Role, key: Key | None = None, owner: object = "batch") -> Tensor:
    """Return a batch's input, target or mask, if it is a tensor; errors as :func:`find_key`."""
    where = find_key(batch, role, key, owner)
    value = get_field(batch, where)
    if not isinstance(value, Tensor):
        raise TechniqueError(
            f"{owner_name(owner)}: what the batch has at {where!r} is a {type(value).__name__}, "
            f"not a tensor: say by {role}_key= where the {role} is"
        )
    return value
