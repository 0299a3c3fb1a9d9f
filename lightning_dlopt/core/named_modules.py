"""Which of a module's parts a technique works on."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from lightning_dlopt.core.checks import owner_name
from lightning_dlopt.core.errors import ArgumentError, ArgumentTypeError
from lightning_dlopt.core.parameters import plain_name

_SHOWN = 40


def check_target(owner: object, name: str, value: Any, word: str) -> str | list[str]:
    """Return ``value`` if it is ``word`` or a list of name patterns, or raise."""
    if value == word:
        return word
    allowed = f"{word!r} or a list of name patterns"
    if isinstance(value, str):
        raise ArgumentError(f"{owner_name(owner)}: {name}={value!r} must be {allowed}")
    if not isinstance(value, Sequence) or not all(isinstance(item, str) for item in value):
        raise ArgumentTypeError(f"{owner_name(owner)}: {name}={value!r} must be {allowed}")
    if not value:
        raise ArgumentError(f"{owner_name(owner)}: {name} must hold at least one name pattern")
    return list(value)


def listing(names: Sequence[str]) -> str:
    """Return names for a message: all of them, or the first ones of very many.

    Example:
        >>> listing(["a", "b"])
        'a, b'
    """
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def named_parts(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return every part below ``module``, in the order of registration, each once.

    Names are without what ``torch.compile`` or FSDP put into them.
    """
    return [(plain_name(name), part) for name, part in module.named_modules() if plain_name(name)]


def select_modules(module: nn.Module, patterns: Sequence[str]) -> list[tuple[str, nn.Module]]:
    """Return the parts whose names match one of the patterns, in the order of registration.

    Args:
        module: the module to look in. A part that it holds twice is listed once, under its first
            name, but found under any of them.
        patterns: ``fnmatch`` patterns, case-sensitive.

    Raises:
        ArgumentError: if a pattern matches no part.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU()))
        >>> [name for name, _ in select_modules(net, ["1.*"])]
        ['1.0']
    """
    named = [
        (plain_name(name), part)
        for name, part in module.named_modules(remove_duplicate=False)
        if plain_name(name)
    ]
    wanted = set()
    for pattern in patterns:
        found = [id(part) for name, part in named if fnmatchcase(name, pattern)]
        if not found:
            names = listing([name for name, _ in named]) or "no parts"
            raise ArgumentError(f"no module's name matches {pattern!r}; there are {names}")
        wanted.update(found)
    return [(name, part) for name, part in named_parts(module) if id(part) in wanted]
