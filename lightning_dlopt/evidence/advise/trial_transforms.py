"""The transforms whose effect on labels is tried, and how training would use them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_dlopt.augmentation import DeleteTokens, RandomGeometry, SwapTokens
from lightning_dlopt.core.batch_technique import BatchTechnique
from lightning_dlopt.evidence.advise.finding import NotDoneError
from lightning_dlopt.evidence.advise.subject import Subject


@dataclass(frozen=True, eq=False)
class Transform:
    """A transform that is tried.

    Attributes:
        argument: of the technique, by which training would use it.
        trial: does it to every sample.
        usual: arguments with which training would use it.
        neutral: value of the argument with which it does nothing.
    """

    argument: str
    trial: BatchTechnique
    usual: dict[str, Any]
    neutral: Any

    @property
    def technique(self) -> str:
        """The class name of the technique."""
        return type(self.trial).__name__

    @property
    def title(self) -> str:
        """What it is called in a text."""
        words = {"DeleteTokens": "token deletion", "SwapTokens": "token swaps"}
        return words.get(self.technique, self.argument.replace("_", " "))

    def is_used_by(self, techniques: Sequence[Any]) -> bool:
        """Return whether one of the techniques does it."""
        return any(
            isinstance(one, type(self.trial))
            and getattr(one, self.argument) not in (None, self.neutral, (1.0, 1.0))
            for one in techniques
        )


def transforms_for(inputs: Tensor, pad_id: int = 0) -> list[Transform]:
    """Return the transforms that are tried on inputs of this kind.

    Args:
        inputs: of a batch: images ``(B, C, H, W)`` or tokens ``(B, L)``.
        pad_id: the id of padding, for tokens.

    Raises:
        NotDoneError: if they are neither.

    Example:
        >>> [one.argument for one in transforms_for(torch.zeros(2, 1, 8, 8))]
        ['flip', 'vertical_flip', 'rotation', 'scale', 'crop']
    """
    floats = inputs.is_floating_point() or inputs.dtype == torch.uint8
    if inputs.dim() == 4 and floats and inputs.shape[1] <= 4 and min(inputs.shape[2:]) > 1:
        fill = background(inputs)
        extra = {"fill": fill} if fill else {}
        crop = max(round(min(inputs.shape[2:]) / 14), 1)
        trials: list[tuple[str, Any, Any, Any]] = [
            ("flip", 1.0, 0.5, 0.0),
            ("vertical_flip", 1.0, 0.5, 0.0),
            ("rotation", 10.0, 10.0, 0.0),
            ("scale", (0.9, 1.1), [0.9, 1.1], None),
            ("crop", crop, crop, 0),
        ]
        return [
            Transform(
                name, RandomGeometry(**{name: trial}, fill=fill), {name: usual, **extra}, neutral
            )
            for name, trial, usual, neutral in trials
        ]
    if inputs.dim() == 2 and inputs.dtype in (torch.int32, torch.int64):
        extra = {"pad_id": pad_id} if pad_id else {}
        kinds: tuple[Any, ...] = (DeleteTokens, SwapTokens)
        return [
            Transform("rate", kind(0.1, pad_id=pad_id), {"rate": 0.1, **extra}, 0.0)
            for kind in kinds
        ]
    raise NotDoneError(
        f"inputs of {inputs.dtype} and shape {tuple(inputs.shape)} are neither images (B, C, H, W) "
        "nor tokens (B, L)"
    )


def background(images: Tensor) -> float:
    """Return the value that most of the images' border has, or 0 if there is no such value.

    Example:
        >>> images = torch.full((2, 1, 4, 4), -0.8)
        >>> images[:, :, 1:3, 1:3] = 1.0
        >>> background(images)
        -0.8
    """
    sides = (images[..., 0, :], images[..., -1, :], images[..., :, 0], images[..., :, -1])
    border = torch.cat([side.flatten() for side in sides])
    middle = border.float().median()
    if float((border.float() == middle).double().mean()) < 0.5:
        return 0.0
    return float(f"{float(middle):.4g}")


def used_techniques(subject: Subject) -> list[Any]:
    """Return the techniques of a run: the Trainer's, the module's and its data's."""
    trainer: Any = subject.trainer
    found = [] if trainer is None else list(trainer.callbacks)
    for part in (subject.module, subject.data):
        found += vars(part).get("_own_techniques", []) if part is not None else []
    return found


def pad_id_of(subject: Subject) -> int:
    """Return the id of padding that data, module or network say, or 0."""
    module = subject.module
    for part in (subject.data, module, getattr(module, "network", None)):
        value = getattr(part, "pad_id", None)
        if isinstance(value, int) and value >= 0:
            return value
    return 0
