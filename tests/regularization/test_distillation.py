import copy
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from lightning_dlopt import Distillation, RegularizationMixin, distillation_loss
from lightning_dlopt.core import CheckpointError, TechniqueError
from tests.quiet import QUIET
from tests.regularization.conftest import (
    CLASSES,
    FEATURES,
    Stranger,
    assert_close_weights,
    fit,
    loader,
    network,
)


def teacher() -> nn.Module:
    """With BatchNorm statistics and dropout, which show whether it is in eval mode."""
    net = network(dropout=0.5)
    with torch.no_grad():
        for _ in range(3):
            net(torch.randn(64, FEATURES, generator=torch.Generator().manual_seed(1)) + 1)
        net[-1].weight.mul_(5)
    return net.train()


def by_hand(temperature: float, weight: float, ignore: int = -100) -> nn.Module:
    """Train as Hinton, Vinyals and Dean describe: cross-entropies with both kinds of targets."""
    module, guide = Stranger(), teacher().eval()
    optimizer = module.configure_optimizers()
    for _ in range(2):
        for x, y in loader():
            logits = module.net(x)
            soft = (guide(x).detach() / temperature).softmax(1)
            kept = y != ignore
            with_soft = -(soft * (logits / temperature).log_softmax(1)).sum(1)[kept].mean()
            hard = functional.cross_entropy(logits, y, ignore_index=ignore)
            loss = (1 - weight) * hard + weight * temperature**2 * with_soft
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return module.net


@pytest.mark.parametrize(("temperature", "weight"), [(1.0, 0.5), (4.0, 0.9), (2.0, 1.0)])
def test_trains_as_a_loop_by_hand(temperature: float, weight: float) -> None:
    module = Stranger()
    fit(module, [Distillation(teacher(), temperature, weight)])
    assert_close_weights(module.net, by_hand(temperature, weight))


