"""What every technique that changes the model keeps, shown on squeeze-and-excitation."""

import copy
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.nn import functional

from lightning_dlopt import structure
from lightning_dlopt.core import CheckpointError, TechniqueError
from lightning_dlopt.data import TensorLoader
from lightning_dlopt.optimizers import EMA
from lightning_dlopt.structure import BlurPool, SqueezeExcite, StructureMixin
from lightning_dlopt.structure.plan import PLAN_KEY, plan_of
from tests.quiet import QUIET


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    )


class Plain(LightningModule):
    """Knows nothing of this package; counts how often its own hook of saving is called."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()
        self.saved = 0

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return logits

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return functional.cross_entropy(self(batch[0]), batch[1])

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("loss", functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.saved += 1


class BuiltInSetup(Plain):
    def __init__(self) -> None:
        super().__init__()
        del self.net

    def setup(self, stage: str) -> None:
        if not hasattr(self, "net"):
            self.net = network()


class BuiltInConfigureModel(BuiltInSetup):
    def setup(self, stage: str) -> None:
        pass

    def configure_model(self) -> None:
        super().setup("fit")


class MadeItsOptimizer(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.made = torch.optim.SGD(self.parameters(), lr=0.1)

    def configure_optimizers(self) -> Any:
        return self.made


class Brings(StructureMixin, Plain):
    pass


def excite(**arguments: Any) -> SqueezeExcite:
    return SqueezeExcite(**{"min_channels": 8, "reduction": 2, **arguments})


def loader() -> TensorLoader:
    generator = torch.Generator().manual_seed(0)
    return TensorLoader(
        torch.randn(24, 1, 5, 5, generator=generator),
        torch.randint(3, (24,), generator=generator),
        batch_size=8,
    )


def trainer(*callbacks: Any, **arguments: Any) -> Trainer:
    return Trainer(callbacks=list(callbacks), **{**QUIET, "max_epochs": 1, **arguments})


def fitted(module: LightningModule, *callbacks: Any) -> Trainer:
    with_it = trainer(*callbacks)
    with_it.fit(module, loader())
    return with_it


@pytest.mark.parametrize("kind", [Plain, BuiltInSetup, BuiltInConfigureModel])
def test_layers_are_changed_wherever_the_module_makes_them(kind: type[Plain]) -> None:
    module = kind()
    fitted(module, excite())
    assert "net.0.1.fc1.weight" in module.state_dict()


@pytest.mark.parametrize("weights_only", [False, True])
def test_a_checkpoint_is_loaded_into_a_class_that_knows_nothing(
    weights_only: bool, tmp_path: Path
) -> None:
    module = Plain()
    path = tmp_path / "saved.ckpt"
    fitted(module, excite()).save_checkpoint(path, weights_only=weights_only)
    assert module.saved == 1, "the module's own hook of saving is called"
    loaded = structure.load_from_checkpoint(Plain, path)
    assert type(loaded) is Plain
    inputs = loader().inputs
    assert torch.equal(loaded.eval()(inputs), module.eval()(inputs))
    with pytest.raises(RuntimeError):
        Plain.load_from_checkpoint(path)


def test_a_module_with_the_mixin_loads_by_itself(tmp_path: Path) -> None:
    module = Brings(structure=excite())
    fitted(module).save_checkpoint(tmp_path / "saved.ckpt")
    loaded = Brings.load_from_checkpoint(tmp_path / "saved.ckpt", structure=excite())
    inputs = loader().inputs
    assert torch.equal(loaded.eval()(inputs), module.eval()(inputs))
    fitted(loaded)  # and goes on, without a second excitation
    assert loaded.state_dict().keys() == module.state_dict().keys()


def test_the_plan_outlives_the_technique(tmp_path: Path) -> None:
    first = Plain()
    fitted(first, excite())
    for module in (first, copy.deepcopy(first), pickle.loads(pickle.dumps(first))):
        before = module.saved
        fitted(module).save_checkpoint(tmp_path / "saved.ckpt", weights_only=True)
        assert module.saved == before + 1
        assert torch.load(tmp_path / "saved.ckpt", weights_only=True)[PLAN_KEY] == plan_of(module)
        (tmp_path / "saved.ckpt").unlink()


def test_a_copy_saves_its_own_plan(tmp_path: Path) -> None:
    module = Plain()
    fitted(module, excite())
    twin = copy.deepcopy(module)
    fitted(twin).save_checkpoint(tmp_path / "saved.ckpt")
    assert (module.saved, twin.saved) == (0, 1)


def test_training_again_changes_nothing_twice() -> None:
    module, technique = Plain(), excite()
    for _ in range(2):
        fitted(module, technique)
    assert len(plan_of(module)) == 1
    assert len(module.net[0]) == 2


def test_it_is_tested_with_the_structure_that_it_was_trained_with(tmp_path: Path) -> None:
    module = Plain()
    whole = fitted(module, excite())
    whole.save_checkpoint(tmp_path / "saved.ckpt")
    (expected,) = whole.test(module, loader(), verbose=False)
    other = trainer(excite())
    (found,) = other.test(Plain(), loader(), ckpt_path=tmp_path / "saved.ckpt", verbose=False)
    assert found == expected


@pytest.mark.parametrize("techniques", [[], [EMA(0.5)]], ids=["alone", "averaged"])
@pytest.mark.parametrize("weights_only", [False, True])
def test_weights_that_fit_but_mean_something_else_are_refused(
    weights_only: bool, techniques: list[Any], tmp_path: Path
) -> None:
    class Blurring(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.net[0] = nn.Conv2d(1, 8, 3, stride=2)

    module = Blurring()
    inputs, path = loader().inputs, tmp_path / "saved.ckpt"
    # in mid-training the average is not in the module
    every = ModelCheckpoint(tmp_path, "saved", save_weights_only=weights_only)
    arguments = {"enable_checkpointing": True, "max_epochs": 2}
    trainer(BlurPool(min_channels=1), *techniques, every, **arguments).fit(module, loader())
    assert set(plan_of(module)[0]["plan"]["layers"]) == {"net.0"}
    with pytest.raises(RuntimeError, match=r"lightning_dlopt\.load_from_checkpoint"):
        Blurring.load_from_checkpoint(path)
    with pytest.raises(RuntimeError, match=r"lightning_dlopt\.load_from_checkpoint"):
        trainer().test(Blurring(), loader(), ckpt_path=path)
    loaded = structure.load_from_checkpoint(Blurring, path)
    assert torch.equal(loaded.eval()(inputs), module.eval()(inputs))
    trainer().test(module, loader(), ckpt_path=path, verbose=False)  # it is changed already
    if not weights_only:
        again = trainer(BlurPool(min_channels=1), *techniques, max_epochs=3)
        again.fit(Blurring(), loader(), ckpt_path=path)


def test_patches_of_other_techniques_come_off_above_the_plan(tmp_path: Path) -> None:
    module = Plain()
    for callbacks in ([EMA(0.9), excite()], [excite(), EMA(0.9)]):
        fitted(module, *callbacks)
        saver = vars(module)["on_save_checkpoint"]
        assert type(saver).__name__ == "PlanSaver", "a patch was left behind"


def test_a_resume_by_other_changes_is_refused(tmp_path: Path) -> None:
    fitted(Plain(), excite()).save_checkpoint(tmp_path / "saved.ckpt")
    again = trainer(excite(), excite(target=["net.9*", "net.0"], reduction=1), max_epochs=2)
    with pytest.raises(TechniqueError, match=r"net\.9"):
        again.fit(Plain(), loader(), ckpt_path=tmp_path / "saved.ckpt")
    again = trainer(excite(reduction=4), max_epochs=2)
    with pytest.raises(CheckpointError, match="reduction=2"):
        again.fit(Plain(), loader(), ckpt_path=tmp_path / "saved.ckpt")


def test_another_class_is_refused_with_the_layer_named(tmp_path: Path) -> None:
    fitted(Plain(), excite()).save_checkpoint(tmp_path / "saved.ckpt")

    class Other(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(25, 3))

    with pytest.raises(CheckpointError, match=r"'net\.0'.*Flatten"):
        structure.load_from_checkpoint(Other, tmp_path / "saved.ckpt")


def test_a_technique_that_is_not_known_here_is_named(tmp_path: Path) -> None:
    fitted(Plain(), excite()).save_checkpoint(tmp_path / "saved.ckpt")
    checkpoint = torch.load(tmp_path / "saved.ckpt", weights_only=True)
    checkpoint[PLAN_KEY][0]["technique"] = "SomebodyElses"
    torch.save(checkpoint, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match="SomebodyElses"):
        structure.load_from_checkpoint(Plain, tmp_path / "other.ckpt")


@pytest.mark.parametrize("plan", [{"layers": ["net.0"]}, {}, "net.0", None])
def test_a_damaged_plan_is_told(plan: Any, tmp_path: Path) -> None:
    fitted(Plain(), excite()).save_checkpoint(tmp_path / "saved.ckpt")
    checkpoint = torch.load(tmp_path / "saved.ckpt", weights_only=True)
    checkpoint[PLAN_KEY][0]["plan"] = plan
    torch.save(checkpoint, tmp_path / "damaged.ckpt")
    with pytest.raises(CheckpointError, match=r"plan of SqueezeExcite.*can't be followed"):
        structure.load_from_checkpoint(Plain, tmp_path / "damaged.ckpt")


def test_an_optimizer_that_was_made_before_is_refused() -> None:
    with pytest.raises(TechniqueError, match=r"SqueezeExcite.*MadeItsOptimizer"):
        fitted(MadeItsOptimizer(), excite())


def test_a_pattern_that_matches_nothing_leaves_the_model_as_it_was() -> None:
    module = Plain()
    with pytest.raises(TechniqueError, match="conv7"):
        fitted(module, excite(target=["conv7"]))
    assert plan_of(module) == []
    assert "on_save_checkpoint" not in vars(module)


@pytest.mark.parametrize(
    ("strategy", "told"), [("ddp_spawn", True), ("ddp_fork", True), ("ddp", False)]
)
def test_a_module_that_is_left_behind_is_told(strategy: str, told: bool) -> None:
    trainer = Trainer(strategy=strategy, devices=2, **QUIET)
    module, technique = Plain(), SqueezeExcite(min_channels=8)
    technique.setup(trainer, module, "fit")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        technique.on_fit_start(trainer, module)
    assert ["strategy='ddp'" in str(one.message) for one in caught] == [True] * told
