"""The row of ChannelPruning."""

import torch
from torch import nn

from lightning_dlopt import structure as s
from lightning_dlopt.structure.channel_plan import plan_between, reshape_to, structure_of
from tests.contract.row import Row
from tests.contract.run import Outcome
from tests.contract.table_squeeze_excite import STRUCTURE_MIXIN
from tests.contract.tasks import CLASSES, FEATURES, PLAIN, Task

#: Of 8 channels, each of which takes 6 + 3 multiply-adds, 5 are the most that are 1.5 times fewer.
LEFT = 5


def make() -> s.ChannelPruning:
    return s.ChannelPruning(speed_up=1.5, at=2, align=1)


def narrows(outcome: Outcome, task: Task) -> None:
    """Channels are gone after two steps, and the rest is trained on."""
    with torch.random.fork_rng():
        whole = task.module().state_dict()
    assert sum(t.numel() for t in outcome.weights.values()) < sum(t.numel() for t in whole.values())
    cut = [name for name, tensor in outcome.weights.items() if tensor.shape != whole[name].shape]
    assert cut
    second, third = outcome.steps[1].before, outcome.steps[-1].before
    assert any(outcome.weights[name].shape == third[name].shape for name in cut if name in third)
    if outcome.initial[cut[0]].shape == whole[cut[0]].shape:  # not yet cut in an earlier fit
        assert all(second[name].shape == whole[name].shape for name in cut if name in second)
    moved = [name for name in cut if name in third]
    assert any(not torch.equal(third[name], outcome.steps[-1].after[name]) for name in moved)


def narrow(module: nn.Module) -> None:
    """Give a module with the plain network the width that it ends with."""
    layers = nn.Sequential(nn.Linear(FEATURES, LEFT), nn.Identity(), nn.Identity())
    layers.append(nn.Linear(LEFT, CLASSES))
    whole, now = structure_of(module), structure_of(module)
    for kind, changes in structure_of(layers).items():
        for name, value in changes.items():
            if f"net.{name}" in now[kind]:
                now[kind][f"net.{name}"] = value
    reshape_to(module, plan_between(whole, now))


CHANNEL_PRUNING_ROWS = [
    Row(
        technique=s.ChannelPruning,
        make=make,
        neutral=lambda: s.ChannelPruning(speed_up=1.0),
        effect=narrows,
        useless=lambda: s.ChannelPruning(speed_up=1.5, at=2, align=1, keep=["net.*"]),
        useless_task=PLAIN,
        rivals=[lambda: s.ChannelPruning(speed_up=3.0)],
        bad=[
            ("speed_up", {"speed_up": 0.5}),
            ("speed_up", {"speed_up": "twice"}),
            ("at", {"at": "5 miles"}),
            ("steps", {"steps": 0}),
            ("every", {"every": 0}),
            ("by", {"by": "seconds"}),
            ("importance", {"importance": "size"}),
            ("align", {"align": 0}),
            ("keep", {"keep": "net"}),
        ],
        mixin=STRUCTURE_MIXIN,
        shape=narrow,
        refuses=frozenset({"sharded"}),
    ),
]
