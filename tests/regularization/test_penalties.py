"""The plain functions, against autograd and a formula written by hand."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lightning_dlopt.regularization import (
    add_elastic_net_gradient_,
    elastic_net_penalty,
    soft_threshold_,
    zero_share,
)
from lightning_dlopt.regularization.tensor_groups import CHUNK, LARGE, Workspace

SHAPES = [(3, 4), (), (LARGE,), (CHUNK + 5,), (0, 2), (7, 1), (2 * LARGE - 1,), (4, 16, 32, 32)]


def tensors(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(1)
    made = [torch.randn(shape, generator=generator) for shape in SHAPES]
    made[-1] = made[-1].to(memory_format=torch.channels_last)
    made.append(torch.randn(300, 200, generator=generator).t())  # in no order that can be flattened
    for tensor in made:
        if tensor.dim():
            tensor[::3] = 0.0
    return [nn.Parameter(tensor.to(dtype)) for tensor in made]


def with_gradients(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    made = tensors(dtype)
    for index, parameter in enumerate(made):
        generator = torch.Generator().manual_seed(index)
        gradient = torch.randn(parameter.shape, generator=generator).to(dtype)
        parameter.grad = torch.empty_like(parameter).copy_(gradient)  # in the parameter's order
    made[0].grad = None
    return made


WORKSPACES: list[Callable[[], Workspace | None]] = [lambda: None, Workspace]


@pytest.mark.parametrize("workspace", WORKSPACES)
@pytest.mark.parametrize(("l1", "l2"), [(0.3, 0.0), (0.0, 0.2), (0.3, 0.2), (0.0, 0.0)])
def test_the_gradient_is_autograds(
    l1: float, l2: float, workspace: Callable[[], Workspace | None]
) -> None:
    ours, theirs, space = with_gradients(), with_gradients(), workspace()
    for _ in range(2):  # what a workspace keeps is used the second time
        add_elastic_net_gradient_([*ours, ours[2]], l1, l2, workspace=space)
        penalty = elastic_net_penalty([*theirs, theirs[2]], l1, l2)
        if penalty.requires_grad:
            penalty.backward()
    for left, right in zip(ours, theirs, strict=True):
        assert (left.grad is None) == (right.grad is None)
        if left.grad is not None and right.grad is not None:
            torch.testing.assert_close(left.grad, right.grad, rtol=1e-6, atol=1e-6)


def test_the_value_is_the_formula() -> None:
    made = tensors(torch.float64)
    expected = sum(0.3 * abs(w) + 0.2 * w * w for p in made for w in p.flatten().tolist())
    assert elastic_net_penalty(made, 0.3, 0.2).item() == pytest.approx(expected, rel=1e-12)
    assert elastic_net_penalty([], 0.3, 0.2).item() == 0


def test_half_precision_is_summed_in_float32() -> None:
    w = nn.Parameter(torch.ones(5000, dtype=torch.bfloat16))
    assert elastic_net_penalty([w], 1.0, 1.0).item() == 10_000


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("workspace", WORKSPACES)
@pytest.mark.parametrize(("threshold", "scale"), [(0.5, 1.0), (0.5, 0.75), (0.0, 0.5), (0.0, 1.0)])
def test_the_threshold_is_the_formula(
    threshold: float,
    scale: float,
    workspace: Callable[[], Workspace | None],
    dtype: torch.dtype,
) -> None:
    ours, before, space = tensors(dtype), tensors(dtype), workspace()
    soft_threshold_([*ours, ours[2]], threshold, scale, workspace=space)
    for left, right in zip(ours, before, strict=True):
        w = right.detach()
        expected = scale * w.sign() * (w.abs() - threshold).clamp(min=0)
        torch.testing.assert_close(left.detach(), expected)
        if threshold:
            assert torch.equal(left == 0, w.abs() <= threshold)


def test_it_solves_the_proximal_problem() -> None:
    # the minimum of (x - w)**2 / (2 t) + l1 |x| + l2 x**2, found on a grid
    w, t, l1, l2 = torch.linspace(-2, 2, 41, dtype=torch.float64), 0.3, 1.5, 0.7
    grid = torch.linspace(-2, 2, 40_001, dtype=torch.float64)
    x = grid[:, None]
    objective = (x - w) ** 2 / (2 * t) + l1 * x.abs() + l2 * x**2
    ours = nn.Parameter(w.clone())
    soft_threshold_([ours], t * l1, 1 / (1 + 2 * t * l2))
    torch.testing.assert_close(ours.detach(), grid[objective.argmin(0)], rtol=0, atol=2e-4)


@pytest.mark.parametrize("size", [3, LARGE])
def test_nan_is_not_hidden(size: int) -> None:
    w = nn.Parameter(torch.full((size,), torch.nan))
    add_elastic_net_gradient_([w], 0.5, 0.5)
    assert w.grad is not None
    assert w.grad.isnan().all()
    soft_threshold_([w], 0.5, 0.5)
    assert w.isnan().all()
    soft_threshold_([w], 0.5, workspace=Workspace())
    assert w.isnan().all()


def test_tensors_that_are_not_trained() -> None:
    w = torch.ones(3)
    add_elastic_net_gradient_([w], 1.0, 1.0)
    assert w.grad is None
    assert elastic_net_penalty([w], 1.0, 1.0).item() == 6
    soft_threshold_([w], 0.25)
    assert torch.equal(w, torch.full((3,), 0.75))


def test_a_workspace_follows_another_list_of_tensors() -> None:
    space = Workspace()
    for shape in ((2, 3), (3, 2), (5,)):
        w = nn.Parameter(torch.ones(shape))
        add_elastic_net_gradient_([w], 1.0, 0.5, workspace=space)
        assert torch.equal(w.grad, torch.full(shape, 2.0))  # type: ignore[arg-type]


def test_sparse_gradients_are_refused_before_anything_is_changed() -> None:
    dense, table = nn.Parameter(torch.ones(2)), nn.Embedding(4, 2, sparse=True)
    dense.grad = torch.zeros(2)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match="sparse"):
        add_elastic_net_gradient_([dense, table.weight], 1.0, 0.0)
    assert torch.equal(dense.grad, torch.zeros(2))


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("function", [elastic_net_penalty, add_elastic_net_gradient_])
def test_bad_strengths_are_refused(function: Callable[..., object], bad: float) -> None:
    with pytest.raises(ValueError, match="l1"):
        function([], bad, 0.0)
    with pytest.raises(ValueError, match="l2"):
        function([], 0.0, bad)


def test_bad_thresholds_are_refused() -> None:
    with pytest.raises(ValueError, match="threshold"):
        soft_threshold_([], -1.0)
    with pytest.raises(ValueError, match="scale"):
        soft_threshold_([], 1.0, 1.5)


def test_the_share_of_zeros() -> None:
    w: Tensor = torch.tensor([0.0, 1.0, -0.0, torch.nan])
    assert zero_share([w, w, torch.zeros(4)]).item() == 0.75
    assert zero_share([]).item() == 0


@pytest.mark.slow
def test_the_compiled_kernels_are_the_same() -> None:
    ours, theirs = with_gradients(), with_gradients()
    add_elastic_net_gradient_(ours, 0.3, 0.2, compiled=True)
    add_elastic_net_gradient_(theirs, 0.3, 0.2)
    soft_threshold_(ours, 0.5, 0.75, compiled=True)
    soft_threshold_(theirs, 0.5, 0.75)
    for left, right in zip(ours, theirs, strict=True):
        torch.testing.assert_close(left.grad, right.grad, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(left, right, rtol=1e-6, atol=1e-6)
        assert torch.equal(left == 0, right == 0)
    w = nn.Parameter(torch.full((LARGE,), torch.nan))
    soft_threshold_([w], 0.5, compiled=True)
    assert w.isnan().all()
