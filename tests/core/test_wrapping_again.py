from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lightning_dlopt.core.strategies import wrap_again
from tests.contract.processes import call_on_ranks
from tests.contract.run import assert_equal_states, train
from tests.contract.tasks import BATCH, MomentumModule, Task


def test_lightning_still_has_what_it_is_done_with() -> None:
    assert isinstance(DDPStrategy.model, property)
    assert DDPStrategy.model.fset is not None
    assert callable(DDPStrategy.configure_ddp)


class Replace(Callback):
    """Puts equal parameters in the place of the first layer's before the third batch."""

    def __init__(self, tells_ddp: bool) -> None:
        self.tells_ddp = tells_ddp

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any, **__: Any) -> None:
        if trainer.global_step != 2:
            return
        layer, wrapper = pl_module.net[0], trainer.strategy.model
        for name, old in list(layer.named_parameters()):
            new = nn.Parameter(old.detach().clone())
            setattr(layer, name, new)
            optimizer = trainer.optimizers[0]
            for group in optimizer.param_groups:
                group["params"] = [new if p is old else p for p in group["params"]]
            optimizer.state[new] = optimizer.state.pop(old)
        if self.tells_ddp:
            wrap_again(trainer)
            assert isinstance(trainer.strategy.model, DistributedDataParallel)
            assert trainer.strategy.model is not wrapper
            assert trainer.strategy.model.module is pl_module


def on_rank(rank: int, folder: Path, tells_ddp: bool) -> None:
    outcome = train(
        Task(MomentumModule),
        [],
        callbacks=[Replace(tells_ddp)],
        batch_size=BATCH // 2,
        ranks=(rank, 2),
        devices=2,
        strategy="ddp",
    )
    torch.save(outcome.weights, folder / f"rank-{rank}.pt")


@pytest.mark.slow
def test_gradients_of_new_parameters_are_averaged_over_ranks(tmp_path: Path) -> None:
    call_on_ranks(on_rank, tmp_path, True, folder=tmp_path)
    first, second = (torch.load(tmp_path / f"rank-{rank}.pt") for rank in range(2))
    assert_equal_states(first, second, "weights of the two ranks")
    whole = train(Task(MomentumModule), []).weights
    for name in whole:
        torch.testing.assert_close(first[name], whole[name], rtol=1e-4, atol=1e-5)
