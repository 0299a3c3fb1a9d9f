"""scikit-learn's diabetes patients as dictionaries: what lightning-uq-box takes for a batch."""

import torch
from lightning.pytorch import LightningDataModule
from sklearn.datasets import load_diabetes
from torch.utils.data import DataLoader, Dataset


class Patients(Dataset):
    """Ten measurements and the disease's progression a year later, standardized."""

    def __init__(self, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input": self.inputs[index], "target": self.targets[index]}


class Diabetes(LightningDataModule):
    """342 patients to train with, 100 to validate, by a fixed split."""

    def __init__(self, batch_size: int = 32) -> None:
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage: str) -> None:
        """Read the data and split it."""
        inputs, targets = (torch.as_tensor(part).float() for part in load_diabetes(return_X_y=True))
        order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(0))
        inputs, targets = inputs[order], targets[order, None]
        train, validation = slice(0, 342), slice(342, None)
        inputs = (inputs - inputs[train].mean(0)) / inputs[train].std(0)
        targets = (targets - targets[train].mean()) / targets[train].std()
        self.train = Patients(inputs[train], targets[train])
        self.validation = Patients(inputs[validation], targets[validation])

    def train_dataloader(self) -> DataLoader:
        """Return shuffled batches."""
        return DataLoader(self.train, batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        """Return what is validated on."""
        return DataLoader(self.validation, batch_size=100)
