"""Overlays that change the arguments of techniques which a configuration has already."""

import copy
from collections.abc import Mapping
from typing import Any


def change_arguments(
    config: Mapping[str, Any], class_name: str, arguments: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Return the overlay that sets arguments of every object of a class in a configuration.

    A list can only be replaced as a whole by an overlay, so those with such an object are in it
    with all their items. None if the configuration has no such object.

    Args:
        config: the resolved configuration, which stays as it is.
        class_name: without its module's path.
        arguments: new values by name, as plain data.

    Example:
        >>> flip = {"class_path": "lightning_dlopt.RandomGeometry", "init_args": {"flip": 0.5}}
        >>> config = {"trainer": {"max_epochs": 3, "callbacks": [flip]}, "seed_everything": 1}
        >>> change_arguments(config, "RandomGeometry", {"flip": 0.0})["trainer"]["callbacks"]
        [{'class_path': 'lightning_dlopt.RandomGeometry', 'init_args': {'flip': 0.0}}]
    """
    changed, found = _changed(config, class_name, arguments)
    return changed if found else None


def _changed(value: Any, class_name: str, arguments: Mapping[str, Any]) -> tuple[Any, bool]:
    """Return what an overlay must say of a value, and whether there is something to change."""
    if isinstance(value, Mapping):
        if str(value.get("class_path", "")).split(".")[-1] == class_name:
            init_args = {**(value.get("init_args") or {}), **arguments}
            return {**copy.deepcopy(dict(value)), "init_args": init_args}, True
        parts = {key: _changed(item, class_name, arguments) for key, item in value.items()}
        changed = {key: part for key, (part, found) in parts.items() if found}
        return changed, bool(changed)
    if isinstance(value, list):
        items = [_changed(item, class_name, arguments) for item in value]
        if any(found for _, found in items):
            pairs = zip(items, value, strict=True)
            return [
                _whole(new, old) if found else copy.deepcopy(old) for (new, found), old in pairs
            ], True
    return None, False


def _whole(new: Any, old: Any) -> Any:
    """Return an item of a list with all that it has, the changes in it."""
    if isinstance(new, Mapping) and isinstance(old, Mapping):
        return {
            **copy.deepcopy(dict(old)),
            **{key: _whole(item, old.get(key)) for key, item in new.items()},
        }
    return new
