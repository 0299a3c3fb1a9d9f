"""Training replayed by hand: the gradients of every step, computed again from a formula."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from tests.contract.run import EPOCHS, Outcome, first_tensor
from tests.contract.tasks import BATCH, BATCHES, ManualModule, NoneOutputModule, Task

SEED = 1  # what the suite's modules are built with

#: The loss of a batch, from the module, the batch, and the numbers of the step, the rank, the
#: batch and the loss within the batch.
Loss = Callable[[Any, Any, int, int, int, int], Tensor]


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


def replayed(
    outcome: Outcome, task: Task, loss: Loss, begin: Callable[[nn.Module], None]
) -> Iterator[tuple[dict[str, Tensor], Any]]:
    """Give the gradients of each step by the formula, and the step."""
    ranks, accumulated = ranks_batches(outcome, task)
    torch.manual_seed(SEED)  # layers that nobody drives draw what they drew in training
    module = task.module()
    begin(module)
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
        skips = issubclass(task.module, NoneOutputModule) and index % 3 == 2
        if not skips:  # there is no loss then, and old gradients
            gradients = torch.autograd.grad(mean, list(trained.values()))
            yield dict(zip(trained, gradients, strict=True)), step
        module.load_state_dict(step.after, strict=False)


def do_nothing(module: nn.Module) -> None:
    pass


def assert_gradients(
    outcome: Outcome, task: Task, loss: Loss, begin: Callable[[nn.Module], None] = do_nothing
) -> None:
    """Every step's raw gradients are those of the formula.

    Args:
        outcome: of a run of the suite.
        task: what was trained.
        loss: the formula.
        begin: called with the module that stands in for the trained one.
    """
    with torch.random.fork_rng():
        steps = list(replayed(outcome, task, loss, begin))
    for gradients, step in steps:
        raw = torch.cat([step.raw[name].flatten() for name in gradients])
        reference = torch.cat([gradient.flatten() for gradient in gradients.values()])
        scaled = raw * 1024  # mixed precision shows: by its digits, and the loss's scale
        rounded = any(
            torch.equal(scaled, scaled.to(kind).float()) for kind in (torch.bfloat16, torch.float16)
        )
        error, allowed = (raw - reference).norm(), 0.05 if rounded else 1e-4
        assert error <= allowed * reference.norm() + 1e-7, f"off by {error:.2g}"
