"""The rows of the techniques that let several names have one parameter."""

import copy
from collections import OrderedDict
from dataclasses import replace
from functools import cache

import torch
from torch import nn

from lightning_dlopt import structure as s
from tests.contract.row import Row
from tests.contract.run import Outcome
from tests.contract.table_squeeze_excite import STRUCTURE_MIXIN
from tests.contract.tasks import PLAIN, RATE, TASKS, Task, TupleModule

FIRST, SECOND = "net.0.layers.0.0", "net.0.layers.1.0"
PAIRS = [(f"{SECOND}.weight", f"{FIRST}.weight")]
PATTERN = "net.0.layers.*"


def with_equal_layers(task: Task) -> Task:
    """Return the same task with two equal layers behind its network's first one."""
    return replace(task, module=deepened(task.module))


@cache
def deepened(module: type[TupleModule]) -> type[TupleModule]:
    class Deepened(module):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()
            # copies, as nn.TransformerEncoder makes its layers
            layer = nn.Sequential(nn.Linear(8, 8), nn.Tanh())
            layers = nn.Sequential(layer, copy.deepcopy(layer))
            self.net[0] = nn.Sequential(OrderedDict(first=self.net[0], layers=layers))
            if hasattr(self, "kept"):
                self.kept = torch.optim.SGD(self.parameters(), lr=RATE)

    Deepened.__name__ = Deepened.__qualname__ = f"{module.__name__}_with_equal_layers"
    globals()[Deepened.__name__] = Deepened  # where pickle finds it
    return Deepened


def shares(outcome: Outcome, names: list[str]) -> None:
    """Both layers have one parameter, which is trained, and which an optimizer holds once."""
    for name in names:
        first, second = f"{FIRST}.{name}", f"{SECOND}.{name}"
        steps = [step for step in outcome.steps if first in step.before]
        assert steps
        assert not any(second in step.before for step in outcome.steps)
        last = outcome.weights
        assert torch.equal(last[first], last[second])
        assert not torch.equal(last[first], steps[0].before[first])


def ties(outcome: Outcome, task: Task) -> None:
    shares(outcome, ["weight"])
    assert not torch.equal(outcome.weights[f"{FIRST}.bias"], outcome.weights[f"{SECOND}.bias"])


def shares_all(outcome: Outcome, task: Task) -> None:
    shares(outcome, ["weight", "bias"])


DIFFERS = {"neutral_is_baseline": "a model with fewer parameters has no setting with all of them"}

SHARING_ROWS = [
    Row(
        technique=s.TieParameters,
        make=lambda: s.TieParameters(PAIRS),
        neutral=None,
        effect=ties,
        useless=lambda: s.TieParameters([("again.weight", "middle.weight")]),
        useless_task=TASKS["groups"],
        rivals=[],
        bad=[
            ("pairs", {"pairs": []}),
            ("pairs", {"pairs": "net.0.weight"}),
            ("pairs", {"pairs": ["net.0.weight", "net.3.weight"]}),
            ("pairs", {"pairs": [("net.0.weight", "net.0.weight")]}),
            ("pairs", {"pairs": [("net.0.weight", 3)]}),
            ("pairs", {"pairs": [("a", "b", "c")]}),
        ],
        mixin=STRUCTURE_MIXIN,
        task=with_equal_layers(PLAIN),
        adapt=with_equal_layers,
        shape=lambda module: s.tie_parameters(module, PAIRS) and None,
        refuses=frozenset({"kept_optimizer"}),
        differs=DIFFERS,
    ),
    Row(
        technique=s.ShareLayers,
        make=lambda: s.ShareLayers(PATTERN),
        neutral=None,
        effect=shares_all,
        useless=lambda: s.ShareLayers("net.0.layers.0"),
        useless_task=with_equal_layers(PLAIN),
        rivals=[],
        bad=[("pattern", {"pattern": ""}), ("pattern", {"pattern": ["net.*"]})],
        mixin=STRUCTURE_MIXIN,
        task=with_equal_layers(PLAIN),
        adapt=with_equal_layers,
        shape=lambda module: s.share_layers(module, PATTERN) and None,
        refuses=frozenset({"kept_optimizer"}),
        differs=DIFFERS,
    ),
]
