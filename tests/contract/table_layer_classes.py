"""The rows of BlurPool, GhostBatchNorm and WeightStandardization."""

import torch

from lightning_dlopt import structure as s
from tests.contract.checkered import with_checkers
from tests.contract.input_kinds import with_convolutions
from tests.contract.row import Row
from tests.contract.run import Outcome
from tests.contract.table_squeeze_excite import STRUCTURE_MIXIN
from tests.contract.tasks import PLAIN, Task


def blurs(outcome: Outcome, task: Task) -> None:
    """The checkerboard doesn't come through to the middle weights of the convolution."""
    gradients = torch.stack([step.raw["net.5.weight"] for step in outcome.steps])
    assert gradients.any()
    assert not gradients[:, :, 4, 1, 1].any()


def standardizes(outcome: Outcome, task: Task) -> None:
    """Each kernel's gradients sum to 0, since its mean makes no difference."""
    for name in ("net.0.weight", "net.5.weight"):
        gradients = torch.stack([step.raw[name] for step in outcome.steps])
        assert gradients.any()
        largest = gradients.abs().amax((1, 2, 3, 4))
        assert (gradients.sum((2, 3, 4)).abs().amax(1) <= 1e-4 * largest).all()


#: The batch norm behind the first convolution; in a module without images nothing has the other
#: name, so there the patterns are refused.
GHOSTS = ["net.1", "net.7"]


def ghosts(size: int = 2) -> s.GhostBatchNorm:
    return s.GhostBatchNorm(size, GHOSTS)


def groups(outcome: Outcome, task: Task) -> None:
    """More groups were counted than there were batches."""
    calls = 2 if task.module.__name__.startswith("Manual") else 1  # for each of two optimizers
    counted = outcome.weights["net.1.num_batches_tracked"]
    assert counted > calls * len(outcome.batches)


#: What is fed to the batch norms differs with these, as it does without the technique.
OTHER_GROUPS = {
    "accumulation": "half a batch is dealt out to other groups than a whole one",
    "two_processes": "half a batch is dealt out to other groups than a whole one",
    "sharded": "half a batch is dealt out to other groups than a whole one",
}
NO_NEUTRAL = {"neutral_is_baseline": "a layer that computes something else has no neutral setting"}

LAYER_CLASSES_ROWS = [
    Row(
        technique=s.BlurPool,
        make=lambda: s.BlurPool(min_channels=4),
        neutral=None,
        effect=blurs,
        useless=lambda: s.BlurPool(["net.5"], min_channels=512),
        useless_task=with_checkers(PLAIN),
        rivals=[],
        bad=[
            ("target", {"target": "some"}),
            ("target", {"target": []}),
            ("min_channels", {"min_channels": 0}),
            ("min_channels", {"min_channels": 1.5}),
        ],
        mixin=STRUCTURE_MIXIN,
        task=with_checkers(PLAIN),
        adapt=with_checkers,
        shape=lambda module: s.blur_pool(module, min_channels=4) and None,
        differs=NO_NEUTRAL,
    ),
    Row(
        technique=s.GhostBatchNorm,
        make=ghosts,
        neutral=lambda: ghosts(512),
        effect=groups,
        useless=lambda: ghosts(512),
        useless_task=with_convolutions(PLAIN),
        rivals=[],
        bad=[
            ("size", {"size": 1}),
            ("size", {"size": 2.5}),
            ("target", {"target": "some"}),
            ("target", {"target": []}),
        ],
        mixin=STRUCTURE_MIXIN,
        task=with_convolutions(PLAIN),
        adapt=with_convolutions,
        shape=lambda module: s.ghost_batch_norm(module, 2, GHOSTS) and None,
        differs=OTHER_GROUPS,
    ),
    Row(
        technique=s.WeightStandardization,
        make=s.WeightStandardization,
        neutral=None,
        effect=standardizes,
        useless=s.WeightStandardization,
        useless_task=PLAIN,
        rivals=[],
        bad=[
            ("target", {"target": "some"}),
            ("target", {"target": []}),
            ("eps", {"eps": 0}),
            ("eps", {"eps": "small"}),
        ],
        mixin=STRUCTURE_MIXIN,
        task=with_checkers(PLAIN),
        adapt=with_checkers,
        shape=lambda module: s.standardize_weights(module) and None,
        differs=NO_NEUTRAL,
    ),
]
