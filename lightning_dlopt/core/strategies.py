"""Which of Lightning's strategies is in use, in the terms that matter to gradients."""

import gc
from typing import Literal, TypeAlias

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, SingleDeviceStrategy
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from torch.nn.parallel import DistributedDataParallel

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


def starts_processes_later(trainer: Trainer) -> bool:
    """Return whether ``fit`` starts the processes that train, and trains in none but those.

    Example:
        >>> starts_processes_later(Trainer(accelerator="cpu", devices=1, logger=False))
        False
    """
    return isinstance(trainer.strategy.launcher, _MultiProcessingLauncher)


def wrap_again(trainer: Trainer) -> None:
    """Let DDP wrap the module anew, after its parameters have been replaced in mid-training.

    DDP reduces the gradients of those parameters that the module had when it was wrapped. The
    first wrapper takes its hooks off the parameters that stayed when it is gone.
    """
    strategy = trainer.strategy
    if isinstance(strategy, DDPStrategy) and isinstance(strategy.model, DistributedDataParallel):
        strategy.model = trainer.lightning_module
        gc.collect()
        strategy.configure_ddp()
