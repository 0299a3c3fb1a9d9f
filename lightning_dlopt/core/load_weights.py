"""Weights from a checkpoint into a part of what was saved there."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_dlopt.core.errors import CheckpointError
from lightning_dlopt.core.parameters import plain_name


def load_weights(module: nn.Module, path: str | Path, prefix: str | None = None) -> None:
    """Load a file's weights into ``module``, which may be a part of the module that was saved.

    Args:
        module: gets the weights, all of them and in place.
        path: a Lightning checkpoint, or a ``state_dict`` saved by ``torch.save``; opened with
            ``weights_only=True``, so no code in it is run.
        prefix: where the module's keys are in the file, such as ``"network."``. By default the
            only prefix under which all of them are found.

    Raises:
        CheckpointError: if the file can't be read, or holds the module's weights under no prefix,
            under several, or in other shapes.
    """
    saved = _read(path)
    if prefix is None:
        prefix = _find_prefix(module, saved, path)
    state = {key.removeprefix(prefix): v for key, v in saved.items() if key.startswith(prefix)}
    try:
        module.load_state_dict(state if prefix else _only_own(module, state))
    except RuntimeError as error:
        raise CheckpointError(
            f"the weights in {str(path)!r} under {prefix!r} don't fit {type(module).__name__}: "
            f"{error}"
        ) from error


def _read(path: str | Path) -> dict[str, Tensor]:
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, ValueError) as error:
        raise CheckpointError(f"can't read weights from {str(path)!r}: {error}") from error
    state = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping):
        raise CheckpointError(f"{str(path)!r} holds a {type(content).__name__}, not weights")
    return {plain_name(str(key)): v for key, v in state.items() if isinstance(v, Tensor)}


def _only_own(module: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    # at the root of a Lightning checkpoint there may be more than this module
    own = module.state_dict()
    return {key: value for key, value in state.items() if key in own}


def _find_prefix(module: nn.Module, saved: Mapping[str, Tensor], path: str | Path) -> str:
    keys = list(module.state_dict())
    first = keys[0] if keys else ""
    ends = {key.removesuffix(first) for key in saved if key.endswith(first)}
    prefixes = sorted(
        prefix
        for prefix in ends
        if (not prefix or prefix.endswith(".")) and all(prefix + key in saved for key in keys)
    )
    if len(prefixes) == 1:
        return prefixes[0]
    if prefixes:
        raise CheckpointError(
            f"{str(path)!r} holds weights for {type(module).__name__} under several prefixes, "
            + ", ".join(repr(prefix) for prefix in prefixes)
            + ": say which"
        )
    raise CheckpointError(
        f"{str(path)!r} doesn't hold the weights of {type(module).__name__}, which has "
        f"{', '.join(keys[:3])}, …; the file has {', '.join(list(saved)[:3]) or 'none'}, …"
    )
