"""The clauses of the contract that need further processes: resume, several ranks."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.fsdp import fully_shard

from lightning_dlopt.core import TechniqueError
from tests.contract.processes import call_in_process, call_on_ranks
from tests.contract.row import Row
from tests.contract.run import (
    KillAtBatch,
    Outcome,
    StopAtEpochEnd,
    assert_close_weights,
    assert_equal_states,
    assert_same_training,
    train,
)
from tests.contract.table import find_row
from tests.contract.tasks import BATCH, BATCHES, TASKS, MomentumModule, Task

RESUMED = TASKS["batch_norm"]
PARALLEL = Task(MomentumModule)


class ShardedModule(MomentumModule):
    """Shards its network as FSDP2's users do."""

    def configure_model(self) -> None:
        fully_shard(self.net, mesh=self.device_mesh["data_parallel"])


def save(outcome: Outcome, path: Path) -> None:
    kept = (
        "initial",
        "weights",
        "optimizers",
        "schedulers",
        "rates",
        "gradients",
        "batches",
        "compiled",
        "steps",
    )
    torch.save({name: getattr(outcome, name) for name in kept}, path)


def load(path: Path) -> Outcome:
    return Outcome(**torch.load(path, weights_only=False))


def interrupted(name: str, folder: Path, kill: bool) -> None:
    stop = KillAtBatch(BATCHES + 3) if kill else StopAtEpochEnd(0)
    row = find_row(name)
    train(row.adapted(RESUMED), [row.make()], callbacks=[stop], checkpoints=folder)


def resumed(name: str, checkpoint: Path, result: Path) -> None:
    row = find_row(name)
    save(train(row.adapted(RESUMED), [row.make()], resume=checkpoint), result)


def _resume(row: Row, folder: Path, *, kill: bool) -> None:
    checkpoints = folder / "checkpoints"
    call_in_process(interrupted, row.name, checkpoints, kill, folder=folder, killed=kill)
    if kill:
        batches = {int(path.stem.split("=")[1]): path for path in checkpoints.glob("batch=*")}
        checkpoint = batches[max(batches)]
        assert max(batches) == BATCHES + 3, "the kill came at another moment"
    else:
        checkpoint = next(checkpoints.glob("epoch-end-*"))
    call_in_process(resumed, row.name, checkpoint, folder / "resumed.pt", folder=folder)
    after, whole = load(folder / "resumed.pt"), train(row.adapted(RESUMED), [row.make()])
    assert len(after.batches) < len(whole.batches), "it didn't resume"
    assert after.batches == whole.batches[-len(after.batches) :], "other batches after the resume"
    assert_same_training(after, whole)


def resume_after_epoch(row: Row, folder: Path) -> None:
    """3a. Stopped at an epoch's end and resumed in a new process: bitwise the whole run."""
    _resume(row, folder, kill=False)


def resume_after_kill(row: Row, folder: Path) -> None:
    """3b. Killed in the middle of an epoch and resumed in a new process: bitwise the whole run."""
    _resume(row, folder, kill=True)


def on_rank(rank: int, name: str, folder: Path) -> None:
    row = find_row(name)
    outcome = train(
        row.adapted(PARALLEL),
        [row.make()],
        batch_size=BATCH // 2,
        ranks=(rank, 2),
        devices=2,
        strategy="ddp",
    )
    save(outcome, folder / f"rank-{rank}.pt")


def two_processes(row: Row, folder: Path) -> None:
    """5a. DDP on two ranks equals one process on the same global batches."""
    call_on_ranks(on_rank, row.name, folder, folder=folder)
    task = row.adapted(PARALLEL)
    one = train(task, [row.make()])
    for rank in range(2):
        outcome = load(folder / f"rank-{rank}.pt")
        row.effect(outcome, task)
        check = partial(assert_close_weights, one.weights, outcome.weights)
        row.holds_equal("two_processes", check)
    first, second = (load(folder / f"rank-{rank}.pt").weights for rank in range(2))
    assert_equal_states(first, second, "the ranks' weights")  # whatever one process does


def on_sharded_rank(rank: int, name: str, folder: Path) -> None:
    arguments: dict[str, Any] = {"batch_size": BATCH // 2, "ranks": (rank, 2), "devices": 2}
    strategy = ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)
    row = find_row(name)
    outcome = train(
        row.adapted(Task(ShardedModule)),
        [row.make()],
        strategy=strategy,
        keep_error=True,
        **arguments,
    )
    if isinstance(outcome.error, TechniqueError):
        assert not outcome.rates, "refused only after the first step"
    elif outcome.error is not None:
        raise outcome.error
    save(outcome, folder / f"rank-{rank}.pt")


def sharded(row: Row, folder: Path) -> None:
    """5b. FSDP2 equals one process on the same global batches, or is refused."""
    call_on_ranks(on_sharded_rank, row.name, folder, folder=folder)
    task = row.adapted(PARALLEL)
    one = train(task, [row.make()])
    for rank in range(2):
        outcome = load(folder / f"rank-{rank}.pt")
        assert ("sharded" in row.refuses) == (not outcome.rates)
        if outcome.rates:
            row.effect(outcome, task)
            check = partial(assert_close_weights, one.weights, outcome.weights)
            row.holds_equal("sharded", check)


IN_PROCESSES = [resume_after_epoch, resume_after_kill, two_processes, sharded]
