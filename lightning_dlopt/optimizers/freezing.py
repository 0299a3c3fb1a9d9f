"""Which parameters a name pattern freezes, and freezing them: for loops of one's own."""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from lightning_dlopt.core.checks import owner_name
from lightning_dlopt.core.errors import ArgumentError, ArgumentTypeError
from lightning_dlopt.core.parameters import plain_name


def check_patterns(owner: object, name: str, value: Any) -> list[str]:
    """Return ``value``, one name pattern or a list of them, as a list, or raise."""
    patterns = [value] if isinstance(value, str) else value
    if not isinstance(patterns, Sequence) or not all(isinstance(one, str) for one in patterns):
        raise ArgumentTypeError(
            f"{owner_name(owner)}: {name}={value!r} must be a name pattern or a list of them"
        )
    if not patterns or not all(patterns):
        raise ArgumentError(f"{owner_name(owner)}: {name}={value!r} must hold name patterns")
    return list(patterns)


def matches(name: str, pattern: str) -> bool:
    """Return whether a parameter's name matches, or lies in a module whose name matches.

    Example:
        >>> [matches("encoder.0.weight", p) for p in ("encoder", "encoder.*", "*.weight", "enc")]
        [True, True, True, False]
    """
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def find_parameters(module: nn.Module, patterns: Sequence[str]) -> list[nn.Parameter]:
    """Return the parameters whose names match, frozen ones too, each once.

    A shared parameter is found under any of its names.

    Raises:
        ArgumentError: if a pattern matches no parameter.
    """
    named = [
        (plain_name(name), parameter)
        for name, parameter in module.named_parameters(remove_duplicate=False)
    ]
    for pattern in patterns:
        if not any(matches(name, pattern) for name, _ in named):
            raise ArgumentError(
                f"no parameter or module with parameters has a name that matches {pattern!r}; "
                "the module has " + (", ".join(name for name, _ in named) or "no parameters")
            )
    found = {id(p): p for name, p in named if any(matches(name, pat) for pat in patterns)}
    return list(found.values())


def freeze(module: nn.Module, patterns: str | Sequence[str]) -> list[nn.Parameter]:
    """Stop the parameters whose names match from training.

    Their gradients go, so that no optimizer decays them or moves them by momentum either.

    Args:
        module: the module to look in.
        patterns: see :class:`FreezeLayers`.

    Returns:
        The parameters that trained before; :func:`unfreeze` takes them.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        >>> frozen = freeze(net, "0")
        >>> [parameter.requires_grad for parameter in net.parameters()]
        [False, False, True, True]
        >>> unfreeze(frozen)
        >>> all(parameter.requires_grad for parameter in net.parameters())
        True
    """
    patterns = check_patterns("freeze", "patterns", patterns)
    frozen = [p for p in find_parameters(module, patterns) if p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
        parameter.grad = None
    return frozen


def unfreeze(parameters: Sequence[nn.Parameter]) -> None:
    """Let parameters train again."""
    for parameter in parameters:
        parameter.requires_grad_(True)


def find_statistics(module: nn.Module, patterns: Sequence[str]) -> Iterator[nn.Module]:
    """Yield the modules whose running statistics match, such as BatchNorm layers."""
    for name, part in module.named_modules():
        statistics = plain_name(f"{name}.running_mean".lstrip("."))
        if isinstance(getattr(part, "running_mean", None), Tensor) and any(
            matches(statistics, pattern) for pattern in patterns
        ):
            yield part
