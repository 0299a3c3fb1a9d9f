"""The rows of the techniques that drop layers' outputs.

Their effect is seen in the gradients: those of every step are computed again by hand, with masks
from the keys that the documentation gives and rates from a formula.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_dlopt import regularization as r
from lightning_dlopt.core import Technique, keyed_generator
from tests.contract.row import Row
from tests.contract.run import EPOCHS, Outcome, first_tensor
from tests.contract.tasks import (
    BATCH,
    BATCHES,
    PLAIN,
    ManualModule,
    NoneOutputModule,
    Task,
)

SEED = 1  # what the suite's modules are built with

#: From (layer, its output, step, generator of the call) to the layer's output in training.
Drop = Callable[[int, Tensor, int, torch.Generator], Tensor]


def ranks_batches(outcome: Outcome, task: Task) -> tuple[list[list[Any]], int]:
    """Return every rank's batches, and how many of them make a step."""
    for size, ranks, accumulated in ((BATCH, 1, 1), (BATCH // 2, 1, 2), (BATCH // 2, 2, 1)):
        batches = []
        for rank in range(ranks):
            loader = task.loader(train=True, batch_size=size, rank=rank, world_size=ranks)
            batches.append([batch for _ in range(EPOCHS) for batch in loader])
            assert len(batches[-1]) == EPOCHS * BATCHES * accumulated
        sums = [[float(first_tensor(batch).double().sum()) for batch in one] for one in batches]
        if outcome.batches in sums:
            return batches, accumulated
    raise AssertionError("unknown batches")


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

    def expected(outcome: Outcome, task: Task) -> Iterator[tuple[dict[str, Tensor], Any]]:
        ranks, accumulated = ranks_batches(outcome, task)
        torch.manual_seed(SEED)  # layers that aren't driven draw what they drew in training
        module = task.module()
        for layer in layers(module):
            if isinstance(layer, nn.Dropout):
                layer.p = 0.0
        if outcome.initial:
            module.load_state_dict(outcome.initial)
        optimizers = len(task.module.rates) if issubclass(task.module, ManualModule) else 1
        assert len(outcome.steps) * accumulated == len(ranks[0]) * optimizers
        for index, step in enumerate(outcome.steps):
            module.load_state_dict(step.before, strict=False)
            parameters = {n: p for n, p in module.named_parameters() if n in step.before}
            trained = {n: p for n, p in parameters.items() if p.requires_grad}
            number, call = divmod(index, optimizers)
            losses = [
                loss(module, batches[batch], number, rank, batch, call)
                for rank, batches in enumerate(ranks)
                for batch in range(number * accumulated, (number + 1) * accumulated)
            ]
            mean = torch.stack(losses).mean()
            if not (task.module is NoneOutputModule and index % 3 == 2):  # no loss, old gradients
                gradients = torch.autograd.grad(mean, trained.values())
                yield dict(zip(trained, gradients, strict=True)), step
            module.load_state_dict(step.after, strict=False)

    def effect(outcome: Outcome, task: Task) -> None:
        with torch.random.fork_rng():
            steps = list(expected(outcome, task))
        for gradients, step in steps:
            raw = torch.cat([step.raw[name].flatten() for name in gradients])
            reference = torch.cat([gradient.flatten() for gradient in gradients.values()])
            scaled = raw * 1024  # mixed precision shows: by its digits, and the loss's scale
            rounded = any(
                torch.equal(scaled, scaled.to(kind).float())
                for kind in (torch.bfloat16, torch.float16)
            )
            error, allowed = (raw - reference).norm(), 0.05 if rounded else 1e-4
            assert error <= allowed * reference.norm() + 1e-7, f"off by {error:.2g}"

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
