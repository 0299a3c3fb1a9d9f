"""Molecules that RDKit ships, with a property that RDKit computes: what chemprop's MPNN takes."""

from pathlib import Path

import numpy
import torch
from chemprop.data import MoleculeDatapoint, MoleculeDataset, build_dataloader
from lightning.pytorch import LightningDataModule
from rdkit import Chem, RDConfig, RDLogger
from rdkit.Chem import Crippen
from torch.utils.data import DataLoader


class Molecules(LightningDataModule):
    """Molecules of the National Cancer Institute's list and their logP (after Crippen)."""

    def __init__(self, train: int = 800, validation: int = 200, batch_size: int = 32) -> None:
        super().__init__()
        self.sizes = (train, validation)
        self.batch_size = batch_size

    def setup(self, stage: str) -> None:
        """Read the data and split it."""
        RDLogger.DisableLog("rdApp.*")
        lines = (Path(RDConfig.RDDataDir) / "NCI" / "first_5K.smi").read_text().splitlines()
        molecules = [Chem.MolFromSmiles(line.split()[0]) for line in lines[: 2 * sum(self.sizes)]]
        molecules = [each for each in molecules if each is not None and each.GetNumBonds()]
        picked = torch.randperm(len(molecules), generator=torch.Generator().manual_seed(0))
        points = [
            MoleculeDatapoint(molecules[i], y=numpy.array([Crippen.MolLogP(molecules[i])]))
            for i in picked[: sum(self.sizes)].tolist()
        ]
        self.train = MoleculeDataset(points[: self.sizes[0]])
        self.validation = MoleculeDataset(points[self.sizes[0] :])
        scaler = self.train.normalize_targets()
        self.validation.normalize_targets(scaler)

    def train_dataloader(self) -> DataLoader:
        """Return shuffled batches."""
        return build_dataloader(self.train, batch_size=self.batch_size)

    def val_dataloader(self) -> DataLoader:
        """Return what is validated on."""
        return build_dataloader(self.validation, batch_size=200, shuffle=False)
