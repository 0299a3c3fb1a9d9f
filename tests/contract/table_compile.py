"""The row of Compile."""

from typing import Any

import torch
from torch import nn

from lightning_dlopt import structure as s
from tests.contract.row import Row
from tests.contract.run import Outcome
from tests.contract.table_squeeze_excite import STRUCTURE_MIXIN
from tests.contract.tasks import PLAIN, Task, TupleModule


class CompiledNetModule(TupleModule):
    """Compiles its network by itself."""

    def make_net(self) -> nn.Module:
        net = super().make_net()
        net.compile(backend="eager")
        return net


def make() -> s.Compile:
    torch.compiler.reset()  # what other runs of this process have compiled counts towards a limit
    return s.Compile(backend="eager")


def is_compiled(outcome: Outcome, task: Task) -> None:
    """The network is compiled, and no part within it; what runs then is in tests/structure."""
    assert "net" in outcome.compiled
    assert not any(name.startswith("net.") for name in outcome.compiled)


def bad(name: str, value: Any) -> tuple[str, dict[str, Any]]:
    return name, {name: value}


COMPILE_ROWS = [
    Row(
        technique=s.Compile,
        make=make,
        neutral=make,
        effect=is_compiled,
        useless=make,
        useless_task=Task(CompiledNetModule),
        rivals=[],
        bad=[
            bad("target", "some"),
            bad("target", []),
            bad("mode", "fastest"),
            bad("mode", 1),
            bad("dynamic", "no"),
            bad("backend", "gcc"),
            bad("backend", ""),
            bad("fullgraph", 1),
        ],
        mixin=STRUCTURE_MIXIN,
        task=PLAIN,
        refuses=frozenset({"compiled"}),
    ),
]
