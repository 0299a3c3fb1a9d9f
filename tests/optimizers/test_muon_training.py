"""Muon in training: what it takes for hidden, resuming, and several processes."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.fsdp import fully_shard

from lightning_dlopt import CosineLR, Muon, UseOptimizer
from lightning_dlopt.core import ArgumentError, NoEffectWarning, TechniqueError
from tests.contract.processes import call_on_ranks
from tests.contract.run import train as train_task
from tests.contract.tasks import BATCH, PLAIN, Task, TupleModule
from tests.optimizers.toy import Toy, batches, fit, rates, toy


class Words(Toy):
    """An embedding shared with the last layer, and a kernel between."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.middle = nn.Conv1d(4, 4, 3)
        self.norm = nn.LayerNorm((4, 2))
        self.attention = nn.MultiheadAttention(4, 2, add_bias_kv=True)
        self.decoder = nn.Linear(4, 7)
        self.decoder.weight = self.embedding.weight


def test_embeddings_norms_biases_and_the_last_layer_are_adamws() -> None:
    module = toy(Words)
    trainer = fit(module, UseOptimizer(Muon))
    names = {id(p): name for name, p in module.named_parameters()}
    hidden = {
        names[id(p)]
        for group in trainer.optimizers[0].param_groups
        for p in group["params"]
        if group["use_muon"]
    }
    assert hidden == {
        *("net.0.weight", "net.3.weight", "net.5.weight", "middle.weight"),
        *("attention.in_proj_weight", "attention.out_proj.weight"),
    }


def test_one_schedule_multiplies_both_rates() -> None:
    trainer = fit(toy(), UseOptimizer(partial(Muon, lr=0.5, adamw_lr=0.25)), CosineLR(floor=0.5))
    assert sorted(set(rates(trainer))) == pytest.approx([0.125, 0.25])


def test_it_learns_with_accumulation_and_clipping() -> None:
    module = toy()
    before = sum(float(module.training_step(batch, 0)) for batch in batches())
    fit(
        module,
        UseOptimizer(partial(Muon, lr=0.05, adamw_lr=0.02)),
        max_epochs=30,
        accumulate_grad_batches=2,
        gradient_clip_val=1.0,
    )
    assert sum(float(module.training_step(batch, 0)) for batch in batches()) < 0.7 * before


def test_a_run_is_resumed_bitwise(tmp_path: Path) -> None:
    technique = UseOptimizer(partial(Muon, weight_decay=0.1))
    whole, resumed = toy(), toy()
    saving = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    fit(whole, technique, saving, max_epochs=3, enable_checkpointing=True)
    fit(resumed, technique, ckpt_path=tmp_path / "epoch=0.ckpt", max_epochs=3)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name])


def test_a_module_without_hidden_matrices_is_told() -> None:
    class Flat(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(3, 2))

    with pytest.warns(NoEffectWarning, match="no hidden matrix"):
        fit(toy(Flat), UseOptimizer(Muon))


class Sharded(TupleModule):
    def configure_model(self) -> None:
        fully_shard(self.net, mesh=self.device_mesh["data_parallel"])


def shard(rank: int) -> None:
    strategy = ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)
    parallel: dict[str, Any] = {"ranks": (rank, 2), "devices": 2, "strategy": strategy}
    outcome = train_task(Task(Sharded), [UseOptimizer(Muon)], keep_error=True, **parallel)
    assert isinstance(outcome.error, TechniqueError)
    assert "Muon: a matrix of shape (8, 6) is sharded" in str(outcome.error)
    assert not outcome.rates


@pytest.mark.slow
def test_sharded_matrices_are_refused(tmp_path: Path) -> None:
    call_on_ranks(shard, folder=tmp_path)


def technique() -> UseOptimizer:
    return UseOptimizer(partial(Muon, lr=0.1, adamw_lr=0.01))


def ddp(rank: int, folder: Path) -> None:
    parallel: dict[str, Any] = {"ranks": (rank, 2), "devices": 2, "strategy": "ddp"}
    outcome = train_task(PLAIN, [technique()], batch_size=BATCH // 2, **parallel)
    torch.save(outcome.weights, folder / f"weights-{rank}.pt")


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    call_on_ranks(ddp, tmp_path, folder=tmp_path)
    one = train_task(PLAIN, [technique()])
    for rank in range(2):
        weights = torch.load(tmp_path / f"weights-{rank}.pt")
        for name, tensor in one.weights.items():
            # bfloat16 in the iteration makes more of a gradient's rounding than float32 would
            torch.testing.assert_close(weights[name], tensor, rtol=0, atol=0.01, msg=name)
            assert (one.initial[name] - tensor).abs().max() > 0.05


def test_errors_of_muon_name_the_technique() -> None:
    with pytest.raises(ArgumentError, match=r"UseOptimizer: optimizer=.*Muon: momentum"):
        UseOptimizer(partial(Muon, momentum=2.0))
    with pytest.raises(TechniqueError, match=r"UseOptimizer.*Muon: momentum"):
        fit(toy(), UseOptimizer(lambda params: Muon(params, momentum=2.0)))
