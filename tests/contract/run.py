"""One training run of a task with techniques, and all that is to be known of it afterwards."""

import copy
import os
import random
import signal
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from torch import Tensor
from torch.distributed.tensor import DTensor

from lightning_dlopt.core import Technique
from tests.contract.tasks import BATCH, Task
from tests.quiet import QUIET

EPOCHS = 3


@dataclass
class Step:
    """One optimizer step, tensor by tensor: names are the module's, gradients may lack some.

    Attributes:
        raw: the gradients that the loss gave.
        applied: the gradients that the optimizer used.
        before: the optimizer's parameters before its step.
        after: the same after the step and all that techniques do then.
    """

    raw: dict[str, Tensor] = field(default_factory=dict)
    applied: dict[str, Tensor] = field(default_factory=dict)
    before: dict[str, Tensor] = field(default_factory=dict)
    after: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Outcome:
    """What a run left behind, all of it comparable."""

    initial: dict[str, Tensor] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)
    optimizers: list[Any] = field(default_factory=list)
    schedulers: list[Any] = field(default_factory=list)
    rates: list[tuple[float, ...]] = field(default_factory=list)
    gradients: list[float] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    batches: list[float] = field(default_factory=list)
    ended_batches: list[float] = field(default_factory=list)
    compiled: list[str] = field(default_factory=list)
    global_generators: Any = None
    told: list[warnings.WarningMessage] = field(default_factory=list)
    module: Any = None
    own_attributes: set[str] = field(default_factory=set)
    error: BaseException | None = None


def global_generators() -> Any:
    """Return the state of every global generator."""
    return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002


def first_tensor(batch: Any) -> Tensor:
    if isinstance(batch, dict):
        batch = list(batch.values())
    return batch[0] if isinstance(batch, list | tuple) else batch.x


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor with all its shards."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def weights(optimizer: Any, names: dict[int, str]) -> dict[str, Tensor]:
    """Return copies of an optimizer's parameters, by name."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return {names[id(p)]: whole(p.detach()).clone() for p in parameters if id(p) in names}


def gradients(optimizer: Any, names: dict[int, str]) -> dict[str, Tensor]:
    """Return copies of the gradients of an optimizer's parameters, by name."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return {
        names[id(p)]: whole(p.grad.detach()).clone()
        for p in parameters
        if id(p) in names and p.grad is not None
    }


class Recorder(Callback):
    """Writes down what happens; goes last, and changes nothing."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.raw: dict[str, Tensor] = {}
        self.names: dict[int, str] = {}
        self.hooks: list[Any] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        def finish(optimizer: Any, args: Any, kwargs: Any) -> None:
            step, names = self.outcome.steps[-1], self.names
            step.applied, step.after = gradients(optimizer, names), weights(optimizer, names)

        self.outcome.compiled = [
            name for name, part in pl_module.named_modules() if part._compiled_call_impl is not None
        ]
        # registered last, so it sees what other hooks after the step have done
        self.hooks = [one.register_step_post_hook(finish) for one in trainer.optimizers]

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        scale = scaler.get_scale() if scaler is not None else 1.0
        self.raw = {
            name: whole(p.grad.detach()) / scale
            for name, p in pl_module.named_parameters()
            if p.grad is not None
        }

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        state = pl_module.state_dict()
        self.outcome.initial = {name: whole(value).clone() for name, value in state.items()}

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        self.outcome.batches.append(float(first_tensor(batch).double().sum()))

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.outcome.ended_batches.append(float(first_tensor(batch).double().sum()))

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        groups = [group for one in trainer.optimizers for group in one.param_groups]
        self.outcome.rates.append(tuple(float(group["lr"]) for group in groups))
        gradients = [p.grad for g in groups for p in g["params"] if p.grad is not None]
        norms = [whole(gradient.detach().float()).norm() for gradient in gradients]
        self.outcome.gradients.append(float(torch.tensor(norms).norm()))
        # not earlier: FSDP2 has other parameters in the module between forward and backward
        self.names = {id(parameter): name for name, parameter in pl_module.named_parameters()}
        before = weights(optimizer, self.names)
        assert before, "the recorder knows none of the optimizer's parameters"
        self.outcome.steps.append(Step(raw=dict(self.raw), before=before))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        outcome = self.outcome
        outcome.optimizers = copy.deepcopy([one.state_dict() for one in trainer.optimizers])
        outcome.schedulers = [one.scheduler.state_dict() for one in trainer.lr_scheduler_configs]
        outcome.global_generators = global_generators()
        for hook in self.hooks:
            hook.remove()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # not in on_train_end, where a technique that a module brings has its turn after this one
        state = pl_module.state_dict()
        self.outcome.weights = {name: whole(value).clone() for name, value in state.items()}


class StopAtEpochEnd(Callback):
    """Asks the Trainer to stop after an epoch, cleanly."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.should_stop = trainer.should_stop or trainer.current_epoch == self.epoch


