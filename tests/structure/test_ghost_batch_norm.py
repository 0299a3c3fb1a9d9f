"""Ghost batch normalization against torch's own layer, called with one group after the other."""

import copy
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_dlopt import GhostBatchNorm, ghost_batch_norm
from lightning_dlopt.core import ArgumentError, NoEffectWarning, TechniqueError
from tests.quiet import QUIET

SHAPES = {nn.BatchNorm1d: (5,), nn.BatchNorm2d: (5, 4, 3), nn.BatchNorm3d: (5, 2, 3, 2)}


def dealt(x: Tensor, size: int) -> list[Tensor]:
    """Return the groups: dealt out like cards, and those left over in the last."""
    count, rest = divmod(len(x), size)
    if not rest:
        return [x[group::count] for group in range(count)]
    cut = (count - 1) * size
    return [*(x[:cut][group :: count - 1] for group in range(count - 1)), x[cut:]]


def undealt(groups: list[Tensor], size: int) -> Tensor:
    """Put the groups' samples back in the batch's order."""
    total = sum(len(group) for group in groups)
    result = torch.empty(total, *groups[0].shape[1:], dtype=groups[0].dtype)
    places = dealt(torch.arange(total), size)
    for place, group in zip(places, groups, strict=True):
        result = result.index_put((place,), group)
    return result


def filled(layer: Any) -> Any:
    """Give a layer weights and statistics that aren't its first ones."""
    generator = torch.Generator().manual_seed(3)
    for tensor in [*layer.parameters(), *layer.buffers()]:
        if tensor.is_floating_point():
            tensor.data.uniform_(0.5, 1.5, generator=generator)
    return layer


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("samples", [12, 14, 15])  # in 3, 3 and 3 groups of 4
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"momentum": 0.3, "eps": 0.1},
        {"momentum": None},
        {"affine": False},
        {"track_running_stats": False},
    ],
    ids=str,
)
def test_is_torchs_layer_on_one_group_after_the_other(
    kind: Any, samples: int, settings: dict[str, Any]
) -> None:
    by_hand = filled(kind(5, dtype=torch.float64, **settings))
    ghost = copy.deepcopy(by_hand)
    assert ghost_batch_norm(ghost, 4) == [""]
    for seed in range(3):  # the running statistics of a few batches
        torch_generator = torch.Generator().manual_seed(seed)
        x = torch.randn(samples, *SHAPES[kind], dtype=torch.float64, generator=torch_generator) + 2
        left, right = x.clone().requires_grad_(), x.clone().requires_grad_()
        expected = undealt([by_hand(group) for group in dealt(left, 4)], 4)
        output = ghost(right)
        torch.testing.assert_close(output, expected)
        torch.testing.assert_close(ghost.state_dict(), by_hand.state_dict())
        for layer, result in ((by_hand, expected), (ghost, output)):
            layer.zero_grad()
            (result**3).sum().backward()
        torch.testing.assert_close(right.grad, left.grad)
        for mine, theirs in zip(ghost.parameters(), by_hand.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, theirs.grad)
    by_hand.load_state_dict(ghost.state_dict())
    assert torch.equal(ghost.eval()(x), by_hand.eval()(x))


@pytest.mark.parametrize("samples", [1, 3, 4, 7])
def test_a_batch_without_two_groups_is_torchs_own(samples: int) -> None:
    plain = filled(nn.BatchNorm2d(5))
    ghost = copy.deepcopy(plain)
    ghost_batch_norm(ghost, 4)
    x = torch.randn(samples, 5, 3, 3)
    assert torch.equal(ghost(x), plain(x))
    assert all(map(torch.equal, ghost.state_dict().values(), plain.state_dict().values()))


def test_signals_and_the_number_of_axes() -> None:
    plain = filled(nn.BatchNorm1d(5))
    ghost = copy.deepcopy(plain)
    ghost_batch_norm(ghost, 4)
    x = torch.randn(8, 5, 7)
    torch.testing.assert_close(ghost(x), undealt([plain(g) for g in dealt(x, 4)], 4))
    with pytest.raises(ValueError, match="expected 2D or 3D input"):
        ghost(torch.randn(8, 5, 7, 7))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_layouts_and_types_stay(layout: torch.memory_format, dtype: torch.dtype) -> None:
    ghost = nn.BatchNorm2d(5, dtype=dtype)
    ghost_batch_norm(ghost, 4)
    for samples in (8, 11):
        x = torch.randn(samples, 5, 6, 6, dtype=dtype).to(memory_format=layout)
        output = ghost(x)
        assert output.dtype == dtype
        assert output.is_contiguous(memory_format=layout)
        means = torch.stack([g.float().mean((0, 2, 3)) for g in dealt(output, 4)])
        torch.testing.assert_close(means, torch.zeros_like(means), atol=2e-3, rtol=0)