def test_ignored_targets_do_not_count() -> None:
    def loss(logits: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(logits, y, ignore_index=1)

    module = Stranger(loss)
    fit(module, [Distillation(teacher(), 2.0, 0.5)])
    assert_close_weights(module.net, by_hand(2.0, 0.5, ignore=1))


def test_the_teacher_is_left_as_it_was() -> None:
    guide = teacher()
    before = copy.deepcopy(guide.state_dict())
    fit(Stranger(), [Distillation(guide, 2.0, 0.5)])
    assert all(torch.equal(v, before[k]) for k, v in guide.state_dict().items())
    assert all(part.training for part in guide.modules())
    assert all(p.requires_grad and p.grad is None for p in guide.parameters())


class Keeps(Callback):
    """Looks at a checkpoint, and at copies, in the middle of training."""

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        trainer.save_checkpoint("middle.ckpt")
        (self.technique,) = [c for c in trainer.callbacks if isinstance(c, Distillation)]
        assert self.technique._running is not None
        self.copied = copy.deepcopy(pl_module)
        self.pickled = pickle.loads(pickle.dumps(self.technique))


class Brings(RegularizationMixin, Stranger):
    pass


def test_the_teacher_is_outside_of_checkpoints_and_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    guide, keeps = teacher(), Keeps()
    module = Brings(regularization=Distillation(guide, 2.0, 0.5))
    fit(module, [keeps], max_epochs=1)
    content = torch.load("middle.ckpt", weights_only=True)
    assert list(content["state_dict"]) == list(Stranger().state_dict())
    (state,) = [v for k, v in content["callbacks"].items() if k.startswith("Distillation")]
    assert state["arguments"]["teacher"] == "torch.nn.modules.container.Sequential"
    assert not any(isinstance(value, Tensor) for value in state.values())
    # copies share the teacher and leave out the one that was running
    (twin,) = keeps.copied._own_techniques
    assert twin is not keeps.technique
    assert twin.teacher is guide
    assert twin._running is keeps.pickled._running is None
    assert set(keeps.pickled.teacher.state_dict()) == set(guide.state_dict())


def save(content: Any, path: Path) -> str:
    torch.save(content, path)
    return str(path)


def test_weights_from_a_checkpoint(tmp_path: Path) -> None:
    weights = {f"network.{k}": v for k, v in teacher().state_dict().items()}
    path = save({"state_dict": weights}, tmp_path / "teacher.ckpt")
    module = Stranger()
    fit(module, [Distillation(network(), 2.0, 0.5, checkpoint=path)])
    assert_close_weights(module.net, by_hand(2.0, 0.5))


def test_a_checkpoint_that_lightning_wrote(tmp_path: Path) -> None:
    trained = Stranger()
    fit(trained).save_checkpoint(tmp_path / "teacher.ckpt")
    path = str(tmp_path / "teacher.ckpt")
    one, two = Stranger(), Stranger()
    fit(one, [Distillation(network(), 2.0, 0.5, checkpoint=path)])
    fit(two, [Distillation(trained.net, 2.0, 0.5)])
    assert_close_weights(one.net, two.net)


def test_a_checkpoint_that_does_not_fit(tmp_path: Path) -> None:
    path = save({"other": torch.ones(1)}, tmp_path / "teacher.ckpt")
    with pytest.raises(CheckpointError, match=r"Distillation\(teacher=.*doesn't hold the weights"):
        fit(Stranger(), [Distillation(network(), 2.0, 0.5, checkpoint=path)])


class Dicts(Stranger):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return super().training_step((batch["tokens"], batch["y"]), batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pass


def fit_dicts(technique: Distillation) -> nn.Module:
    module = Dicts()
    batches = DataLoader([{"tokens": x, "y": y} for x, y in loader()], batch_size=None)
    Trainer(callbacks=[technique], **QUIET, max_epochs=2, devices=1).fit(module, batches)
    return module.net


def test_the_input_is_where_the_user_says() -> None:
    net = fit_dicts(Distillation(teacher(), 2.0, 0.5, input_key="tokens"))
    assert_close_weights(net, by_hand(2.0, 0.5))
    with pytest.raises(TechniqueError, match=r"Distillation.*keys 'tokens', 'y'.*input_key="):
        fit_dicts(Distillation(teacher(), 2.0, 0.5))


class Returns(nn.Module):
    """Returns its logits in another form."""

    def __init__(self, form: Any) -> None:
        super().__init__()
        self.net, self.form = teacher(), form

    def forward(self, x: Tensor) -> Any:
        return self.form(self.net(x))


@pytest.mark.parametrize(
    "form",
    [lambda y: {"logits": y}, lambda y: SimpleNamespace(logits=y), lambda y: y.view(2, 4, CLASSES)],
)
def test_what_a_teacher_may_return(form: Any) -> None:
    module = Stranger()
    fit(module, [Distillation(Returns(form), 2.0, 0.5)])
    assert_close_weights(module.net, by_hand(2.0, 0.5))


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (lambda y: y[:, :2], r"the shape \(8, 2\), the student's \(8, 3\)"),
        (lambda y: y[:4], r"the shape \(4, 3\)"),
        (lambda y: y.T[None], r"the shape \(1, 3, 8\)"),
        (lambda y: (y, y), "must return logits.*not a tuple"),
        (lambda y: {"scores": y}, "must return logits.*not a NoneType"),
        (lambda y: y @ y, r"fails on the batch's input, of shape \(8, 6\) and torch.float32: mat"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_first_step(form: Any, message: str) -> None:
    module = Stranger()
    before = [p.clone() for p in module.net.parameters()]
    with pytest.raises(TechniqueError, match=rf"(?s)Distillation.*{message}"):
        fit(module, [Distillation(Returns(form), 2.0, 0.5)])
    assert all(map(torch.equal, before, module.net.parameters()))


def test_an_error_of_a_teacher_that_has_answered_is_its_own() -> None:
    answers = iter([lambda y: y, lambda y: y @ y])
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        fit(Stranger(), [Distillation(Returns(lambda y: next(answers)(y)), 2.0, 0.5)])


def test_a_teacher_that_cannot_be_copied() -> None:
    with pytest.warns(FutureWarning):
        guide = nn.utils.weight_norm(nn.Linear(FEATURES, CLASSES))
    guide(torch.zeros(1, FEATURES))
    with pytest.raises(TechniqueError, match=r"teacher can't be copied.*remove_weight_norm"):
        fit(Stranger(), [Distillation(guide, 2.0, 0.5)])
    nn.utils.remove_weight_norm(guide)
    fit(Stranger(), [Distillation(guide, 2.0, 0.5)])


class Dtype(nn.Module):
    """Writes down in what it computes."""

    seen: set[torch.dtype] = set()  # noqa: RUF012 - shared by the copies that are run

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        self.seen.add(logits.dtype)
        return logits


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [
        ("bf16-mixed", torch.bfloat16),
        ("32-true", torch.float32),
        ("64-true", torch.float64),
        ("bf16-true", torch.bfloat16),
    ],
)
def test_the_teacher_runs_in_the_same_precision(precision: Any, dtype: torch.dtype) -> None:
    Dtype.seen.clear()
    guide, module = Dtype(), Stranger()
    fit(module, [Distillation(guide, 2.0, 0.5)], precision=precision)
    assert Dtype.seen == {dtype}
    assert guide.net.weight.dtype == torch.float32
    assert all(torch.isfinite(torch.tensor(module.losses)))


def test_the_teacher_is_not_run_where_it_does_not_count() -> None:
    class Counts(nn.Linear):
        runs = 0

        def forward(self, x: Tensor) -> Tensor:
            Counts.runs += 1
            return super().forward(x)

    guide = Counts(FEATURES, CLASSES)
    with pytest.warns(UserWarning, match="weight is 0"):
        fit(Stranger(), [Distillation(guide, 2.0, 0)])
    assert Counts.runs == 0
    fit(Stranger(), [Distillation(guide, 2.0, 0.5)])
    assert Counts.runs == 8  # once in a batch, none in validation


def test_a_lightning_module_can_teach() -> None:
    class Teacher(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = teacher()

        def forward(self, x: Tensor) -> Any:
            return self.net(x)

    module = Stranger()
    fit(module, [Distillation(Teacher(), 2.0, 0.5)])
    assert_close_weights(module.net, by_hand(2.0, 0.5))


def test_the_divergence_vanishes_where_they_agree() -> None:
    logits = torch.randn(4, CLASSES, 2, generator=torch.Generator().manual_seed(0))
    assert float(distillation_loss(logits, logits + 3.0, 2.0).abs().max()) < 1e-5
    assert distillation_loss(logits, logits.flip(0), 2.0).shape == (4, 2)
    with pytest.raises(ValueError, match=r"temperature=0 is not in"):
        distillation_loss(logits, logits, 0)
