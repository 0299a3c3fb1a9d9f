"""Removing channels between two steps: of the module, its optimizers, and all that follows."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lightning_dlopt.core.errors import TechniqueError
from lightning_dlopt.core.replaced import Replaced
from lightning_dlopt.core.strategies import wrap_again
from lightning_dlopt.core.technique import Technique, techniques_of
from lightning_dlopt.structure.channels.choose import Shrinkage, choose_channels, shrink_
from lightning_dlopt.structure.channels.recorded_calls import Call, extra_step, run_calls
from lightning_dlopt.structure.summaries.multiply_adds import count_multiply_adds

#: What each parameter's gradient is.
Gradients: TypeAlias = Sequence[tuple[nn.Parameter, Tensor]]


def choose_together(
    trainer: Trainer,
    pl_module: LightningModule,
    calls: list[Call],
    gradients: Gradients,
    **options: Any,
) -> Shrinkage:
    """Return what to remove, the same on every rank.

    Args:
        trainer: the Trainer.
        pl_module: the module; it stays as it is.
        calls: what its parts are called with.
        gradients: what the parameters have for gradients meanwhile.
        **options: for :func:`choose_channels`.

    Raises:
        ArgumentError, TechniqueError: if it can't be done.
    """
    before = [(parameter, parameter.grad) for parameter, _ in gradients]
    run = run_calls(calls, trainer.precision_plugin.train_step_context)
    try:
        for parameter, gradient in gradients:
            parameter.grad = gradient
        shrinkage = choose_channels(pl_module, run, **options)
    finally:
        for parameter, old in before:
            parameter.grad = old
    # every rank has decided, as layers that speak with other ranks may be among the calls
    chosen: Shrinkage = trainer.strategy.broadcast(shrinkage)
    return chosen


def cut_channels(
    technique: Technique, trainer: Trainer, pl_module: LightningModule, shrinkage: Shrinkage
) -> None:
    """Remove channels from a module in training, in place.

    Raises:
        TechniqueError: if an optimizer's state can't be cut; nothing is changed then.
    """
    replaced = Replaced(pl_module, shrinkage.kept)
    try:
        replaced.check_state(trainer.optimizers)
    except TechniqueError as error:
        raise technique.refuse(str(error)) from error
    replaced.add(shrink_(pl_module, shrinkage).items())
    for optimizer in trainer.optimizers:
        replaced.replace_in(optimizer)
    wrap_again(trainer)
    for other in techniques_of(trainer):
        other.parameters_replaced(trainer, pl_module, replaced)


def gradients_of(
    trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
) -> Gradients | None:
    """Return the gradient of a training step's loss, averaged over ranks, by an extra pass.

    None if the step has no loss on this batch.
    """
    parameters = [p for p in pl_module.parameters() if p.requires_grad]
    with extra_step(trainer, pl_module) as step:
        output = step(batch, batch_idx)
        loss = output.get("loss") if isinstance(output, dict) else output
        if loss is None:
            return None
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
    gradients = [
        torch.zeros_like(p) if gradient is None else gradient.detach()
        for p, gradient in zip(parameters, found, strict=True)
    ]
    if trainer.world_size > 1:
        gradients = [trainer.strategy.reduce(gradient) for gradient in gradients]
    return list(zip(parameters, gradients, strict=True))


def costs(trainer: Trainer, pl_module: LightningModule, calls: list[Call]) -> dict[str, int]:
    """Return the multiply-adds of the calls and the number of parameters."""
    context = trainer.precision_plugin.train_step_context

    class Calls(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = pl_module

        def forward(self) -> list[Tensor]:
            return run_calls(calls, context)(self.module)

    return {
        "multiply_adds": count_multiply_adds(Calls(), ()),
        "parameters": sum(parameter.numel() for parameter in pl_module.parameters()),
    }


def reversed_plan(plan: dict[str, Any]) -> dict[str, Any]:
    """Return the plan that undoes a plan."""
    parts = {
        part: {key: [now, before] for key, (before, now) in attributes.items()}
        for part, attributes in plan["parts"].items()
    }
    tensors = {name: [now, before] for name, (before, now) in plan["tensors"].items()}
    return {"parts": parts, "tensors": tensors}
