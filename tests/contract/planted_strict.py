"""Bad techniques that a suite which only looks at the module and its weights would pass."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from lightning_dlopt.core import Technique
from tests.contract.planted import FAULTS, PLANTED, DoesNothing, Toy, toy_row, with_gradients
from tests.contract.planted_surgery import SURGERY_FAULTS, SURGERY_PLANTED


def does_nothing(*args: Any) -> None:
    pass


class HasAnEffectThatCannotFail(Toy):
    """Its row's effect finds everything right."""


class EscapesTheRecorder(DoesNothing):
    """Does nothing, with an optimizer that nobody has looked at."""

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        if trainer.global_step == 0:
            for optimizer in trainer.optimizers:
                optimizer._optimizer_step_post_hooks.clear()


class LeavesAHook(Toy):
    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        super().on_train_start(trainer, pl_module)
        pl_module.net.register_forward_hook(does_nothing)


class LeavesASetting(Toy):
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        for part in pl_module.modules():
            if isinstance(part, torch.nn.Dropout):
                part.inplace = True


class LeavesAnOptimizerHook(Toy):
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        for optimizer in trainer.optimizers:
            optimizer.register_step_post_hook(does_nothing)


class ActsInValidation(Toy):
    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.hook = pl_module.net.register_forward_hook(lambda *args: args[2] * 1.1)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.hook.remove()


class RemembersItsLastRun(Toy):
    def prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.runs = getattr(self, "runs", 0) + 1

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        for _ in range(self.runs):
            super().on_before_optimizer_step(trainer, pl_module, optimizer)


class RemembersAnException(Toy):
    crashed = False

    def on_exception(self, *args: Any) -> None:
        super().on_exception(*args)
        self.crashed = True

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        if not self.crashed:
            super().on_before_optimizer_step(trainer, pl_module, optimizer)


class MovesGeneratorsThoughNeutral(Toy):
    """Has leave to draw from a global generator, but not when it does nothing."""

    def on_train_batch_start(self, *args: Any) -> None:
        torch.rand(())


class DriftsApart(Toy):
    """Has leave to differ from one process, but not from rank to rank."""

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        for parameter in with_gradients(optimizer):
            parameter.grad.add_(parameter.detach(), alpha=self.strength * (1 + trainer.global_rank))


class WritesToTheBatch(Toy):
    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, *_: Any) -> None:
        self.batch = batch

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.batch[0].mul_(0.5)


#: Each bad technique with the clauses that must catch it, those of ``planted`` among them.
ALL_FAULTS: dict[type[Technique], set[str]] = {
    **FAULTS,
    **SURGERY_FAULTS,
    HasAnEffectThatCannotFail: {"effect_can_fail"},
    EscapesTheRecorder: {"unmodified_modules"},
    LeavesAHook: {"parts_untouched"},
    LeavesASetting: {"parts_untouched"},
    LeavesAnOptimizerHook: {"parts_untouched"},
    ActsInValidation: {"validation_is_plain"},
    RemembersItsLastRun: {"reused"},
    RemembersAnException: {"reused"},
    MovesGeneratorsThoughNeutral: {"useless_is_baseline"},
    DriftsApart: {"two_processes"},
    WritesToTheBatch: {"batches_stay"},
}

ALL_PLANTED = {
    **PLANTED,
    **SURGERY_PLANTED,
    **{
        cls.__name__: toy_row(cls)
        for cls in ALL_FAULTS
        if issubclass(cls, Toy) and cls not in FAULTS
    },
    "HasAnEffectThatCannotFail": toy_row(HasAnEffectThatCannotFail, effect=does_nothing),
    "MovesGeneratorsThoughNeutral": toy_row(
        MovesGeneratorsThoughNeutral, differs={"own_randomness": "it draws from torch's generator"}
    ),
    "DriftsApart": toy_row(
        DriftsApart,
        effect=does_nothing,
        differs={"two_processes": "it says that ranks have draws of their own"},
    ),
}
