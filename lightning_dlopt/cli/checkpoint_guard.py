"""Checkpoints that can't be used are refused with one line, before anything is trained."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from lightning_dlopt.core.errors import CheckpointError
from lightning_dlopt.core.patching import Patches
from lightning_dlopt.core.resume import check_all_present, saved_techniques
from lightning_dlopt.core.technique import techniques_of


def check_readable(path: str) -> None:
    """Raise a CheckpointError if a local file is no checkpoint of Lightning's.

    Keywords such as ``last`` and remote addresses are Lightning's to resolve.
    """
    if path == "best":
        raise CheckpointError(
            "ckpt_path='best' is known only to the Trainer that trained: give the file's path"
        )
    if not Path(path).is_file():
        if Path(path).suffix == ".ckpt" and "://" not in path:
            raise CheckpointError(f"ckpt_path={path!r}: there is no such file")
        return
    is_zip = zipfile.is_zipfile(path)
    try:
        # mapped, so that the tensors of a large file aren't read: only its form is looked at
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception as error:
        damaged = "" if is_zip else " (the file is truncated or no checkpoint)"
        why = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        raise CheckpointError(f"ckpt_path={path!r} can't be read{damaged}: {why}") from error
    for key, kind in (("state_dict", Mapping), ("pytorch-lightning_version", str)):
        if not isinstance(content, Mapping) or not isinstance(content.get(key), kind):
            raise CheckpointError(f"ckpt_path={path!r} is no Lightning checkpoint: no {key} in it")


def check_same_model(module: nn.Module, state: Mapping[str, Any]) -> None:
    """Raise a CheckpointError if ``state`` belongs to another model than ``module``."""
    own = module.state_dict()
    for name in own:
        if name not in state:
            raise CheckpointError(f"the checkpoint is of another model: it has no {name}")
        here, there = (tuple(getattr(one, "shape", ())) for one in (own[name], state[name]))
        if here != there:
            raise CheckpointError(
                f"the checkpoint is of another model: {name} is {there} in it and {here} here"
            )
    for name in state:
        if name not in own:
            raise CheckpointError(
                f"the checkpoint is of another model: it has {name}, which this one lacks"
            )


class CheckpointGuard(Callback):
    """Checks the checkpoint against the module and the techniques before it is restored."""

    def __init__(self) -> None:
        self._patches = Patches()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Look at the checkpoint when the module is shown it, before its weights are loaded."""

        def wrap(original: Any) -> Any:
            def on_load_checkpoint(checkpoint: dict[str, Any]) -> None:
                original(checkpoint)
                if pl_module.strict_loading:
                    check_same_model(pl_module, checkpoint["state_dict"])
                if stage == "fit":
                    check_all_present(saved_techniques(checkpoint), techniques_of(trainer))

            return on_load_checkpoint

        self._patches.patch(pl_module, "on_load_checkpoint", wrap)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave no trace."""
        self._patches.undo()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Leave no trace."""
        self._patches.undo()
