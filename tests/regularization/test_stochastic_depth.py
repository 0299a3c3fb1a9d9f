"""Stochastic depth against torchvision's, a hand-written mask, and the paper's numbers."""

import copy
import pickle
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from timm.layers import DropPath
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import models, ops

from lightning_dlopt.core import ArgumentError, ConflictError, NoEffectWarning, TechniqueError
from lightning_dlopt.regularization import StochasticDepth, drop_rates, stochastic_depth
from lightning_dlopt.regularization.stochastic_depth import find_branches
from tests.quiet import QUIET

ONES = torch.ones(8, 4)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branch: nn.Module = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class Module(LightningModule):
    """Blocks that double their input; what goes out of each sample tells which were left out."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.scale = nn.Parameter(torch.ones(()))
        self.seen: list[Tensor] = []
        self.validated: list[Tensor] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        out = self.blocks(ONES * self.scale)
        self.seen.append(out.detach())
        return out.sum()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.validated.append(self.blocks(ONES))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def fit(module: Any, *techniques: Any, steps: int = 1, **arguments: Any) -> Any:
    trainer = Trainer(**QUIET, callbacks=list(techniques), max_steps=steps, devices=1, **arguments)
    loader: Any = DataLoader(range(40))  # type: ignore[arg-type]
    trainer.fit(module, loader, loader if arguments.get("limit_val_batches") else None)
    return module


@pytest.mark.parametrize("mode", ["row", "batch"])
@pytest.mark.parametrize("p", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("shape", [(7,), (7, 3), (7, 3, 2, 2)])
def test_is_torchvisions_function_with_another_generator(
    mode: str, p: float, shape: tuple[int, ...]
) -> None:
    x = torch.randn(shape)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        theirs = ops.stochastic_depth(x, p, mode)
    ours = stochastic_depth(x, p, torch.Generator().manual_seed(3), mode)
    assert torch.equal(ours, theirs)


def test_it_draws_from_its_generator_only_and_keeps_the_mean() -> None:
    before = torch.get_rng_state()
    out = stochastic_depth(torch.ones(20000), 0.3, torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), before)
    # the deviation of the mean is sqrt(0.3 / 0.7 / 20000) = 0.0046
    assert float(out.mean()) == pytest.approx(1, abs=0.015)


def test_rates_rise_linearly_as_in_the_paper() -> None:
    # section 3: with p_L = 0.5, (3L - 1) / 4 of L = 54 blocks are active on average
    kept = [1 - rate for rate in drop_rates(54, 0.5)]
    assert sum(kept) == pytest.approx((3 * 54 - 1) / 4)
    assert kept[-1] == 0.5
    assert drop_rates(3, 0.2, "uniform") == [0.2] * 3


@pytest.mark.parametrize("arguments", [("p", 1.5), ("p", "x"), ("mode", "column")])
def test_the_function_checks_its_arguments(arguments: tuple[str, Any]) -> None:
    settings = {"p": 0.5, **dict([arguments])}
    with pytest.raises((ValueError, TypeError), match=rf"stochastic_depth: {arguments[0]}="):
        stochastic_depth(ONES, generator=None, **settings)


def test_each_branch_has_its_rate_and_each_sample_its_draw() -> None:
    module = Module(*[Block() for _ in range(4)])
    fit(module, StochasticDepth(0.8, ["blocks.*.branch"]), steps=40)
    # a sample is multiplied by 1 where the branch is left out, and by 1 + 1 / (1 - p) elsewhere
    factors = [1 + 1 / (1 - 0.2 * (index + 1)) for index in range(4)]
    kept = torch.zeros(4)
    for out in module.seen:
        assert torch.equal(out, out[:, :1].expand(-1, 4)), "not by rows"
        for value in out[:, 0].tolist():
            pattern = min(
                range(16),
                key=lambda bits: abs(
                    value
                    - torch.tensor([f if bits >> i & 1 else 1.0 for i, f in enumerate(factors)])
                    .prod()
                    .item()
                ),
            )
            kept += torch.tensor([pattern >> i & 1 for i in range(4)])
    # 320 draws for each branch
    assert (kept / 320).tolist() == pytest.approx([0.8, 0.6, 0.4, 0.2], abs=0.09)


def test_batch_mode_and_uniform_rates() -> None:
    module = Module(Block(), Block())
    fit(module, StochasticDepth(0.5, ["blocks.*.branch"], "batch", "uniform"), steps=30)
    values = [out.unique() for out in module.seen]
    assert all(len(value) == 1 for value in values)
    assert {float(value) for value in values} == {1.0, 3.0, 9.0}


def test_validation_is_untouched() -> None:
    module = Module(Block(), Block())
    fit(module, StochasticDepth(0.9, ["blocks.*.branch"]), steps=2, limit_val_batches=1)
    assert module.validated
    assert all(torch.equal(out, 4 * ONES) for out in module.validated)


def resnet(block: Any) -> nn.Module:
    network = models.ResNet(block, [2, 1, 1, 1], num_classes=3)
    assert isinstance(network, nn.Module)
    return network


@pytest.mark.parametrize(
    ("block", "norm"),
    [(models.resnet.BasicBlock, "bn2"), (models.resnet.Bottleneck, "bn3")],
)
def test_auto_finds_the_branches_of_a_resnet(block: Any, norm: str) -> None:
    names = [name for name, _ in find_branches(resnet(block))]
    stages = ["layer1.0", "layer1.1", "layer2.0", "layer3.0", "layer4.0"]
    assert names == [f"{stage}.{norm}" for stage in stages]


def test_auto_drops_a_resnets_branches() -> None:
    class Resnet(Module):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            block: Any = self.blocks[0].layer1[0]
            x = torch.randn(16, 64, 4, 4).relu() + 0.1
            self.seen += [x, block(x)]
            return self.seen[1].sum()

    module = fit(Resnet(resnet(models.resnet.BasicBlock)), StochasticDepth(0.9, schedule="uniform"))
    x, out = module.seen
    skipped = [torch.equal(one, other) for one, other in zip(x, out, strict=True)]
    assert 10 <= sum(skipped) <= 16


def test_auto_leaves_a_subclass_with_another_forward_alone() -> None:
    class Other(models.resnet.BasicBlock):  # type: ignore[misc]
        def forward(self, x: Tensor) -> Tensor:
            return x

    assert find_branches(resnet(Other)) == []


@pytest.mark.parametrize(("model", "count"), [("convnext_tiny", 18), ("swin_t", 12)])
def test_auto_finds_torchvisions_own_layers(model: str, count: int) -> None:
    with torch.device("meta"):
        branches = find_branches(models.get_model(model))
    assert len(branches) == count
    assert all(isinstance(branch, ops.StochasticDepth) for _, branch in branches)


@pytest.mark.parametrize("layer", [ops.StochasticDepth(0.25, "batch"), DropPath(0.25)])
def test_a_layer_that_does_it_already_is_replaced_not_doubled(layer: nn.Module) -> None:
    block = Block()
    block.branch = layer
    module = fit(Module(block), StochasticDepth(0.75), steps=20)
    assert {float(value) for out in module.seen for value in out.unique()} == {1.0, 5.0}
    # afterwards it is what it was
    torch.manual_seed(0)
    values = {round(float(layer.train()(ONES[:1]).max()), 3) for _ in range(20)}
    assert values == {0.0, 1.333}


def test_auto_refuses_a_network_without_branches() -> None:
    module = Module(nn.Linear(4, 4))
    with pytest.raises(TechniqueError, match=r"StochasticDepth\(.*'auto' finds no .*blocks\.0"):
        fit(module, StochasticDepth(0.1))
    assert module.seen == []


def test_a_pattern_that_matches_nothing_lists_the_names() -> None:
    with pytest.raises(ArgumentError, match=r"StochasticDepth\(.*'blok\*'; there are .*blocks\.0"):
        fit(Module(Block()), StochasticDepth(0.1, ["blocks.*", "blok*"]))


def test_a_branch_that_returns_no_tensor_is_refused() -> None:
    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    class Takes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pair = Pair()

        def forward(self, x: Tensor) -> Tensor:
            return sum(self.pair(x))  # type: ignore[return-value]

    module = Module(Takes())
    with pytest.raises(TechniqueError, match=r"blocks\.0\.pair returns tuple"):
        fit(module, StochasticDepth(0.1, ["*.pair"]))
    assert module.seen == []


def test_branches_that_are_never_called_are_told_of() -> None:
    class Unused(Module):
        def __init__(self) -> None:
            super().__init__(Block())
            self.unused = nn.Identity()

    with pytest.warns(NoEffectWarning, match=r"called none of the layers .*unused"):
        fit(Unused(), StochasticDepth(0.1, ["unused"]))


def test_two_of_them_share_a_network_but_no_branch() -> None:
    first, second = StochasticDepth(0.5, ["blocks.0.*"]), StochasticDepth(0.6, ["blocks.1.*"])
    module = fit(Module(Block(), Block()), first, second, steps=20)
    found = {round(float(value), 3) for out in module.seen for value in out.unique()}
    assert found == {1.0, 3.0, 3.5, 10.5}
    with pytest.raises(ConflictError, match=r"both work on blocks\.0\.branch"):
        fit(Module(Block(), Block()), first, StochasticDepth(0.1, ["*.branch"]))


def test_a_copy_and_a_pickle_in_mid_training_have_plain_branches() -> None:
    class Copies(Module):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            for twin in (copy.deepcopy(self.blocks), pickle.loads(pickle.dumps(self.blocks))):
                self.validated.append(twin(ONES))
            return super().training_step(batch, batch_idx)

    module = fit(Copies(Block()), StochasticDepth(0.9, ["*.branch"]))
    assert all(torch.equal(out, 2 * ONES) for out in module.validated)
    assert not torch.equal(module.seen[0], 2 * ONES)
    assert vars(module.blocks[0].branch).keys() == vars(nn.Identity()).keys()


def test_layers_made_in_configure_model_are_found() -> None:
    class Late(Module):
        def configure_model(self) -> None:
            self.blocks = nn.Sequential(Block())

    module = fit(Late(), StochasticDepth(0.5, ["blocks.*.branch"]), steps=10)
    assert {float(value) for out in module.seen for value in out.unique()} == {1.0, 3.0}


def test_a_compiled_part_is_dropped_too() -> None:
    module = Module(Block(), Block())
    module.blocks.compile(backend="eager")
    fit(module, StochasticDepth(0.5, ["blocks.*.branch"], schedule="uniform"), steps=10)
    assert {float(value) for out in module.seen for value in out.unique()} == {1.0, 3.0, 9.0}


def test_a_part_that_was_compiled_and_run_before_is_dropped_too() -> None:
    module = Module(Block(), Block())
    module.blocks.compile(backend="eager")
    module.blocks.train()(ONES * module.scale)
    fit(module, StochasticDepth(0.5, ["blocks.*.branch"], schedule="uniform"), steps=10)
    assert {float(value) for out in module.seen for value in out.unique()} == {1.0, 3.0, 9.0}
