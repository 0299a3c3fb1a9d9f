"""Putting other parts in the place of a module's parts."""

from collections.abc import Callable, Sequence

from torch import nn

from lightning_dlopt.core.named_modules import named_parts, select_modules
from lightning_dlopt.core.parameters import plain_name


def matching_parts(
    module: nn.Module, target: str | Sequence[str], fits: Callable[[nn.Module], bool]
) -> list[tuple[str, nn.Module]]:
    """Return the parts that are selected and fit, the module itself included, each once.

    Args:
        module: the module to look in; it is listed under the name ``""``.
        target: ``"all"``, or name patterns.
        fits: whether a part is of the kind that is looked for.

    Raises:
        ArgumentError: if a pattern matches no part.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        >>> [name for name, _ in matching_parts(net, "all", lambda p: isinstance(p, nn.ReLU))]
        ['1']
    """
    if isinstance(target, str):
        parts = [("", module), *named_parts(module)]
    else:
        parts = select_modules(module, target)
    return [(name, part) for name, part in parts if fits(part)]


def replace_part(module: nn.Module, old: nn.Module, new: nn.Module) -> nn.Module:
    """Put ``new`` wherever ``module`` has ``old``, under whatever names, and return the module.

    If ``old`` is the module itself, ``new`` is returned.

    Example:
        >>> shared = nn.Linear(2, 2)
        >>> net = replace_part(nn.Sequential(shared, shared), shared, nn.Identity())
        >>> net
        Sequential(
          (0): Identity()
          (1): Identity()
        )
    """
    if old is module:
        return new
    inside = set(map(id, new.modules()))  # it may hold the old one
    for parent in list(module.modules()):
        if id(parent) in inside:
            continue
        for name, child in list(parent._modules.items()):
            if child is old:
                setattr(parent, name, new)
    return module


def part_names(module: nn.Module) -> dict[str, nn.Module]:
    """Return every part by each of its names, without what compilers put into them.

    Example:
        >>> shared = nn.ReLU()
        >>> list(part_names(nn.Sequential(shared, shared)))
        ['', '0', '1']
    """
    return {plain_name(name): part for name, part in module.named_modules(remove_duplicate=False)}
