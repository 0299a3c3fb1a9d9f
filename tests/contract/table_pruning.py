"""The row of MagnitudePruning."""

import torch
from torch import Tensor

from lightning_dlopt import structure as s
from tests.contract.row import Row
from tests.contract.run import EPOCHS, Outcome
from tests.contract.table_squeeze_excite import STRUCTURE_MIXIN
from tests.contract.tasks import BATCHES, PLAIN, SPECIAL, ManualModule, Task

SPARSITY, EVERY = 0.6, 4


def make() -> s.MagnitudePruning:
    return s.MagnitudePruning(SPARSITY, begin=2, end="80%", every=EVERY)


def share_at(step: int) -> float:
    """Return the formula's share after as many steps (or batches, under manual optimization)."""
    end = round(0.8 * EPOCHS * BATCHES)
    if step >= end:
        return SPARSITY
    if step < 2:
        return 0.0
    point = 2 + (step - 2) // EVERY * EVERY
    return SPARSITY * (1 - (1 - (point - 2) / (end - 2)) ** 3)


def prunes(outcome: Outcome, task: Task) -> None:
    """As many weights are 0 as the formula says; what is 0 stays so, and has no gradient."""
    names = {n for step in outcome.steps for n, raw in step.raw.items() if raw.dim() >= 2}
    names &= {n for step in outcome.steps for n in step.applied}
    assert names
    steps_a_batch = len(task.module.rates) if issubclass(task.module, ManualModule) else 1
    zeros: dict[str, Tensor] = {}
    for index, step in enumerate(outcome.steps):
        share = share_at(index // steps_a_batch)
        if share == 0:  # what an earlier run has pruned trains again
            continue
        for name in names & step.before.keys():
            now = step.before[name] == 0
            assert not (zeros.get(name, now) & ~now).any(), f"{name} came back, step {index}"
            zeros[name] = now
            if name in step.applied:
                assert (step.applied[name][now] == 0).all(), f"{name} pulls, step {index}"
            assert torch.equal(step.after[name] == 0, now), f"{name}, step {index}"
        if (index + 1) % steps_a_batch == 0:
            expect_share(zeros, names, share)
    expect_share({name: outcome.weights[name] == 0 for name in names}, names, SPARSITY)


def expect_share(zeros: dict[str, Tensor], names: set[str], share: float) -> None:
    total = sum(zeros[name].numel() for name in names)
    found = sum(int(zeros[name].sum()) for name in names)
    assert found == round(share * total), f"{found} zeros of {total}, not {share:.3f}"


PRUNING_ROWS = [
    Row(
        technique=s.MagnitudePruning,
        make=make,
        neutral=lambda: s.MagnitudePruning(0.0),
        effect=prunes,
        useless=lambda: s.MagnitudePruning(0.0),
        useless_task=SPECIAL["kept_optimizer"],
        rivals=[lambda: s.MagnitudePruning(0.5, parameters=["net.0.*"])],
        bad=[
            *(("sparsity", {"sparsity": v}) for v in (1.0, -0.1, float("nan"), "much", True)),
            ("begin", {"sparsity": 0.5, "begin": "90%"}),
            ("end", {"sparsity": 0.5, "end": 0.8}),
            ("every", {"sparsity": 0.5, "every": 0}),
            ("parameters", {"sparsity": 0.5, "parameters": "some"}),
            ("scope", {"sparsity": 0.5, "scope": "row"}),
        ],
        mixin=STRUCTURE_MIXIN,
        task=PLAIN,
        refuses=frozenset({"sharded"}),
    ),
]
