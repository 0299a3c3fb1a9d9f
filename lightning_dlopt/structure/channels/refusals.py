"""What a run must allow for channels to be removed in it."""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parameter import is_lazy
from torch.optim import LBFGS, Optimizer

from lightning_dlopt.core.checks import owner_name
from lightning_dlopt.core.coverage import in_optimizers
from lightning_dlopt.core.errors import ArgumentTypeError, ConflictError
from lightning_dlopt.core.parameters import check_patterns
from lightning_dlopt.core.step_arguments import takes_iterator
from lightning_dlopt.core.strategies import strategy_kind
from lightning_dlopt.core.technique import Technique, techniques_of


def check_run(
    technique: Technique, trainer: Trainer, pl_module: LightningModule, *, needs_loss: bool
) -> None:
    """Raise a TechniqueError if channels can't be removed in such a run; before optimizers come.

    Args:
        technique: in whose name.
        trainer: the Trainer.
        pl_module: what it trains.
        needs_loss: whether the loss of a training step is needed.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, WeightAveraging | StochasticWeightAveraging):
            raise ConflictError(
                f"{technique!r} and {type(callback).__name__} don't go together: its average keeps "
                "the shapes of the start; use EMA of this package"
            )
    for other in techniques_of(trainer):
        if not other.follows_cuts:
            raise ConflictError(
                f"{technique!r} and {other!r} don't go together: what it keeps has the shapes of "
                "the start; remove one of them"
            )
    if strategy_kind(trainer) not in ("single", "replicated"):
        raise technique.refuse(
            f"{type(trainer.strategy).__name__} shards the weights, and shards keep their size: "
            "use strategy='ddp' or a single device"
        )
    if takes_iterator(pl_module):
        raise technique.refuse(
            "training_step takes the dataloader_iter, and an extra pass would take the next batch "
            "from it: let it take a batch"
        )
    if needs_loss and not pl_module.automatic_optimization:
        raise technique.refuse(
            "under manual optimization the gradient of its loss isn't known: use "
            "importance='magnitude'"
        )


def check_trained(technique: Technique, trainer: Trainer, pl_module: LightningModule) -> None:
    """Raise a TechniqueError if parameters or optimizers can't be cut; before the first step."""
    for name, parameter in pl_module.named_parameters():
        if is_lazy(parameter):
            raise technique.refuse(
                f"{name} is of a lazy layer and has no shape yet: run a batch through the module "
                "before training"
            )
    for optimizer in trainer.optimizers:
        if isinstance(optimizer, LBFGS | ZeroRedundancyOptimizer):
            raise technique.refuse(
                f"{type(optimizer).__name__} keeps all parameters in one piece, from which no "
                "channels can be taken: use another optimizer"
            )
    own, known = {id(p) for p in pl_module.parameters()}, {id(o) for o in trainer.optimizers}
    for part in pl_module.modules():
        for name, value in vars(part).items():
            hidden = isinstance(value, Optimizer) and id(value) not in known
            if hidden and in_optimizers([value]).keys() & own:
                raise technique.refuse(
                    f"{type(part).__name__}.{name} is an optimizer that the Trainer doesn't know "
                    "and that would go on with the old parameters: return it from "
                    "configure_optimizers"
                )


def check_keep(owner: object, keep: Any) -> list[str]:
    """Return the name patterns of layers to keep as a list; there may be none."""
    if isinstance(keep, str) or not isinstance(keep, Sequence):
        raise ArgumentTypeError(f"{owner_name(owner)}: keep={keep!r} must be name patterns")
    return list(check_patterns(owner, "keep", keep)) if keep else []
