"""Which groups of channels stay, by the user's will or because they must."""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from torch import nn

from lightning_dlopt.core.checks import check_text
from lightning_dlopt.core.errors import ArgumentError
from lightning_dlopt.core.named_modules import listing
from lightning_dlopt.core.parameters import check_patterns
from lightning_dlopt.structure.channels.dims import obstacle, places
from lightning_dlopt.structure.channels.graph import Group
from lightning_dlopt.structure.channels.widths import joined, named_tensors
from lightning_dlopt.structure.replacing import part_names

_OWNER = "choose_channels"


def left_out(
    module: nn.Module, groups: Sequence[Group], target: str | Sequence[str], keep: Sequence[str]
) -> dict[str, str]:
    """Return the groups that stay, by their names, and why.

    Args:
        module: the module.
        groups: its groups of channels.
        target: ``"all"``, or name patterns of the layers whose outputs may lose channels.
        keep: name patterns of the layers that stay as they are.

    Raises:
        ArgumentError: if a pattern matches nothing, or nothing of which channels can be removed.
    """
    target = check_patterns(_OWNER, "target", target, "all")
    keep = check_patterns(_OWNER, "keep", keep, "none") if keep else []
    kept = {name for pattern in keep for name in _matching(module, "keep", pattern)}
    must = {group.name: why for group in groups if (why := _reason(module, group))}
    stayed = dict(must)
    for group in groups:
        if touched := kept & {name for name, _ in group.sides}:
            stayed.setdefault(group.name, f"keep names {min(touched)}")
    if isinstance(target, str):
        return stayed
    wanted: set[str] = set()
    for pattern in target:
        names = _matching(module, "target", pattern)
        of_it = [group for group in groups if names & set(group.producers())]
        if not any(group.name not in stayed for group in of_it):
            why = listing([f"{group.name}: {stayed[group.name]}" for group in of_it])
            raise ArgumentError(
                f"{_OWNER}: target={pattern!r} names nothing whose channels can be removed"
                + (f" ({why})" if why else "")
            )
        wanted |= {group.name for group in of_it}
    for group in groups:
        if group.name not in wanted:
            stayed.setdefault(group.name, "target doesn't name it")
    return stayed


def _matching(module: nn.Module, argument: str, pattern: str) -> set[str]:
    """Return the parts that a pattern names, what is in them, and those of named parameters."""
    check_text(_OWNER, argument, pattern)
    parts = part_names(module)
    found = {name for name in parts if name and fnmatchcase(name, pattern)}
    found |= {
        name.rpartition(".")[0] for name in named_tensors(module) if fnmatchcase(name, pattern)
    }
    if not found:
        raise ArgumentError(
            f"{_OWNER}: {argument}={pattern!r} matches no part; there are "
            + listing([name for name in parts if name])
        )
    inside = {
        name for name in parts if any(name == top or name.startswith(f"{top}.") for top in found)
    }
    return inside | found


def _reason(module: nn.Module, group: Group) -> str | None:
    if group.ends:
        return "they are the module's outputs"
    if group.unclear:
        return "which layers they run through isn't clear"
    parts = part_names(module)
    for name, _ in group.sides:
        if why := obstacle(parts[name]):
            return f"{name}: {why}"
    owners: dict[int, list[str]] = {}
    for name, tensor in named_tensors(module).items():
        owners.setdefault(id(tensor), []).append(name)
    tensors = named_tensors(module)
    for name in _touched(parts, group):
        tensor = tensors[name]
        if isinstance(tensor, nn.Parameter) and not tensor.requires_grad:
            return f"{name} is frozen"
        others = [other for other in owners[id(tensor)] if not _same_part(parts, name, other)]
        if others:
            return f"{name} is shared with {others[0]}"
    return None


def _same_part(parts: dict[str, nn.Module], first: str, second: str) -> bool:
    """Return whether two names are of one tensor of one part that is there under both names."""
    (one, name), (two, other) = (each.rpartition(".")[::2] for each in (first, second))
    return name == other and parts[one] is parts[two]


def _touched(parts: dict[str, nn.Module], group: Group) -> Iterator[str]:
    for name, side in group.sides:
        for tensor, _, _ in places(parts[name], side):
            yield joined(name, tensor)
    for name, _ in group.alone:
        yield name
