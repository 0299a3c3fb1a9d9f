"""Fashion-MNIST as dictionaries: what torchgeo's tasks take for a batch."""

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from lightning_dlopt.data import FashionMNIST


class ImageDicts(Dataset):
    """Images and labels, one dictionary for each sample."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"image": self.images[index], "label": self.labels[index]}


class FashionDicts(LightningDataModule):
    """The first images of Fashion-MNIST: some to train with, the next ones to validate."""

    def __init__(self, train: int = 1000, validation: int = 500, batch_size: int = 50) -> None:
        super().__init__()
        self.sizes = (train, validation)
        self.batch_size = batch_size

    def setup(self, stage: str) -> None:
        """Read the data and split it."""
        sets = FashionMNIST().read_sets()["train"]
        images, labels = sets.inputs[: sum(self.sizes)], sets.targets[: sum(self.sizes)]
        images = (images.float() / 255 - 0.286) / 0.353
        train = self.sizes[0]
        self.train = ImageDicts(images[:train], labels[:train])
        self.validation = ImageDicts(images[train:], labels[train:])

    def train_dataloader(self) -> DataLoader:
        """Return shuffled batches."""
        return DataLoader(self.train, batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        """Return what is validated on."""
        return DataLoader(self.validation, batch_size=500)