def test_a_half_precision_input_keeps_exact_statistics() -> None:
    ghost, x = nn.BatchNorm2d(5), torch.randn(8, 5, 6, 6).bfloat16()
    ghost_batch_norm(ghost, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert ghost(x).dtype == torch.bfloat16
    one = nn.BatchNorm2d(5)
    for group in dealt(x.float(), 4):
        one(group)
    torch.testing.assert_close(ghost.state_dict(), one.state_dict(), rtol=1e-5, atol=1e-6)


def test_compiled_in_training(fresh_compiler: None) -> None:
    network = nn.Sequential(nn.Conv2d(3, 5, 3), filled(nn.BatchNorm2d(5)))
    ghost_batch_norm(network, 4)
    compiled = torch.compile(copy.deepcopy(network), backend="aot_eager", fullgraph=True)
    for samples in (8, 10, 3):
        x = torch.randn(samples, 3, 6, 6)
        torch.testing.assert_close(compiled(x), network(x))
    names = [name.removeprefix("_orig_mod.") for name in compiled.state_dict()]
    states = dict(zip(names, compiled.state_dict().values(), strict=True))
    torch.testing.assert_close(states, dict(network.state_dict()))


def test_other_classes_stay_as_they_are_which_is_told() -> None:
    network = nn.Sequential(
        nn.BatchNorm2d(3), BatchNormAct2d(3), nn.SyncBatchNorm(3), nn.BatchNorm2d(3)
    )
    network[3].forward = network[3].forward
    with pytest.warns(NoEffectWarning, match=r"1 \(BatchNormAct2d\), 2 \(SyncBatchNorm\), 3 \(B"):
        assert ghost_batch_norm(network, 4) == ["0"]
    assert [type(layer) for layer in network][1:3] == [BatchNormAct2d, nn.SyncBatchNorm]


def test_patterns_choose_and_a_second_time_changes_nothing() -> None:
    network = nn.Sequential(nn.BatchNorm1d(3), nn.Sequential(nn.BatchNorm1d(3)))
    assert ghost_batch_norm(network, 4, ["1.*"]) == ["1.0"]
    assert type(network[0]) is nn.BatchNorm1d
    assert ghost_batch_norm(network, 8) == ["0"]
    assert ghost_batch_norm(network, 16) == []
    assert (network[0].group_size, network[1][0].group_size) == (8, 4)
    with pytest.raises(ArgumentError, match="no module's name matches 'norm'"):
        ghost_batch_norm(network, 4, ["norm"])


@pytest.mark.parametrize("size", [1, 0, 2.5, "32", None])
def test_bad_sizes(size: Any) -> None:
    network = nn.Sequential(nn.BatchNorm1d(3))
    with pytest.raises((ValueError, TypeError), match=f"ghost_batch_norm: size={size!r}"):
        ghost_batch_norm(network, size)
    assert type(network[0]) is nn.BatchNorm1d


class Module(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.net(batch).square().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def fit(size: int, **arguments: Any) -> Module:
    settings: dict[str, Any] = {**QUIET, "devices": 1, "max_epochs": 2, **arguments}
    module, loader = Module(), DataLoader(torch.randn(20, 3), batch_size=8)  # type: ignore[arg-type, var-annotated]
    Trainer(callbacks=[GhostBatchNorm(size)], **settings).fit(module, loader)
    return module


def test_a_size_beyond_the_batches_is_told_once() -> None:
    with pytest.warns(NoEffectWarning, match="no batch had two groups of 8 samples") as told:
        fit(8)
    assert len([one for one in told if one.category is NoEffectWarning]) == 1


@pytest.mark.filterwarnings("error::lightning_dlopt.core.NoEffectWarning")
def test_the_count_of_groups() -> None:
    module = fit(4)
    # batches of 8, 8 and 4 samples make 2, 2 and 1 groups
    assert int(module.net[1].num_batches_tracked) == 2 * 5


def test_a_trainer_that_synchronizes_is_refused() -> None:
    technique, module = GhostBatchNorm(4), Module()
    trainer = Trainer(callbacks=[technique], **QUIET)
    technique.setup(trainer, module, "fit")
    technique.on_fit_start(trainer, module)
    # what strategies do before the model is wrapped; on the CPU torch doesn't wrap such a model
    nn.SyncBatchNorm.convert_sync_batchnorm(module)
    with pytest.raises(TechniqueError, match=r"GhostBatchNorm\(size=4\): .*sync_batchnorm=True"):
        technique.on_fit_start(trainer, module)
