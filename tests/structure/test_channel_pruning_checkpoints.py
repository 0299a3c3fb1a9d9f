from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_dlopt.core import CheckpointError, TechniqueError
from lightning_dlopt.optimizers import EMA, Lookahead
from lightning_dlopt.structure import StructureMixin, load_from_checkpoint
from tests.contract.run import assert_equal_states, assert_same_training, build, train
from tests.contract.tasks import BATCHES, Task
from tests.quiet import QUIET
from tests.structure.pruned import WIDE, WideModule, prune, widths

#: Removals before the batches 4, 10 and 16 of 18.
STEPWISE: dict[str, Any] = {"speed_up": 3.0, "at": 4, "steps": 3, "every": "1ep"}


def techniques() -> list[Any]:
    return [prune(**STEPWISE), EMA(0.8), Lookahead(k=4)]


def trainer(**arguments: Any) -> Trainer:
    return Trainer(**{**QUIET, "devices": 1, **arguments})


@pytest.mark.parametrize("batch", [3, 4, 5, 9, 10, 13, 16, 17])
def test_a_run_goes_on_bitwise_from_before_between_and_after_the_removals(
    tmp_path: Path, batch: int
) -> None:
    whole = train(WIDE, techniques(), checkpoints=tmp_path)
    after = train(WIDE, techniques(), resume=tmp_path / f"batch={batch}.ckpt")
    assert len(after.batches) == 3 * BATCHES - batch
    assert_same_training(after, whole)


def test_a_run_with_the_gradient_goes_on_bitwise(tmp_path: Path) -> None:
    def technique() -> Any:
        return prune(importance="taylor", at=8)

    whole = train(WIDE, [technique()], checkpoints=tmp_path)
    for batch in (7, 8, 9):
        after = train(WIDE, [technique()], resume=tmp_path / f"batch={batch}.ckpt")
        assert_same_training(after, whole)


def test_a_module_that_was_cut_further_grows_again_to_go_on_from_before(tmp_path: Path) -> None:
    technique = prune(**STEPWISE)
    whole = train(WIDE, [technique], checkpoints=tmp_path)
    again = train(WIDE, [technique], module=whole.module, resume=tmp_path / "batch=5.ckpt")
    assert_same_training(again, whole)


def test_checkpoints_of_every_width_are_loaded_exactly(tmp_path: Path) -> None:
    train(WIDE, [prune(**STEPWISE)], checkpoints=tmp_path)
    seen = []
    for batch in (3, 6, 12, 17):
        path = tmp_path / f"batch={batch}.ckpt"
        module = load_from_checkpoint(WideModule, path)
        assert type(module) is WideModule
        saved = torch.load(path, weights_only=True)["state_dict"]
        assert_equal_states(dict(module.state_dict()), dict(saved), "weights")
        seen.append(widths(module))
    assert seen[0] == (16, 16, 3)
    assert len(set(seen)) == 4


def test_weights_only_checkpoints_give_the_same_outputs(tmp_path: Path) -> None:
    saving = ModelCheckpoint(dirpath=tmp_path, save_weights_only=True, filename="weights")
    module = build(WIDE)
    fit = trainer(callbacks=[prune(), saving], max_epochs=2, enable_checkpointing=True)
    fit.fit(module, WIDE.loader(train=True), WIDE.loader(train=False))
    loaded = load_from_checkpoint(WideModule, tmp_path / "weights.ckpt").eval()
    inputs = torch.randn(5, 6)
    assert float((loaded.net(inputs) - module.eval().net(inputs)).abs().max()) == 0.0


class OwnStructure(StructureMixin, WideModule):  # type: ignore[misc]
    """Brings the technique itself."""


def test_the_mixins_own_loading_rebuilds(tmp_path: Path) -> None:
    module = OwnStructure(structure=prune())
    fit = trainer(max_epochs=1, enable_checkpointing=False)
    fit.fit(module, WIDE.loader(train=True), WIDE.loader(train=False))
    fit.save_checkpoint(tmp_path / "own.ckpt", weights_only=True)
    loaded = OwnStructure.load_from_checkpoint(tmp_path / "own.ckpt", weights_only=True)
    assert widths(loaded) == widths(module) != (16, 16, 3)


def test_an_older_checkpoint_of_larger_shape_is_tested(tmp_path: Path) -> None:
    class Tested(WideModule):
        def test_step(self, batch: Any, batch_idx: int) -> None:
            self.log("test_loss", self.loss(batch))

    whole = train(WIDE, [prune(**STEPWISE)], checkpoints=tmp_path)
    module = Tested()
    tester = trainer(callbacks=[prune(**STEPWISE)])
    for batch in (17, 3, 12, 6):
        path = tmp_path / f"batch={batch}.ckpt"
        found = tester.test(module, WIDE.loader(train=False), ckpt_path=path)[0]["test_loss"]
        loaded = load_from_checkpoint(WideModule, path).eval()
        with torch.no_grad():
            losses = [float(loaded.loss(batch)) for batch in WIDE.loader(train=False)]
        assert found == pytest.approx(sum(losses) / len(losses), rel=1e-5)
        assert widths(module) == widths(loaded)
    assert whole.module is not module


def test_a_checkpoint_needs_no_torch_pruning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(WIDE, [prune(at=0)], checkpoints=tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "torch_pruning", None)
    assert widths(load_from_checkpoint(WideModule, tmp_path / "batch=3.ckpt")) != (16, 16, 3)
    after = train(WIDE, [prune(at=0)], resume=tmp_path / "batch=3.ckpt")
    assert after.error is None


def test_another_pruning_is_no_way_to_go_on(tmp_path: Path) -> None:
    train(WIDE, [prune()], checkpoints=tmp_path)
    path = tmp_path / "batch=9.ckpt"
    outcome = train(WIDE, [prune(speed_up=2.5)], resume=path, keep_error=True)
    assert isinstance(outcome.error, CheckpointError)
    assert repr(prune()) in str(outcome.error)


def test_an_optimizer_that_would_go_on_with_the_old_weights_is_refused(tmp_path: Path) -> None:
    class Keeping(WideModule):
        def __init__(self) -> None:
            super().__init__()
            self.kept = torch.optim.SGD(self.parameters(), lr=0.1)

        def configure_optimizers(self) -> Any:
            return self.kept

    task = Task(Keeping)
    whole = train(task, [prune()], checkpoints=tmp_path)
    for module, batch in ((build(task), 9), (whole.module, 2)):
        path = tmp_path / f"batch={batch}.ckpt"
        outcome = train(task, [prune()], module=module, resume=path, keep_error=True)
        assert isinstance(outcome.error, TechniqueError)
        assert "the optimizer of Keeping was made before" in str(outcome.error)
