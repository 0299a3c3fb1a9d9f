"""What is said of channels that are removed."""

import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info

from lightning_dlopt.core.named_modules import listing
from lightning_dlopt.core.technique import Technique
from lightning_dlopt.structure.channels.choose import Shrinkage
from lightning_dlopt.structure.plan import take_plan

#: What says how wide a layer's output is.
_WIDTHS = ("out_channels", "out_features", "hidden_size", "embed_dim", "num_heads")


def tell_removal(
    technique: Technique, trainer: Trainer, shrinkage: Shrinkage, left: dict[str, float], step: int
) -> None:
    """Say what was removed, in the log and to the Trainer's loggers.

    Args:
        technique: which removed it.
        trainer: the Trainer.
        shrinkage: what was removed.
        left: the shares that are left, by what they are shares of.
        step: when.
    """
    for logger in trainer.loggers:  # the module's log would repeat it until the epoch's end
        logger.log_metrics({f"{by}_left": left[by] for by in left}, step=step)
    layers = [
        f"{name} {key} {before} -> {now}"
        for name, values in shrinkage.plan["parts"].items()
        for key, (before, now) in values.items()
        if key in _WIDTHS
    ]
    stayed = [f"{name or 'the module'} ({why})" for name, why in shrinkage.stayed.items()]
    shares = ", ".join(f"{share:.1%} of the {by.replace('_', '-')}" for by, share in left.items())
    rank_zero_info(
        f"{technique!r} at step {step} leaves {shares}: {listing(layers)}"
        + (f"; these stay as they are: {listing(stayed)}" if stayed else "")
    )


def tell_of_larger_checkpoints(technique: Technique, trainer: Trainer, steps: int) -> None:
    """Warn of a best checkpoint that was saved before the last removal.

    The best value of a metric often comes before it, and whoever takes that file takes a model
    that isn't as small as was asked for.
    """
    for callback in trainer.checkpoint_callbacks:
        path = callback.best_model_path if isinstance(callback, ModelCheckpoint) else ""
        if not path or not Path(path).is_file() or callback.monitor is None:  # type: ignore[attr-defined]
            continue
        saved: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        own = [one["plan"] for one in take_plan(saved) if one["key"] == technique.state_key]
        if own and own[0]["steps"] < steps:
            warnings.warn(
                f"{path} is the best by {callback.monitor}, and was saved before "  # type: ignore[attr-defined]
                f"{technique!r} had removed all that it removes: its model is larger",
                stacklevel=2,
            )
