"""What makes runs of one seed a pair."""

import random

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_dlopt.core.randomness import mix_key


class Pairing(Callback):
    """Seeds the global generators anew where the data draw from them; the last of all callbacks.

    So splits and the order of batches are the same in every arm, however much a technique, a
    callback or a larger network has drawn before.

    Args:
        seed: the run's.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Seed what the module draws in its own ``setup``."""
        self._draw_alike(0)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seed what the loaders draw when they are made."""
        self._draw_alike(1)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seed what the loaders draw in the first epoch."""
        self._draw_alike(2)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seed what they draw in this epoch."""
        self._draw_alike(3 + trainer.current_epoch)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seed what new loaders draw when they are made between two epochs."""
        self._draw_alike(-1 - trainer.current_epoch)

    def _draw_alike(self, moment: int) -> None:
        seed = mix_key(self.seed, moment) % 2**32
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - what the user's data draws from
        random.seed(seed)
