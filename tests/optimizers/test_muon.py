"""Muon against torch's own classes, the singular value decomposition, and in training."""

import copy
import math
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.optim import AdamW

from lightning_dlopt import CosineLR, Muon, UseOptimizer, orthogonalize
from lightning_dlopt.core import ArgumentError, NoEffectWarning, TechniqueError
from lightning_dlopt.optimizers.muon import step_scale
from tests.contract.processes import call_on_ranks
from tests.contract.run import train as train_task
from tests.contract.tasks import BATCH, PLAIN, Task, TupleModule
from tests.optimizers.toy import Toy, batches, fit, rates, toy


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def train(optimizer: Any, parameters: list[nn.Parameter], steps: int = 5) -> None:
    for step in range(steps):
        for number, parameter in enumerate(parameters):
            parameter.grad = random(*parameter.shape, seed=100 * step + number)
        optimizer.step()


def parameters(*shapes: tuple[int, ...]) -> list[nn.Parameter]:
    return [nn.Parameter(random(*shape, seed=n)) for n, shape in enumerate(shapes)]


# ---- the pure function ----


@pytest.mark.parametrize("shape", [(16, 16), (8, 32), (32, 8)])
def test_singular_values_come_near_one_and_directions_stay(shape: tuple[int, int]) -> None:
    # singular values from 0.1 to 1, so that none is too small for five steps
    u, _, v = torch.linalg.svd(random(*shape), full_matrices=False)
    matrix = u @ torch.diag(torch.linspace(0.1, 1, min(shape))) @ v
    result = orthogonalize(5.0 * matrix).float()
    values = torch.linalg.svdvals(result)
    assert values.min() > 0.65
    assert values.max() < 1.3
    nearest = u @ v
    cosine = (result * nearest).sum() / result.norm() / nearest.norm()
    assert cosine > 0.97
    # U'XV is diagonal: only the singular values have changed
    rotated = u.T @ result @ v.T
    off = rotated - torch.diag(rotated.diagonal())
    assert off.abs().max() < 0.05


def test_more_steps_do_not_run_away_and_zero_stays_zero() -> None:
    assert torch.linalg.svdvals(orthogonalize(random(8, 8), 20).float()).max() < 1.3
    assert orthogonalize(torch.zeros(3, 4)).abs().max() == 0


def test_the_input_is_left_alone() -> None:
    matrix = random(4, 6).bfloat16()
    before = matrix.clone()
    orthogonalize(matrix)
    assert torch.equal(matrix, before)


# ---- against torch's classes ----


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch.optim.Muon came with torch 2.9")
@pytest.mark.parametrize("scale", ["original", "match_rms_adamw"])
@pytest.mark.parametrize("nesterov", [True, False])
def test_matrices_take_torchs_steps_bitwise(scale: Any, nesterov: bool) -> None:
    shapes = ((8, 4), (4, 8), (6, 6))
    mine, theirs = parameters(*shapes), parameters(*shapes)
    common: dict[str, Any] = {"lr": 0.05, "weight_decay": 0.1, "nesterov": nesterov}
    train(Muon(mine, scale=scale, **common), mine)
    train(torch.optim.Muon(theirs, adjust_lr_fn=scale, **common), theirs)
    assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


def test_the_rest_takes_adamws_steps_bitwise() -> None:
    shapes = ((8,), (1,), (4, 8))
    mine, theirs = parameters(*shapes), parameters(*shapes)
    groups = [{"params": mine[:2]}, {"params": mine[2:], "use_muon": False}]
    optimizer = Muon(
        groups, weight_decay=0.1, adamw_lr=0.01, adamw_betas=(0.8, 0.9), adamw_eps=1e-6
    )
    train(optimizer, mine)
    train(AdamW(theirs, lr=0.01, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.1), theirs)
    assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


def test_the_step_by_hand() -> None:
    (weight,) = parameters((6, 3))
    optimizer = Muon([weight], lr=0.1, momentum=0.9, weight_decay=0.5)
    expected, average = weight.detach().clone(), torch.zeros(6, 3)
    for step in range(3):
        g = random(6, 3, seed=100 * step)
        average = 0.9 * average + 0.1 * g
        u = 0.1 * g + 0.9 * average
        direction = orthogonalize(u).float()
        expected = expected * (1 - 0.1 * 0.5) - 0.1 * math.sqrt(2) * direction
        weight.grad = g
        optimizer.step()
    torch.testing.assert_close(weight.detach(), expected, rtol=1e-5, atol=2e-3)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_kernel_is_taken_as_a_matrix_of_its_output_channels(memory_format: Any) -> None:
    (flat,) = parameters((8, 27))
    kernel = nn.Parameter(flat.detach().reshape(8, 3, 3, 3).to(memory_format=memory_format))
    optimizers = Muon([flat], lr=0.1), Muon([kernel], lr=0.1)
    for step in range(3):
        flat.grad = random(8, 27, seed=step)
        kernel.grad = flat.grad.reshape(8, 3, 3, 3).to(memory_format=memory_format)
        for optimizer in optimizers:
            optimizer.step()
    assert torch.equal(kernel.reshape(8, 27), flat)


