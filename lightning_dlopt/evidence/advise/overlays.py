"""Overlays: what a configuration file must say to apply a suggestion."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from torch.optim import Optimizer

from lightning_dlopt.core.plain import plain

#: What people call the learning rate in a module's arguments.
_RATE_NAMES = ("lr", "learning_rate", "base_lr", "init_lr", "max_lr")


def add_callback(name: str, **arguments: Any) -> dict[str, Any]:
    """Return the overlay that adds a callback.

    Example:
        >>> add_callback("L2", strength=0.1)
        {'trainer': {'callbacks+': [{'class_path': 'L2', 'init_args': {'strength': 0.1}}]}}
    """
    return {"trainer": {"callbacks+": [{"class_path": name, "init_args": arguments}]}}


def callback_names(config: Mapping[str, Any]) -> set[str]:
    """Return the class names of the callbacks in a configuration, without their packages.

    Example:
        >>> callback_names({"trainer": {"callbacks": [{"class_path": "lightning_dlopt.L2"}]}})
        {'L2'}
    """
    callbacks = (config.get("trainer") or {}).get("callbacks") or []
    listed = callbacks if isinstance(callbacks, list) else [callbacks]
    return {str(one.get("class_path")).split(".")[-1] for one in listed if isinstance(one, Mapping)}


def set_key(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """Return the overlay that sets one key.

    Example:
        >>> set_key(("data", "init_args", "num_workers"), 2)
        {'data': {'init_args': {'num_workers': 2}}}
    """
    for name in reversed(path):
        value = {name: value}
    found: dict[str, Any] = value
    return found


def find_rate_keys(config: Mapping[str, Any], rate: float) -> list[tuple[str, ...]]:
    """Return where a configuration sets a learning rate of this value, outside its callbacks.

    Looked at are the sections ``optimizer`` and ``model`` with all that lies in them.

    Example:
        >>> model = {"init_args": {"optimizer": {"init_args": {"lr": 0.1, "eps": 0.1}}}}
        >>> find_rate_keys({"model": model}, 0.1)
        [('model', 'init_args', 'optimizer', 'init_args', 'lr')]
    """
    found = []
    for section in ("optimizer", "model"):
        for path, value in _leaves(config.get(section), (section,)):
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if path[-1] in _RATE_NAMES and is_number and float(value) == rate:
                found.append(path)
    return found


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _leaves(item, (*path, str(name)))
    else:
        yield path, value


def use_optimizer(optimizer: Optimizer, rate: float) -> dict[str, Any] | None:
    """Return the overlay by which ``UseOptimizer`` sets the rate of a module's own optimizer.

    For modules whose rate stands in their code. Biases and norms stay in weight decay if they
    were. None if the optimizer's class can't be named in a file, or not all its options.
    """
    kind = type(optimizer)
    if "<" in kind.__qualname__ or kind.__module__ == "__main__":
        return None
    known = inspect.signature(kind).parameters
    # what an optimizer notes for itself among the defaults is no argument
    options = {name: value for name, value in optimizer.defaults.items() if name in known}
    changed = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in options.items()
        if name != "lr" and value != known[name].default
    }
    if plain(changed) != changed:
        return None
    arguments = {"lr": rate, **changed}
    path = f"{kind.__module__}.{kind.__qualname__}"
    return add_callback(
        "UseOptimizer", optimizer={"class_path": path, "init_args": arguments}, no_decay=None
    )


def rate_overlay(
    config: Mapping[str, Any], optimizers: list[Optimizer], rates: list[float], factor: float
) -> tuple[dict[str, Any] | None, str]:
    """Return the overlay that multiplies the rate, and how it does so in words.

    Args:
        config: the run's resolved configuration.
        optimizers: the module's own.
        rates: of all param groups as configured, without a schedule.
        factor: what they are to be multiplied by.
    """
    distinct = sorted(set(rates))
    paths = [(path, rate) for rate in distinct for path in find_rate_keys(config, rate)]
    if len(distinct) == 1 and len(paths) == 1:
        path, rate = paths[0]
        return set_key(path, rounded(rate * factor)), f"by {'.'.join(path)}"
    if "UseOptimizer" in callback_names(config):
        return None, "by the lr of UseOptimizer among the callbacks"
    if len(optimizers) == 1:
        overlay = use_optimizer(optimizers[0], rounded(max(rates) * factor))
        if overlay is not None:
            return overlay, "by UseOptimizer, since no key of the configuration is known to set it"
    return None, "in the module's configure_optimizers: no key of the configuration is known"


def rounded(value: float) -> float:
    """Return a number with two digits, as people write rates.

    Example:
        >>> rounded(0.0031415)
        0.0031
    """
    return float(f"{value:.2g}")
