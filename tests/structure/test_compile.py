"""Compile against eager execution, and what it compiles."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch._dynamo import register_backend
from torch._dynamo.backends.common import aot_autograd
from torch._inductor.exc import InductorError
from torchmetrics import MeanMetric, Metric

from lightning_dlopt import (
    Compile,
    LowRank,
    MixUp,
    NoEffectWarning,
    SqueezeExcite,
    StochasticDepth,
    TechniqueError,
    compile_parts,
)
from lightning_dlopt.structure.compile import networks
from tests.structure.images import Images, assert_same, fit, loader, trainer_with

pytestmark = pytest.mark.usefixtures("fresh_compiler")

GRAPHS: list[torch.fx.GraphModule] = []


@register_backend(name="noting")
def note_graphs(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
    GRAPHS.append(graph)
    return graph.forward


@register_backend(name="failing")
def fail(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
    raise ValueError("no such instruction\nand more")


def fail_backward(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
    raise InductorError(ValueError("no way back"), None)


register_backend(
    name="failing_backward",
    compiler_fn=aot_autograd(fw_compiler=lambda g, _: g.forward, bw_compiler=fail_backward),
)


@pytest.fixture(autouse=True)
def no_graphs() -> None:
    GRAPHS.clear()


def convolutions() -> list[int]:
    """Return how many convolutions each graph has."""
    return [sum("conv2d" in str(node.target) for node in g.graph.nodes) for g in GRAPHS]


def left_behind(module: nn.Module) -> list[str]:
    return [n for n, part in module.named_modules() if "_compiled_call_impl" in vars(part)]


class Fails(Images):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if batch_idx == 1:
            raise ZeroDivisionError("its own")
        return super().training_step(batch, batch_idx)


class Breaks(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if float(x.sum()) > 0 else x * 3


class Broken(Images):
    def __init__(self) -> None:
        super().__init__()
        self.net.append(Breaks())


def test_it_runs_compiled_and_trains_the_same() -> None:
    compiled = fit(Images(), Compile(backend="noting"))
    assert convolutions() == [3, 3], "one graph for training, and one for validation"
    assert_same(compiled, fit(Images()))


def test_dropout_draws_the_same_and_a_smaller_batch_passes() -> None:
    class Drops(Images):
        def __init__(self) -> None:
            super().__init__()
            self.net.insert(7, nn.Dropout(0.5))

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            x, y = batch
            return super().training_step((x[: 8 - batch_idx], y[: 8 - batch_idx]), batch_idx)

    runs = []
    for techniques in ([], [Compile(backend="noting", dynamic=True)]):
        torch.manual_seed(5)
        runs.append(fit(Drops(), *techniques))
    assert_same(*runs)
    assert 0 < len(GRAPHS) < 4, "a graph for each of three sizes, and one for validation"


@pytest.mark.parametrize("technique", [MixUp(0.4), StochasticDepth(0.5, ["net.2"]), LowRank(2)])
@pytest.mark.parametrize("first", [True, False])
def test_other_techniques_beside_it(technique: Any, first: bool) -> None:
    compiling = Compile(backend="noting")
    pair = [compiling, technique] if first else [technique, compiling]
    assert_same(fit(Images(), *pair), fit(Images(), technique))
    assert GRAPHS


@pytest.mark.parametrize("first", [True, False])
def test_it_comes_after_surgery_wherever_it_is_listed(first: bool) -> None:
    excite = SqueezeExcite(reduction=2, min_channels=8)
    for target, expected in (("all", [7, 7]), (["net.2"], [3, 3]), (["net.2.1"], [2, 2])):
        GRAPHS.clear()
        compiling = Compile(target, backend="noting")
        module = Images()
        weights = fit(module, *([compiling, excite] if first else [excite, compiling]))
        assert convolutions() == expected
        assert_same(weights, fit(Images(), excite))
        assert not left_behind(module)


def test_a_surgery_is_restored_before_it_in_a_test(tmp_path: Path) -> None:
    excite, path = SqueezeExcite(reduction=2, min_channels=8), tmp_path / "last.ckpt"
    module = Images()
    trainer = trainer_with(excite, ModelCheckpoint(tmp_path, filename="last"))
    trainer.fit(module, loader())
    expected = trainer.test(module, loader(), verbose=False)
    compiling = Compile(["net.2.1"], backend="noting")
    tester = trainer_with(compiling, SqueezeExcite(reduction=2, min_channels=8))
    (result,) = tester.test(Images(), loader(), ckpt_path=path, verbose=False)
    assert result["test_loss"] == pytest.approx(expected[0]["test_loss"], rel=1e-6)
    assert convolutions() == [2]


def test_every_stage_runs_compiled_and_none_leaves_anything() -> None:
    module = Images()
    trainer = trainer_with(Compile(backend="noting"))
    for stage in (trainer.fit, trainer.validate, trainer.test, trainer.predict):
        torch.compiler.reset()
        GRAPHS.clear()
        stage(module, loader())  # type: ignore[operator]
        assert GRAPHS
        assert not left_behind(module)
    failing = Fails()
    with pytest.raises(ZeroDivisionError):
        fit(failing, Compile(backend="noting"))
    assert not left_behind(failing)


def test_names_checkpoints_and_copies_are_as_without_it(tmp_path: Path) -> None:
    class Copies(Callback):
        def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            twin = pickle.loads(pickle.dumps(pl_module.net))
            assert not left_behind(twin)
            assert not left_behind(copy.deepcopy(pl_module.net))
            assert left_behind(pl_module) == ["net"]
            assert_same(twin.state_dict(), pl_module.net.state_dict())  # type: ignore[union-attr]

    saving = ModelCheckpoint(tmp_path, filename="last")
    weights = fit(Images(), Compile(backend="noting"), saving, Copies())
    assert list(weights) == list(Images().state_dict())
    loaded = Images.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert_same(dict(loaded.state_dict()), weights)


def test_which_parts_are_compiled() -> None:
    class Own(Metric):
        def __init__(self) -> None:
            super().__init__()
            self.extractor = nn.Linear(2, 2)

        def update(self) -> None: ...

        def compute(self) -> None: ...

    class Many(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
            self.alias = self.body
            self.heads = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.ModuleList([self.body[0]])})
            self.loss, self.mean, self.distance = nn.MSELoss(), MeanMetric(), Own()
            self.scales = nn.ParameterList([nn.Parameter(torch.ones(1))])

    module = Many()
    assert [name for name, _ in networks(module)] == ["body", "heads.a", "heads.b.0"]
    # what lies in another one is compiled with it
    parts = compile_parts(module, backend="noting")
    assert [name for name, _ in parts] == ["body", "heads.a"]
    assert compile_parts(module, backend="noting") == []
    by_name = compile_parts(Many(), ["body.*", "heads.*"], backend="noting")
    assert [name for name, _ in by_name] == ["body.0", "body.1", "heads.a"]


def test_equal_blocks_share_what_is_compiled_and_many_others_are_all_compiled() -> None:
    equal = nn.Sequential(*[nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(12)])
    names = [name for name, _ in compile_parts(equal, ["?", "??"], backend="noting")]
    equal(torch.randn(2, 4))
    # two, since what the first block gets has no gradient
    assert (len(names), len(GRAPHS)) == (12, 2)
    torch.compiler.reset()
    GRAPHS.clear()
    unequal = nn.Sequential(*[nn.Linear(4 + i, 5 + i) for i in range(12)])
    compile_parts(unequal, ["*"], backend="noting")
    unequal(torch.randn(2, 4))
    # torch would stop after eight, with a line in its log
    assert len(GRAPHS) == 12


def test_a_compiler_that_fails_explains_itself() -> None:
    for backend, what, cause in (
        ("failing", r"net can't be compiled \(BackendCompilerFailed: .*no such", "no such instr"),
        ("failing_backward", r"the backward pass can't be compiled", "no way back"),
    ):
        module = Images()
        with pytest.raises(TechniqueError, match=rf"Compile\(backend='{backend}'\): {what}") as e:
            fit(module, Compile(backend=backend))
        assert "\n" not in str(e.value)
        assert cause in str(e.value.__cause__)
        assert not left_behind(module)
    with pytest.raises(TechniqueError, match=r"net can't be compiled .*say fullgraph=False"):
        fit(Broken(), Compile(backend="noting", fullgraph=True))
    assert_same(fit(Broken(), Compile(backend="noting")), fit(Broken()))


def test_what_has_no_effect_and_what_is_wrong() -> None:
    class Bare(Images):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            x = batch[0]
            for layer in self.net:
                x = layer(x)
            return nn.functional.cross_entropy(x, batch[1])

    with pytest.warns(NoEffectWarning, match="none of the parts was called that are compiled: net"):
        fit(Bare(), Compile(backend="noting"))
    compiled = Images()
    compiled.net.compile(backend="noting")
    with pytest.warns(NoEffectWarning, match="no part that has parameters and isn't compiled"):
        fit(compiled, Compile(backend="eager"))
    assert left_behind(compiled) == ["net"], "the user's own"
    with pytest.raises(TechniqueError, match="Images is compiled as a whole already"):
        fit(torch.compile(Images(), backend="noting"), Compile(backend="noting"))  # type: ignore[arg-type]
    module = Images()
    with pytest.raises(TechniqueError, match="no module's name matches 'decoder'"):
        fit(module, Compile(["decoder"], backend="noting"))
    assert not left_behind(module)
    with pytest.raises(ValueError, match=r"mode='fastest'"):
        Compile(mode="fastest")


@pytest.mark.slow
@pytest.mark.filterwarnings("error::lightning_dlopt.core.NoEffectWarning")
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_torchs_own_compilers(backend: str) -> None:
    compiled, eager = fit(Images(), Compile(backend=backend)), fit(Images())
    for name, value in eager.items():
        torch.testing.assert_close(compiled[name], value, rtol=1e-3, atol=1e-4, msg=name)
