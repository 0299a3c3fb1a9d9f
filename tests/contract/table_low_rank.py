"""The row of LowRank."""

import torch

from lightning_dlopt import structure as s
from tests.contract.row import Row
from tests.contract.run import Outcome
from tests.contract.table_squeeze_excite import STRUCTURE_MIXIN
from tests.contract.tasks import PLAIN, Task


def is_thin(outcome: Outcome, task: Task) -> None:
    """The first layer, of six inputs and eight outputs, is two of rank two; both are trained."""
    first, last = outcome.steps[0].before, outcome.weights
    assert "net.0.weight" not in last
    assert last["net.0.0.weight"].shape == (2, 6)
    assert last["net.0.1.weight"].shape == (8, 2)
    for name in ("net.0.0.weight", "net.0.1.weight", "net.0.1.bias"):
        assert not torch.equal(first[name], last[name]), name


LOW_RANK_ROWS = [
    Row(
        technique=s.LowRank,
        make=lambda: s.LowRank(rank=2),
        neutral=lambda: s.LowRank(rank=1.0),
        effect=is_thin,
        useless=lambda: s.LowRank(rank=1.0),
        useless_task=PLAIN,
        rivals=[],
        bad=[
            ("rank", {"rank": 0}),
            ("rank", {"rank": 1.5}),
            ("rank", {"rank": 0.0}),
            ("rank", {"rank": True}),
            ("rank", {"rank": "half"}),
            ("target", {"target": "some"}),
            ("target", {"target": []}),
        ],
        mixin=STRUCTURE_MIXIN,
        shape=lambda module: s.low_rank(module, 2) and None,
        refuses=frozenset({"kept_optimizer"}),
    ),
]
