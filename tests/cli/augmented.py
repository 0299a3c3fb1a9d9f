"""Modules, techniques and data for the tests of ``dlopt preview augmentation``."""

from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from lightning_dlopt import ImageClassifier, TensorLoader
from lightning_dlopt.core.batch_technique import BatchTechnique


class Notes(ImageClassifier):
    """Saves the first batch that its training step gets."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if self.global_step == 0:
            torch.save(list(batch), "seen.pt")
        return super().training_step(batch, batch_idx)


class Refuses(ImageClassifier):
    """Can't be built: a preview needs no model."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        raise AssertionError("the model was built")


class Mixes(BatchTechnique):
    """Mixes each image with the one before it."""

    def __init__(self, share: float = 0.64) -> None:
        self.share = share

    def neutral(self) -> str | None:
        return "share is 1" if self.share == 1 else None

    def change(self, batch: Any, generator: torch.Generator) -> Any:
        images, labels = batch
        return self.share * images + (1 - self.share) * images.roll(1, 0), labels

    def label_shares(self, batch: Any, generator: torch.Generator) -> list[dict[int, float]]:
        pairs = zip(batch[1].tolist(), batch[1].roll(1, 0).tolist(), strict=True)
        return [{a: 1.0} if a == b else {a: self.share, b: 1 - self.share} for a, b in pairs]


class RollsTokens(BatchTechnique):
    def neutral(self) -> str | None:
        return None

    def change(self, batch: Any, generator: torch.Generator) -> Any:
        return batch[0].roll(1, 1), batch[1]


class Anything(LightningDataModule):
    """Data of a stranger, of any shape."""

    def __init__(self, shape: list[int], tokens: bool = False) -> None:
        super().__init__()
        inputs = torch.arange(12 * torch.Size(shape).numel()).view(12, *shape)
        self.inputs = inputs if tokens else inputs.float()

    def train_dataloader(self) -> TensorLoader:
        return TensorLoader(self.inputs, torch.arange(12) % 3, batch_size=12)


class Shuffles(LightningDataModule):
    """Data of a stranger in a shuffling loader of torch; sample ``i`` is an image of ``i``.

    Args:
        target: of each of the 64 samples.
        own: whether the loader has a generator of its own, else the global one.
        transformed: whether there is a ``train_transform``.
    """

    def __init__(self, target: Tensor, own: bool = False, transformed: bool = False) -> None:
        super().__init__()
        self.target = target
        self.generator = torch.Generator().manual_seed(1) if own else None
        if transformed:
            self.train_transform = torch.neg

    def _collate(self, samples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        images, target = map(torch.stack, zip(*samples, strict=True))
        transform = getattr(self, "train_transform", None)
        return (images if transform is None else transform(images)), target

    def train_dataloader(self) -> DataLoader[Any]:
        images = torch.arange(64.0).view(64, 1, 1, 1).expand(64, 1, 4, 4)
        return DataLoader(
            TensorDataset(images, self.target),
            batch_size=8,
            shuffle=True,
            generator=self.generator,
            collate_fn=self._collate,
        )
