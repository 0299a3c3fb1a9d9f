"""The row of SqueezeExcite."""

import torch

from lightning_dlopt import structure as s
from tests.contract.input_kinds import with_convolutions
from tests.contract.row import Row
from tests.contract.run import Outcome
from tests.contract.tasks import PLAIN, Task

STRUCTURE_MIXIN = (s.StructureMixin, "structure")


def make() -> s.SqueezeExcite:
    return s.SqueezeExcite(reduction=2, min_channels=5)


def excites(outcome: Outcome, task: Task) -> None:
    """The second convolution, of six channels, has an excitation that is trained."""
    first, last = outcome.steps[0].before, outcome.weights
    new = [name for name in last if ".fc1." in name or ".fc2." in name]
    assert {name.split(".fc")[0] for name in new} == {"net.4.1"}
    assert last["net.4.1.fc1.weight"].shape == (3, 6, 1, 1)
    if task.module.__name__.startswith(("Manual", "Kept")):
        return  # these train single layers that they choose themselves
    assert not torch.equal(first["net.4.1.fc2.weight"], last["net.4.1.fc2.weight"])


SQUEEZE_EXCITE_ROWS = [
    Row(
        technique=s.SqueezeExcite,
        make=make,
        neutral=None,
        effect=excites,
        useless=lambda: s.SqueezeExcite(min_channels=512),
        useless_task=with_convolutions(PLAIN),
        rivals=[],
        bad=[
            ("target", {"target": "some"}),
            ("target", {"target": []}),
            ("reduction", {"reduction": 0}),
            ("reduction", {"reduction": 2.5}),
            ("min_channels", {"min_channels": 0}),
        ],
        mixin=STRUCTURE_MIXIN,
        task=with_convolutions(PLAIN),
        adapt=with_convolutions,
        shape=lambda module: s.squeeze_excite(module, reduction=2, min_channels=5) and None,
        refuses=frozenset({"kept_optimizer"}),
        differs={
            "neutral_is_baseline": "a model with more layers has no setting without them",
            "accumulation": "the batch norms see half batches",
            "two_processes": "the batch norms see half batches",
            "sharded": "the batch norms see half batches",
        },
    ),
]
