"""Which of Lightning's strategies is in use, in the terms that matter to gradients."""

from typing import Literal, TypeAlias

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, SingleDeviceStrategy

#: ``"single"``: one process. ``"replicated"``: DDP, every rank has whole gradients.
#: ``"sharded"``: FSDP2, gradients are DTensors. ``"other"``: where ``p.grad`` is something else
#: (flat shards in FSDP1) or not there at all (DeepSpeed).
StrategyKind: TypeAlias = Literal["single", "replicated", "sharded", "other"]


def strategy_kind(trainer: Trainer) -> StrategyKind:
    """Return what the Trainer's strategy does with gradients.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> strategy_kind(Trainer(accelerator="cpu", devices=1, logger=False))
        'single'
    """
    if isinstance(trainer.strategy, SingleDeviceStrategy):
        return "single"
    if (
        isinstance(trainer.strategy, DDPStrategy)
        and not trainer.strategy.handles_gradient_accumulation
    ):
        return "replicated"
    return "sharded" if isinstance(trainer.strategy, ModelParallelStrategy) else "other"
