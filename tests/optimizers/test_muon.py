"""Muon, the optimizer, against torch's own classes and the singular value decomposition."""

import copy
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW

from lightning_dlopt import Muon, orthogonalize
from lightning_dlopt.core import ArgumentError
from lightning_dlopt.optimizers.muon import step_scale


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
