"""Where a penalty on the weights would do nothing, or something else."""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from lightning_dlopt.core.named_modules import sparse_embeddings
from lightning_dlopt.core.strategies import strategy_kind


def problem_of_group(optimizer: Optimizer, group: dict[str, Any], *, proximal: bool) -> str | None:
    """Return why the parameters of a param group can't be penalized, if so."""
    kind = type(optimizer).__name__
    if group.get("maximize"):
        return (
            f"{kind} maximizes its objective (maximize=True), and would take a penalty for a "
            "reward: minimize the negative"
        )
    if proximal and "lr" not in group:
        return f"method='proximal' thresholds by the learning rate, and {kind} has none ('lr')"
    if proximal and all(callable(getattr(optimizer, name, None)) for name in ("train", "eval")):
        return (
            f"{kind} steps with other weights than it trains and evaluates (it has train() and "
            "eval()), and computes those anew from its state: what method='proximal' sets to 0 "
            "wouldn't stay 0. Use the form that adds to the gradients, or another optimizer"
        )
    return None


def problem_of_run(
    trainer: Trainer, module: LightningModule, selected: Sequence[Tensor], *, proximal: bool
) -> str | None:
    """Return why the selected parameters can't be penalized in this run, if so."""
    if strategy_kind(trainer) == "other":
        return (
            f"{type(trainer.strategy).__name__} may flatten or hide the parameters: use one "
            "device, DDP or ModelParallelStrategy (FSDP2)"
        )
    if any(not parameter.is_floating_point() for parameter in selected):
        return "a selected parameter isn't real (complex numbers)"
    chosen = {id(parameter) for parameter in selected}
    for name, layer in sparse_embeddings(module):
        if id(layer.weight) in chosen and not proximal:
            return (
                f"{name} gives sparse gradients, and the penalty's gradient is dense: make it "
                "with sparse=False, or name other parameters"
            )
    return None


def problem_of_bare_step(optimizer: Optimizer) -> str:
    """Return what is wrong with a step that Lightning didn't see."""
    return (
        f"{type(optimizer).__name__}.step() was called directly, past Lightning, where nothing is "
        "penalized: in training_step, step what self.optimizers() returns (not "
        "use_pl_optimizer=False); in optimizer_step, the optimizer that is handed in, or call "
        "super().optimizer_step(...)"
    )
