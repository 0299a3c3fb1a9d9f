"""What is looked at in a batch's targets before they are mixed."""

import warnings
from typing import Any

import torch
from torch import Tensor

from lightning_dlopt.augmentation.mixture import looks_mixed
from lightning_dlopt.core.batch import Key, fields_of
from lightning_dlopt.core.errors import ConflictError


def check_soft(target: Tensor, owner: object) -> None:
    """Refuse floats that are mixed already, and warn of classes that are stored as floats.

    Raises:
        ConflictError: for probabilities of two classes.
    """
    if looks_mixed(target):
        raise ConflictError(
            f"{owner!r}: the batch's targets are probabilities of two classes, so the data "
            "are mixed already: keep one of the two, or say labels='soft' if nobody mixed them"
        )
    if look_like_classes(target):
        warnings.warn(
            f"{owner!r} averages the batch's targets, which look like class labels stored as "
            "floats: convert them to long, or say labels='soft' if they are numbers",
            stacklevel=2,
        )


def look_like_classes(target: Tensor) -> bool:
    """Return whether floats look like labels of three classes or more.

    So they do if they are a few whole numbers, each of which comes twice on average. 0 and 1 are
    probabilities as well, as ``binary_cross_entropy`` takes them.

    Example:
        >>> look_like_classes(Tensor([0, 2, 1, 2, 0, 1])), look_like_classes(Tensor([0, 1, 1, 0]))
        (True, False)
    """
    if target.dim() != 1 or not bool((target == target.round()).all()):
        return False
    kinds = torch.unique(target)
    return 3 <= len(kinds) <= len(target) // 2 and float(kinds[0]) >= 0


def further_classes(batch: Any, used: tuple[Key, Key]) -> dict[Key, Tensor]:
    """Return a batch's fields of one integer for each sample, but for those at the keys ``used``.

    Example:
        >>> x, y, z = (Tensor([0, 1]).long() for _ in range(3))
        >>> list(further_classes({"x": x, "y": y, "z": z, "size": 2}, ("x", "y")))
        ['z']
    """
    fields = fields_of(batch)
    taken = [id(fields[key]) for key in used if key in fields]
    count = next((len(fields[key]) for key in used if key in fields), 0)
    return {
        key: value
        for key, value in fields.items()
        if isinstance(value, Tensor)
        and key not in used
        and value.shape in ((count,), (count, 1))
        and not (value.is_floating_point() or value.is_complex() or id(value) in taken)
    }
