"""The tie in files, exports and shards."""

import io
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import AsyncCheckpointIO
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.fsdp import fully_shard

from lightning_dlopt.core import CheckpointError, TechniqueError
from lightning_dlopt.structure import TieParameters, load_from_checkpoint, tie_parameters
from tests.contract.processes import call_on_ranks
from tests.quiet import QUIET
from tests.structure.to_tie import (
    PAIRS,
    WIDTH,
    WORDS,
    Brought,
    LanguageModel,
    batches,
    fit,
    is_tied,
)


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
