"""Giving layers another class, under which they keep their parameters, names and hooks."""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from torch import nn

from lightning_dlopt.core.errors import CheckpointError, NoEffectWarning
from lightning_dlopt.core.named_modules import listing
from lightning_dlopt.structure.replacing import matching_parts, part_names

#: The class that a layer of exactly that class gets.
Classes: TypeAlias = Mapping[type[nn.Module], type[nn.Module]]


def find_layers(
    owner: str,
    module: nn.Module,
    target: str | Sequence[str],
    classes: Classes,
    kind: type[nn.Module] | tuple[type[nn.Module], ...],
    fits: Callable[[Any], bool],
) -> list[tuple[str, Any]]:
    """Return the selected layers whose class can be changed, each once.

    Of a subclass that somebody else wrote nothing is known, nor of a layer whose ``forward`` was
    replaced: those are left as they are, which is told. Layers that were changed before are left.

    Args:
        owner: who asks, for the warning.
        module: the module to look in, itself included.
        target: ``"all"``, or name patterns.
        classes: what each class becomes.
        kind: the classes that are looked for, with their subclasses.
        fits: whether a layer of that kind is to be changed.

    Raises:
        ArgumentError: if a pattern matches no part.
    """
    found, left = [], []
    for name, layer in matching_parts(module, target, lambda part: isinstance(part, kind)):
        if type(layer) in classes.values() or not fits(layer):
            continue
        if type(layer) in classes and "forward" not in vars(layer):
            found.append((name, layer))
        else:
            left.append(f"{name or 'the module'} ({type(layer).__name__})")
    if left:
        warnings.warn(
            f"{owner} leaves layers as they are whose class or forward others have made, and which "
            f"may compute something else: {listing(left)}",
            NoEffectWarning,
            stacklevel=3,
        )
    return found


def change_class(layers: Iterable[nn.Module], classes: Classes, **attributes: Any) -> None:
    """Give each layer its other class, and the attributes that this one needs.

    Example:
        >>> class Doubled(nn.Linear):
        ...     def forward(self, x):
        ...         return 2 * super().forward(x)
        >>> layer = nn.Linear(2, 2)
        >>> change_class([layer], {nn.Linear: Doubled})
        >>> layer
        Doubled(in_features=2, out_features=2, bias=True)
    """
    for layer in layers:
        layer.__class__ = classes.get(type(layer), type(layer))
        for name, value in attributes.items():
            setattr(layer, name, value)


def planned_layers(
    owner: str, module: nn.Module, names: Sequence[str], classes: Classes
) -> list[nn.Module]:
    """Return the layers that a plan names, changed already or not.

    Raises:
        CheckpointError: if one is missing, or of a class that can't be changed.
    """
    parts, layers = part_names(module), []
    for name in names:
        layer = parts.get(name)
        if layer is None or type(layer) not in {*classes, *classes.values()}:
            raise CheckpointError(
                f"{owner}: the checkpoint has a changed layer {name!r}, and the module's is "
                f"{type(layer).__name__ if layer is not None else 'missing'}"
            )
        layers.append(layer)
    return layers
