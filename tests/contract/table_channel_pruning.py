"""The row of ChannelPruning."""

import torch
from torch import nn

from lightning_dlopt import structure as s
from lightning_dlopt.structure.channels.widths import plan_between, reshape_to, structure_of
from tests.contract.row import Row
from tests.contract.run import Outcome
from tests.contract.table_squeeze_excite import STRUCTURE_MIXIN
from tests.contract.tasks import CLASSES, FEATURES, PLAIN, Task

#: Of 8 channels, each of which takes 6 + 3 multiply-adds, 5 are 1.6 times fewer.
LEFT = 5


def make() -> s.ChannelPruning:
    return s.ChannelPruning(speed_up=1.6, at=2, align=1)


def narrows(outcome: Outcome, task: Task) -> None:
    """Channels are gone after two steps and not before, and the rest is trained on."""
    with torch.random.fork_rng():
        whole = {name: tensor.shape for name, tensor in task.module().state_dict().items()}
    cut = {name for name, tensor in outcome.weights.items() if tensor.shape != whole[name]}
    assert cut
    seen = [
        (name, tensor.shape, tensor, step.after.get(name))
        for step in outcome.steps
        for name, tensor in step.before.items()
        if name in cut
    ]
    for name, shape, _, _ in seen:
        assert shape in (whole[name], outcome.weights[name].shape)
    if all(outcome.initial[name].shape == whole[name] for name in cut):  # not so in a second fit
        assert sum(shape == whole[name] for name, shape, _, _ in seen) >= 2
    assert any(
        after is not None and not torch.equal(before, after)
        for name, shape, before, after in seen
        if shape != whole[name]
    )


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
        useless=lambda: s.ChannelPruning(speed_up=1, at=2, align=1),
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
        # of the groups, each layer is the output, frozen, or shares its weight with one beside it
        refuses=frozenset({"sharded", "groups"}),
        differs={"own_randomness": "the dropout of fewer channels draws fewer numbers"},
    ),
]
