"""Which of a module's parameters a technique works on."""

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lightning_dlopt.core.checks import owner_name
from lightning_dlopt.core.errors import ArgumentError, ArgumentTypeError

#: ``"weights"``, ``"all"``, or name patterns such as ``["encoder.*.weight"]``.
Selection: TypeAlias = str | Sequence[str]

#: Parts of a name that a wrapper put there, and that no user writes in a pattern.
_WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})


def check_selection(owner: object, name: str, value: Selection) -> Selection:
    """Return ``value`` if it selects parameters in a known way, or raise."""
    return check_patterns(owner, name, value, "weights", "all")


def check_patterns(owner: object, name: str, value: Any, *words: str) -> str | list[str]:
    """Return ``value`` if it is one of ``words`` or a list of name patterns, or raise."""
    allowed = ", ".join(repr(word) for word in words) + " or a list of name patterns"
    if isinstance(value, str):
        if value not in words:
            raise ArgumentError(f"{owner_name(owner)}: {name}={value!r} must be {allowed}")
        return value
    if not isinstance(value, Sequence) or not all(isinstance(item, str) for item in value):
        raise ArgumentTypeError(f"{owner_name(owner)}: {name}={value!r} must be {allowed}")
    if not value:
        raise ArgumentError(f"{owner_name(owner)}: {name} must hold at least one name pattern")
    return list(value)


def plain_name(name: str) -> str:
    """Return a parameter's name without what ``torch.compile`` or FSDP put into it."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


class Chosen:
    """Picks chosen parameters out of lists that seldom change, without looking names up each time.

    Args:
        choose: returns the ids of the chosen parameters; called anew for other parameters than
            last time (some were frozen, unfrozen or replaced).

    Example:
        >>> weight, bias = nn.Linear(2, 3).parameters()
        >>> Chosen(lambda: {id(weight)}).among([weight, bias]) == [weight]
        True
    """

    def __init__(self, choose: Callable[[], set[int]]) -> None:
        self._choose = choose
        self._last: list[int] = []
        self._ids: set[int] = set()

    def among(self, parameters: Sequence[Tensor]) -> list[Tensor]:
        """Return those of ``parameters`` that are chosen."""
        if (present := [id(p) for p in parameters]) != self._last:
            self._last, self._ids = present, self._choose()
        return [p for p in parameters if id(p) in self._ids]


def select_parameters(
    module: nn.Module, parameters: Selection = "weights"
) -> list[tuple[str, nn.Parameter]]:
    """Return the trainable parameters that ``parameters`` selects, each once, with their names.

    Args:
        module: the module to look in; frozen parameters (``requires_grad=False``) are left out,
            and a shared one is listed under its first name but found under any of them.
        parameters: ``"weights"`` takes tensors of two or more dimensions (no biases, no norms),
            ``"all"`` every one; a list takes those whose name matches one of its patterns
            (``fnmatch``, case-sensitive).

    Raises:
        ArgumentError: if a pattern matches no parameter at all, frozen or not, or if a parameter
            of a lazy module has no shape yet.

    Example:
        >>> layers = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        >>> [name for name, _ in select_parameters(layers)]
        ['0.weight']
        >>> [name for name, _ in select_parameters(layers, ["1.*"])]
        ['1.weight', '1.bias']
    """
    parameters = check_selection("select_parameters", "parameters", parameters)
    named = [
        (plain_name(name), parameter)
        for name, parameter in module.named_parameters(remove_duplicate=False)
    ]
    unshaped = [name for name, parameter in named if is_lazy(parameter)]
    if unshaped:
        raise ArgumentError(
            f"{unshaped[0]} belongs to a lazy module and has no shape yet: run a batch through the "
            "module before training"
        )
    if isinstance(parameters, str):
        chosen = [p for _, p in named if parameters == "all" or p.dim() >= 2]
    else:
        for pattern in parameters:
            if not any(fnmatchcase(name, pattern) for name, _ in named):
                raise ArgumentError(
                    f"no parameter's name matches {pattern!r}; the module has "
                    + (", ".join(name for name, _ in named) or "no parameters")
                )
        chosen = [p for name, p in named if any(fnmatchcase(name, pat) for pat in parameters)]
    wanted = {id(parameter) for parameter in chosen if parameter.requires_grad}
    first_names: dict[int, tuple[str, nn.Parameter]] = {}
    for name, parameter in named:
        if id(parameter) in wanted:
            first_names.setdefault(id(parameter), (name, parameter))
    return list(first_names.values())
