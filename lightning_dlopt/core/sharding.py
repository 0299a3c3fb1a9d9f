"""Whether a strategy gives each process only a part of every parameter."""

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy


def shards_parameters(trainer: Trainer) -> bool:
    """Return whether the Trainer's strategy may split parameters among processes.

    Example:
        >>> shards_parameters(Trainer(accelerator="cpu", logger=False))
        False
    """
    kinds = (FSDPStrategy, ModelParallelStrategy, DeepSpeedStrategy)
    return isinstance(trainer.strategy, kinds)
