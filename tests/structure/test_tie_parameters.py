"""TieParameters against one tensor that is used twice, and what becomes of the tie afterwards."""

import copy
import io
import pickle
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import AsyncCheckpointIO
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn import functional

from lightning_dlopt.core import ArgumentError, CheckpointError, NoEffectWarning, TechniqueError
from lightning_dlopt.structure import (
    ShareLayers,
    SqueezeExcite,
    StructureMixin,
    TieParameters,
    load_from_checkpoint,
    tie_parameters,
)
from tests.contract.processes import call_on_ranks
from tests.quiet import QUIET

WORDS, WIDTH, BATCHES, RATE = 300, 16, 4, 0.1
PAIRS = [("net.decoder.weight", "net.embedding.weight")]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.decoder = nn.Linear(WIDTH, WORDS)

    def forward(self, words: Tensor) -> Tensor:
        return self.decoder(self.embedding(words).mean(1))  # type: ignore[no-any-return]


def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    draw = [torch.randint(WORDS, (8, 5), generator=generator) for _ in range(BATCHES)]
    return [(words[:, 1:], words[:, 0]) for words in draw]


class LanguageModel(LightningModule):
    """Predicts a word from four others."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = Net()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        words, target = batch
        return functional.cross_entropy(self.net(words), target)

    test_step = training_step

    def train_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(batches(), batch_size=None)  # type: ignore[arg-type]

    test_dataloader = train_dataloader

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=RATE)


class TwoOptimizers(LanguageModel):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        raise AssertionError("no step may be made")

    def configure_optimizers(self) -> Any:
        parts = (self.net.embedding, self.net.decoder)
        return [torch.optim.SGD(part.parameters(), lr=RATE) for part in parts]


class Brought(StructureMixin, LanguageModel):
    pass


def fit(module: LightningModule, *callbacks: Any, **arguments: Any) -> Trainer:
    trainer = Trainer(callbacks=list(callbacks), **{**QUIET, "max_epochs": 2, **arguments})
    trainer.fit(module)
    return trainer


def is_tied(module: Any) -> bool:
    return module.net.decoder.weight is module.net.embedding.weight


def test_it_trains_as_a_loop_over_one_tensor() -> None:
    module = LanguageModel()
    weight = module.net.embedding.weight.detach().clone().requires_grad_()
    bias = module.net.decoder.bias.detach().clone().requires_grad_()
    optimizer = torch.optim.AdamW([weight, bias], lr=RATE)
    for words, target in batches() * 2:
        logits = functional.linear(functional.embedding(words, weight).mean(1), weight, bias)
        optimizer.zero_grad()
        functional.cross_entropy(logits, target).backward()
        optimizer.step()
    trainer = fit(module, TieParameters(PAIRS))
    assert is_tied(module)
    torch.testing.assert_close(module.net.embedding.weight, weight)
    torch.testing.assert_close(module.net.decoder.bias, bias)
    (group,) = trainer.optimizers[0].param_groups
    assert sum(p.numel() for p in group["params"]) == WORDS * WIDTH + WORDS
    assert len(trainer.optimizers[0].state) == 2


def test_files_hold_it_once(tmp_path: Path) -> None:
    def size(*callbacks: Any, **arguments: Any) -> int:
        trainer = fit(LanguageModel(), *callbacks, **arguments)
        trainer.save_checkpoint(path := tmp_path / "some.ckpt", weights_only=True)
        trainer.strategy.teardown()  # ends what saves in the background
        return path.stat().st_size

    one = WORDS * WIDTH * 4
    untied, tied = size(), size(TieParameters(PAIRS))
    assert 0.9 * one < untied - tied <= one
    cloned = size(TieParameters(PAIRS), plugins=[AsyncCheckpointIO()])
    assert cloned - tied > 0.9 * one


@pytest.mark.parametrize("weights_only", [False, True])
def test_a_checkpoint_brings_the_tie_back(tmp_path: Path, weights_only: bool) -> None:
    module = LanguageModel()
    saving = ModelCheckpoint(tmp_path, filename="one", save_weights_only=weights_only)
    fit(module, TieParameters(PAIRS), saving, enable_checkpointing=True)
    for loaded in (
        load_from_checkpoint(LanguageModel, tmp_path / "one.ckpt"),
        Brought.load_from_checkpoint(tmp_path / "one.ckpt", weights_only=True),
    ):
        assert is_tied(loaded)
        assert len(list(loaded.parameters())) == 2
        for name, value in module.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], value)
    # the names are as before, so it loads without this package, too, as two equal tensors
    plain = LanguageModel.load_from_checkpoint(tmp_path / "one.ckpt", weights_only=True)
    assert not is_tied(plain)
    assert torch.equal(plain.net.decoder.weight, module.net.embedding.weight)


def test_it_is_tested_in_a_new_trainer(tmp_path: Path) -> None:
    saving = ModelCheckpoint(tmp_path, filename="one")
    fit(LanguageModel(), TieParameters(PAIRS), saving, enable_checkpointing=True)
    module = LanguageModel()
    Trainer(callbacks=[TieParameters(PAIRS)], **QUIET).test(
        module, ckpt_path=tmp_path / "one.ckpt", verbose=False
    )
    assert is_tied(module)


def test_a_plan_that_does_not_fit_says_so(tmp_path: Path) -> None:
    class Other(LanguageModel):
        def __init__(self) -> None:
            super().__init__()
            self.net.decoder = nn.Linear(WIDTH, 5)

    trainer = fit(LanguageModel(), TieParameters(PAIRS))
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    with pytest.raises(CheckpointError, match=r"TieParameters.*net.decoder.weight.*shapes"):
        load_from_checkpoint(Other, tmp_path / "one.ckpt")


def test_copies_and_a_second_fit_keep_the_tie() -> None:
    module = LanguageModel()
    fit(module, TieParameters(PAIRS))
    kept = module.net.embedding.weight
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert is_tied(twin)
        assert twin.net.decoder.weight is not kept
    fit(module, TieParameters(PAIRS))
    assert is_tied(module)
    assert module.net.embedding.weight is kept
    assert is_tied(module.to(torch.float64))


def test_exports_hold_it_once(tmp_path: Path) -> None:
    module = LanguageModel()
    tie_parameters(module, PAIRS)
    inputs = (batches()[0][0],)
    expected = module.net.eval()(*inputs)
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(module.net, inputs), buffer)
    buffer.seek(0)
    loaded = torch.export.load(buffer)
    assert len({t.data_ptr() for n, t in loaded.state_dict.items() if "weight" in n}) == 1
    assert torch.equal(loaded.module()(*inputs), expected)
    path = tmp_path / "net.onnx"
    torch.onnx.export(module.net, inputs, path, dynamo=True, external_data=False, verbose=False)
    sizes = [list(one.dims) for one in onnx.load(path).graph.initializer]
    assert sizes.count([WORDS, WIDTH]) == 1
    assert [WIDTH, WORDS] not in sizes


def test_ties_of_before_stay_together() -> None:
    net = nn.Sequential(*(nn.Linear(3, 3) for _ in range(4)))
    net[1].weight = net[0].weight
    assert tie_parameters(net, [("0.weight", "2.weight"), ("2.weight", "3.weight")])
    assert len({id(layer.weight) for layer in net}) == 1
    assert tie_parameters(net, [("0.weight", "3.weight")]) == []


def test_parts_that_a_module_holds_twice_and_its_own_parameters() -> None:
    layer = nn.Linear(3, 3)
    net = nn.ModuleList([layer, layer, nn.Linear(3, 3)])
    tie_parameters(net, [("1.weight", "2.weight")])
    assert net[0].weight is net[2].weight
    bare = nn.LayerNorm(3)
    tie_parameters(bare, [("weight", "bias")])
    assert bare.weight is bare.bias


def test_recurrent_layers_compute_with_it() -> None:
    net = nn.ModuleList([nn.LSTM(3, 3), nn.LSTM(3, 3)])
    tie_parameters(net, [(f"1.{n}", f"0.{n}") for n, _ in net[0].named_parameters()])
    inputs = torch.randn(4, 2, 3)
    with torch.no_grad():
        net[0].weight_hh_l0.mul_(2)
    assert torch.equal(net[0](inputs)[0], net[1](inputs)[0])


@pytest.mark.parametrize(
    ("second", "why"),
    [
        (nn.Linear(3, 4), r"their shapes are \(3, 3\) and \(4, 3\)"),
        (nn.Linear(3, 3).double(), r"their dtypes are torch.float32 and torch.float64"),
        (nn.Linear(3, 3).requires_grad_(False), "requires_grad are True and False"),
        (nn.Linear(3, 3, device="meta"), "their devices are cpu and meta"),
        (nn.LazyLinear(3), "1.weight belongs to a lazy module"),
        (nn.Tanh(), "there is no parameter '1.weight'; the module has 0.weight, 0.bias, 2.weight"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_changed(second: nn.Module, why: str) -> None:
    net = nn.Sequential(nn.Linear(3, 3), second, nn.Linear(3, 3))
    before = list(net.parameters())
    with pytest.raises(ArgumentError, match=why):
        tie_parameters(net, [("2.weight", "0.weight"), ("0.weight", "1.weight")])
    assert all(one is other for one, other in zip(net.parameters(), before, strict=True))


def test_frozen_ones_stay_frozen() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)).requires_grad_(False)
    tie_parameters(net, [("1.weight", "0.weight")])
    assert net[1].weight is net[0].weight
    assert not net[1].weight.requires_grad


def test_the_refusal_names_the_technique() -> None:
    with pytest.raises(TechniqueError, match=r"TieParameters\(.*no parameter 'head.weight'"):
        fit(LanguageModel(), TieParameters([("head.weight", "net.embedding.weight")]))


def test_two_optimizers_may_not_step_it() -> None:
    with pytest.raises(TechniqueError, match="which SGD and SGD would both step"):
        fit(TwoOptimizers(), TieParameters(PAIRS))


def test_what_is_replaced_later_is_told() -> None:
    class Replacing(LanguageModel):
        def configure_optimizers(self) -> Any:
            self.net.decoder.weight = nn.Parameter(self.net.decoder.weight.detach().clone())
            return super().configure_optimizers()

    with pytest.raises(TechniqueError, match="aren't one Parameter any more"):
        fit(Replacing(), TieParameters(PAIRS))


def test_it_goes_behind_what_renames_layers(tmp_path: Path) -> None:
    class Convolutions(LanguageModel):
        def __init__(self) -> None:
            super().__init__()
            self.images = nn.ModuleList(nn.Conv2d(4, 4, 1) for _ in range(2))

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            x = torch.ones(1, 4, 2, 2)
            for layer in self.images:
                x = layer(x)
            return x.square().sum()

    excite = SqueezeExcite(min_channels=4, reduction=2)
    with pytest.raises(TechniqueError, match=r"there is no images.1.weight any more"):
        fit(Convolutions(), TieParameters([("images.1.weight", "images.0.weight")]), excite)
    module, sharing = Convolutions(), ShareLayers("images.*")
    tying = TieParameters([("images.0.0.bias", "images.0.1.fc2.bias")])
    trainer = fit(module, excite, sharing, tying)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    loaded: Any = load_from_checkpoint(Convolutions, tmp_path / "one.ckpt")
    for one in (module, loaded):
        assert one.images[1][1].fc1.weight is one.images[0][1].fc1.weight
        assert one.images[1][0].bias is one.images[0][1].fc2.bias
    assert torch.equal(loaded.images[0][0].weight, module.images[0][0].weight)


def test_a_tie_of_the_module_itself_is_no_effect() -> None:
    module = LanguageModel()
    module.net.decoder.weight = module.net.embedding.weight
    with pytest.warns(NoEffectWarning, match="one Parameter already"):
        fit(module, TieParameters(PAIRS))


class Sharded(LanguageModel):
    """Shards its network as a whole, or its layers one by one."""

    one_by_one = False

    def configure_model(self) -> None:
        mesh = self.device_mesh["data_parallel"]
        for part in self.net.children() if self.one_by_one else ():
            fully_shard(part, mesh=mesh)
        fully_shard(self.net, mesh=mesh)


def train_sharded(rank: int, folder: Path) -> None:
    def train(module: LightningModule) -> Trainer:
        strategy = ModelParallelStrategy(2, 1, save_distributed_checkpoint=False)
        settings: dict[str, Any] = {"devices": 2, "use_distributed_sampler": False}
        return fit(module, TieParameters(PAIRS), strategy=strategy, **settings)

    module = Sharded()
    module.one_by_one = True
    with pytest.raises(TechniqueError, match=r"let one group .* have both"):
        train(module)
    train(Sharded()).save_checkpoint(folder / "one.ckpt", weights_only=True)


@pytest.mark.slow
def test_shards_of_one_group_keep_the_tie(tmp_path: Path) -> None:
    call_on_ranks(train_sharded, tmp_path, folder=tmp_path)
    module = LanguageModel()
    fit(module, TieParameters(PAIRS))  # on the same batches that both ranks have
    loaded = load_from_checkpoint(LanguageModel, tmp_path / "one.ckpt")
    assert is_tied(loaded)
    torch.testing.assert_close(loaded.state_dict(), module.state_dict())
