"""The penalty in a module's own loss, and what is logged, on two ranks, whole and sharded."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.fsdp import fully_shard

from lightning_dlopt import L1, ElasticNet, RegularizationMixin
from tests.contract.processes import call_on_ranks
from tests.contract.run import Outcome, assert_close_weights, train
from tests.contract.tasks import BATCH, MomentumModule, Task


class InLoss(RegularizationMixin, MomentumModule):
    def __init__(self) -> None:
        super().__init__(regularization=ElasticNet(0.02, 0.03))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        before = self.regularization_loss() / 2  # before and after the layers are gathered
        return self.loss(batch) + before + self.regularization_loss() / 2


class ShardedInLoss(InLoss):
    def configure_model(self) -> None:
        fully_shard(self.net, mesh=self.device_mesh["data_parallel"])


def lasso() -> L1:
    return L1(0.3, method="proximal")


def logged(outcome: Outcome) -> dict[str, float]:
    names = ("elastic_net_penalty", "l1_penalty", "l1_zero_share")
    return {name: float(outcome.module.trainer.callback_metrics[name]) for name in names}


def on_rank(rank: int, folder: Path, sharded: bool) -> None:
    strategy: Any = "ddp"
    if sharded:
        strategy = ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)
    task = Task(ShardedInLoss if sharded else InLoss)
    arguments: Any = {"batch_size": BATCH // 2, "ranks": (rank, 2), "devices": 2}
    outcome = train(task, [lasso()], strategy=strategy, log_every_n_steps=1, **arguments)
    torch.save((outcome.weights, logged(outcome)), folder / f"{rank}.pt")


@pytest.mark.slow
@pytest.mark.parametrize("sharded", [False, True])
def test_on_two_ranks(sharded: bool, tmp_path: Path) -> None:
    call_on_ranks(on_rank, tmp_path, sharded, folder=tmp_path)
    one = train(Task(MomentumModule), [ElasticNet(0.02, 0.03), lasso()], log_every_n_steps=1)
    assert logged(one)["l1_zero_share"] > 0
    for rank in range(2):
        weights, values = torch.load(tmp_path / f"{rank}.pt")
        assert_close_weights(one.weights, weights)
        assert values == pytest.approx(logged(one), rel=1e-4)
