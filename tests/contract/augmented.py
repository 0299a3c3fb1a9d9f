"""What the rows of techniques that change the batch have in common."""

import zlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lightning_dlopt import augmentation as a
from lightning_dlopt.core import Technique, keyed_generator
from tests.contract.replay import SEED, assert_gradients
from tests.contract.run import Outcome
from tests.contract.tasks import Task

MIXIN = (a.AugmentationMixin, "augmentation")

#: Why batches that are cut in another way end in other weights.
BY_BATCH = dict.fromkeys(
    ("accumulation", "two_processes", "sharded"), "each batch of each rank has its own draws"
)

#: The loss of a batch that is changed by hand, with the draws of the generator.
Changed = Callable[[Any, Any, torch.Generator], Tensor]


def gradients_follow(technique: Technique, changed: Changed) -> Callable[[Outcome, Task], None]:
    """Every step's raw gradients are those of a batch that is changed by hand."""
    key = zlib.crc32(repr(technique).encode())

    def loss(module: Any, batch: Any, step: int, rank: int, number: int, call: int) -> Tensor:
        return changed(module, batch, keyed_generator(SEED, key, rank, number))

    def effect(outcome: Outcome, task: Task) -> None:
        assert_gradients(outcome, task, loss)

    return effect