class KillAtBatch(Callback):
    """Ends the process at once, as the power failing would."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.fit_loop.total_batch_idx == self.batch:
            os.kill(os.getpid(), signal.SIGKILL)


class SaveEveryBatch(Checkpoint):
    """Writes a checkpoint after every batch, also after those that make no step."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        done = trainer.fit_loop.total_batch_idx + 1
        trainer.save_checkpoint(self.folder / f"batch={done}.ckpt")


def build(task: Task) -> LightningModule:
    """Return a module with the weights that the seed gives."""
    seed_everything(1, verbose=False)
    return task.module()


def train(
    task: Task,
    techniques: Sequence[Technique],
    *,
    module: Any = None,
    batch_size: int = BATCH,
    ranks: tuple[int, int] = (0, 1),
    callbacks: Sequence[Callback] = (),
    checkpoints: Path | None = None,
    resume: Path | None = None,
    keep_error: bool = False,
    **trainer_arguments: Any,
) -> Outcome:
    """Train and return the outcome.

    Args:
        task: what is trained.
        techniques: callbacks under test.
        module: an already built module, possibly compiled; built from the task by default.
        batch_size: samples in a batch of one rank.
        ranks: this process's rank and the number of processes.
        callbacks: further callbacks.
        checkpoints: where a checkpoint is written after every batch; nowhere if None.
        resume: a checkpoint to resume from.
        keep_error: put an exception into the outcome instead of raising it.
        **trainer_arguments: for the Trainer.
    """
    outcome = Outcome()
    module = build(task) if module is None else module
    saving: list[Callback] = []
    if checkpoints is not None:
        saving.append(SaveEveryBatch(checkpoints))
        saving.append(
            ModelCheckpoint(dirpath=checkpoints, filename="epoch-end-{epoch}", save_top_k=-1)
        )
    settings = {**QUIET, "enable_checkpointing": bool(saving), "max_epochs": EPOCHS, "devices": 1}
    with warnings.catch_warnings(record=True) as outcome.told:
        warnings.simplefilter("always")
        trainer = Trainer(
            callbacks=[*techniques, *callbacks, Recorder(outcome), *saving],
            **{**settings, **trainer_arguments},
        )
        rank, world = ranks
        train_loader = task.loader(train=True, batch_size=batch_size, rank=rank, world_size=world)
        val_loader = task.loader(train=False, rank=rank, world_size=world)
        try:
            trainer.fit(module, train_loader, val_loader, ckpt_path=resume)
        except Exception as error:
            outcome.error = error
            if not keep_error:
                raise
    outcome.module = getattr(module, "_orig_mod", module)
    outcome.own_attributes = set(vars(outcome.module))
    return outcome


def assert_equal_states(left: Any, right: Any, what: str) -> None:
    """Compare nested plain data and tensors, bitwise."""
    if isinstance(left, Tensor):
        assert isinstance(right, Tensor), what
        assert torch.equal(left.nan_to_num(7.25), right.nan_to_num(7.25)), f"{what} differs"
    elif isinstance(left, dict):
        assert list(left) == list(right), f"{what}: {list(left)} and {list(right)}"
        for key in left:
            assert_equal_states(left[key], right[key], f"{what}.{key}")
    elif isinstance(left, list | tuple):
        assert len(left) == len(right), what
        for index, pair in enumerate(zip(left, right, strict=True)):
            assert_equal_states(*pair, f"{what}[{index}]")
    else:
        assert left == right, f"{what}: {left} and {right}"


def assert_same_training(left: Outcome, right: Outcome) -> None:
    """Two runs ended with bitwise equal weights, optimizers and schedulers."""
    assert_equal_states(left.weights, right.weights, "weights")
    assert_equal_states(left.optimizers, right.optimizers, "optimizer")
    assert_equal_states(left.schedulers, right.schedulers, "scheduler")


def assert_close_weights(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    """Two runs did the same sums in another order: equal to float32 rounding of a short run."""
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=1e-4, atol=1e-5, msg=name)