def test_scales() -> None:
    assert step_scale((10, 40), "original") == 1.0
    assert step_scale((40, 10), "original") == 2.0
    assert step_scale((10, 100), "match_rms_adamw") == pytest.approx(2.0)
    # an orthogonal step has, so scaled, a root mean square of 0.2 as AdamW's steps have about
    step = orthogonalize(random(16, 64)).float() * step_scale((16, 64), "match_rms_adamw")
    assert float(step.square().mean().sqrt()) == pytest.approx(0.2, rel=0.2)


# ---- groups and state ----


def test_parameters_are_parted_by_dimensions_and_keep_what_a_group_says() -> None:
    one, two, three = parameters((3, 3), (3,), (2, 2))
    optimizer = Muon([{"params": [one, two], "weight_decay": 0.3}], adamw_lr=0.01)
    optimizer.add_param_group({"params": three, "use_muon": False, "lr": 0.5})
    groups = optimizer.param_groups
    assert [g["use_muon"] for g in groups] == [True, False, False]
    assert [g["lr"] for g in groups] == [0.02, 0.01, 0.5]
    assert [g["weight_decay"] for g in groups] == [0.3, 0.3, 0.0]


def test_named_parameters_are_taken() -> None:
    layer = nn.Linear(2, 2)
    optimizer = Muon(layer.named_parameters())
    assert [g["param_names"] for g in optimizer.param_groups] == [["weight"], ["bias"]]


def test_state_goes_through_a_checkpoint_and_a_pickle_bitwise(tmp_path: Path) -> None:
    whole, first = parameters((4, 4), (4,)), parameters((4, 4), (4,))
    train(optimizer := Muon(whole), whole)
    train(Muon(first), first, steps=0)
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    twins = copy.deepcopy(whole)
    resumed = Muon(twins, lr=1.0)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    train(optimizer, whole)
    train(resumed, twins)
    assert all(torch.equal(a, b) for a, b in zip(whole, twins, strict=True))
    again = pickle.loads(pickle.dumps(optimizer))
    again.add_param_group({"params": nn.Parameter(torch.ones(2))})
    assert again.param_groups[-1]["lr"] == 3e-4


def test_parameters_without_gradient_stay_and_closures_run_once() -> None:
    used, unused = parameters((3, 3), (3, 3))
    before, calls = unused.detach().clone(), []

    def closure() -> float:
        assert torch.is_grad_enabled()
        calls.append(1)
        used.grad = random(3, 3)
        return 7.0

    assert Muon([used, unused], weight_decay=0.5).step(closure) == 7.0
    assert calls == [1]
    assert torch.equal(unused, before)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"lr": -1}, "lr"),
        ({"lr": "fast"}, "lr"),
        ({"momentum": 1.0}, "momentum"),
        ({"nesterov": 1}, "nesterov"),
        ({"ns_steps": 0}, "ns_steps"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"scale": "huge"}, "scale"),
        ({"adamw_lr": math.nan}, "adamw_lr"),
        ({"adamw_betas": 0.9}, "adamw_betas"),
        ({"adamw_betas": (0.9, 1.0)}, "adamw_betas"),
        ({"adamw_eps": -1}, "adamw_eps"),
    ],
)
def test_bad_arguments_raise(arguments: Any, name: str) -> None:
    with pytest.raises((ValueError, TypeError), match=rf"Muon: {name}="):
        Muon(parameters((2, 2)), **arguments)


def test_a_vector_cannot_be_a_matrix() -> None:
    with pytest.raises(ArgumentError, match=r"use_muon=True for a parameter of shape \(3,\)"):
        Muon([{"params": parameters((3,)), "use_muon": True}])


def test_sparse_gradients_raise() -> None:
    embedding = nn.Embedding(4, 2, sparse=True)
    optimizer = Muon(embedding.parameters())
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="sparse"):
        optimizer.step()


# ---- in training ----


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
