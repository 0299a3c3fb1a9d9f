"""FullBatch on several ranks."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.fsdp import fully_shard

from lightning_dlopt.core import CheckpointError
from lightning_dlopt.optimizers import FullBatch
from tests.contract.processes import call_on_ranks
from tests.contract.run import whole
from tests.optimizers.whole_set import SAMPLES, Regression, Saves, X, Y, by_hand, fit, resume


class Shares(list[Any]):
    """The batches of one rank; forgets its place, as a list does, but doesn't say so."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def shares(rank: int) -> Shares:
    cuts = ([0, 5, 9], [9, 16, SAMPLES])[rank]
    return Shares((X[a:b], Y[a:b]) for a, b in pairwise(cuts))


class Sharded(Regression):
    def configure_model(self) -> None:
        fully_shard(self.net, mesh=self.device_mesh["data_parallel"])


def on_rank(rank: int, kind: str, folder: Path) -> None:
    module: Regression = Regression() if kind == "ddp" else Sharded()
    strategy: Any = "ddp"
    if kind == "sharded":
        strategy = ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)
    arguments: dict[str, Any] = {"devices": 2, "strategy": strategy}
    fit(module, shares(rank), FullBatch(), Saves(folder / "x.ckpt", 2), **arguments)
    refused = ""
    if kind == "ddp":
        try:
            resume(folder / "x.ckpt", shares(rank), FullBatch(), **arguments)
        except CheckpointError as error:
            refused = str(error)
    weights = [whole(parameter.detach()) for parameter in module.parameters()]
    torch.save((weights, refused), folder / f"{rank}.pt")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "sharded"])
def test_ranks_with_different_shares(tmp_path: Path, kind: str) -> None:
    call_on_ranks(on_rank, kind, tmp_path, folder=tmp_path)
    for rank in range(2):
        weights, refused = torch.load(tmp_path / f"{rank}.pt")
        assert kind == "sharded" or "middle of an epoch" in refused
        for got, want in zip(weights, by_hand(Regression(), 3), strict=True):
            torch.testing.assert_close(got, want)
