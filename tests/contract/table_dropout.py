"""The rows of the techniques that drop layers' outputs.

Their effect is seen in the gradients: those of every step are computed again by hand, with masks
from the keys that the documentation gives and rates from a formula.
"""

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_dlopt import regularization as r
from lightning_dlopt.core import Technique, keyed_generator
from tests.contract.replay import SEED, assert_gradients
from tests.contract.row import Row
from tests.contract.run import Outcome
from tests.contract.tasks import PLAIN, Task

#: From (layer, its output, step, generator of the call) to the layer's output in training.
Drop = Callable[[int, Tensor, int, torch.Generator], Tensor]


def gradients_follow(
    technique: Technique, layers: Callable[[nn.Module], list[nn.Module]], drop: Drop
) -> Callable[[Outcome, Task], None]:
    """Every step's raw gradients are those of a network whose layers are dropped by hand."""
    key = zlib.crc32(repr(technique).encode())

    def hook(index: int, step: int, rank: int, batch: int, call: int) -> Any:
        def dropped(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            generator = keyed_generator(SEED, key, rank, batch, index, call)
            return drop(index, output, step, generator)

        return dropped

    def loss(module: Any, batch: Any, *where: int) -> Tensor:
        hooks = [
            layer.register_forward_hook(hook(index, *where))
            for index, layer in enumerate(layers(module))
        ]
        value: Tensor = module.loss(batch)
        for one in hooks:
            one.remove()
        return value

    def undriven(module: nn.Module) -> None:
        for layer in layers(module):
            if isinstance(layer, nn.Dropout):
                layer.p = 0.0

    def effect(outcome: Outcome, task: Task) -> None:
        assert_gradients(outcome, task, loss, undriven)

    return effect


def by_rows(index: int, output: Tensor, step: int, generator: torch.Generator) -> Tensor:
    rate = 0.5 * (index + 1) / 2
    kept = torch.empty(len(output)).bernoulli_(1 - rate, generator=generator)
    return output * kept[:, None] / (1 - rate)


def by_elements(index: int, output: Tensor, step: int, generator: torch.Generator) -> Tensor:
    rate = max(0.2, 0.6 - 0.4 * step / 9)
    kept = torch.empty(output.shape).bernoulli_(1 - rate, generator=generator)
    return output * kept / (1 - rate)


def first_two(module: Any) -> list[nn.Module]:
    return [module.net[0], module.net[1]]


def dropouts(module: Any) -> list[nn.Module]:
    return [part for part in module.modules() if isinstance(part, nn.Dropout)]


def row(
    cls: type[Technique],
    arguments: Mapping[str, Any],
    neutral: Mapping[str, Any],
    layers: Callable[[nn.Module], list[nn.Module]],
    drop: Drop,
    rival: Mapping[str, Any],
    bad: list[tuple[str, Any]],
    differs: Mapping[str, str],
) -> Row:
    by_batch = "each batch of each rank has its own masks"
    return Row(
        technique=cls,
        make=lambda: cls(**arguments),
        neutral=lambda: cls(**neutral),
        effect=gradients_follow(cls(**arguments), layers, drop),
        useless=lambda: cls(**neutral),
        useless_task=PLAIN,
        rivals=[lambda: cls(**{**arguments, **rival})],
        bad=[(name, {**arguments, name: value}) for name, value in bad],
        mixin=(r.RegularizationMixin, "regularization"),
        differs={
            **dict.fromkeys(("accumulation", "two_processes", "sharded"), by_batch),
            **differs,
        },
    )


DROPOUT_ROWS = [
    row(
        r.StochasticDepth,
        {"drop_rate": 0.5, "target": ["net.0", "net.1"]},
        {"drop_rate": 0.0, "target": ["net.0", "net.1"]},
        first_two,
        by_rows,
        {"target": ["net.1"]},
        [
            ("drop_rate", 1.0),
            ("drop_rate", -0.1),
            ("drop_rate", "much"),
            ("target", "net.0"),
            ("target", []),
            ("target", [3]),
            ("mode", "column"),
            ("schedule", "cubic"),
        ],
        {},
    ),
    row(
        r.ScheduledDropout,
        {"start": 0.6, "end": 0.2, "span": "50%"},
        {"start": 0.0, "end": 0.0, "span": "50%"},
        dropouts,
        by_elements,
        {"start": 0.5},
        [
            ("start", 1.0),
            ("start", True),
            ("end", -0.1),
            ("end", None),
            ("span", 0),
            ("span", "soon"),
            ("target", "net.2"),
            ("target", []),
        ],
        {"own_randomness": "the layers it drives draw from its own generator"},
    ),
]
