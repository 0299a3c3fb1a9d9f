"""The row of ChannelsLast."""

from lightning_dlopt import structure as s
from tests.contract.input_kinds import with_convolutions
from tests.contract.row import Row
from tests.contract.run import Outcome
from tests.contract.table_squeeze_excite import STRUCTURE_MIXIN
from tests.contract.tasks import PLAIN, Task

KERNELS = {"net.0.weight": (18, 1, 6, 2), "net.4.weight": (36, 1, 12, 4)}


def lies_so(outcome: Outcome, task: Task) -> None:
    """Both kernels and their gradients have the channels last, at every step and at the end."""
    for name, strides in KERNELS.items():
        assert outcome.weights[name].stride() == strides
        for step in outcome.steps:
            for state in (step.before, step.applied, step.after):
                if name in state:
                    assert state[name].stride() == strides


CHANNELS_LAST_ROWS = [
    Row(
        technique=s.ChannelsLast,
        make=s.ChannelsLast,
        neutral=None,
        effect=lies_so,
        useless=s.ChannelsLast,
        useless_task=PLAIN,
        rivals=[],
        bad=[("target", {"target": "some"}), ("target", {"target": []}), ("target", {"target": 3})],
        mixin=STRUCTURE_MIXIN,
        task=with_convolutions(PLAIN),
        adapt=with_convolutions,
        refuses=frozenset({"sharded"}),
        differs={
            "neutral_is_baseline": "convolutions sum up in another order",
            "accumulation": "the batch norms see half batches",
            "two_processes": "the batch norms see half batches",
        },
    ),
]
