"""A training step of the source example (MLP 784-128-128-10, batch 32) and its loader.

``python -m benchmarks.training_step`` measures, in one interleaved run on real Fashion-MNIST:

* the stock way: stock Trainer, torchvision's data set (PIL, ToTensor), Adam, ``self.log`` of loss
  and accuracy at every step;
* ours: the recipe's module and data under the stock Trainer, with its bar, logger and metrics;
* ours without the bar, a hand-written loop over our loader, and the bare arithmetic (the limit).
"""

import argparse
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from itertools import cycle, islice, pairwise
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassAccuracy
from torchvision import datasets, transforms

from benchmarks.measuring import interleaved, machine, table
from lightning_dlopt import MLP, CosineLR, FashionMNIST, ImageClassifier
from lightning_dlopt.data.idx import read_idx

SIZES = [784, 128, 128, 10]


class StockModule(LightningModule):
    """As tutorials write it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Flatten(),
            nn.Linear(784, 128),
            nn.ReLU(),
            nn.Linear(128, 128),
            nn.ReLU(),
            nn.Linear(128, 10),
        )
        self.accuracy = MulticlassAccuracy(10)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        logits = self.net(x)
        loss = functional.cross_entropy(logits, y)
        self.accuracy(logits, y)
        self.log("train_loss", loss, prog_bar=True)
        self.log("train_accuracy", self.accuracy, prog_bar=True)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters())


class Clock(Callback):
    """Times the steps after the first ones."""

    def __init__(self, warm_up: int) -> None:
        self.warm_up = warm_up
        self.seconds = 0.0

    def on_train_batch_start(self, trainer: Any, *arguments: Any) -> None:
        if trainer.global_step == self.warm_up:
            self.begin = time.perf_counter()

    def on_train_batch_end(self, trainer: Any, *arguments: Any) -> None:
        if trainer.global_step == trainer.max_steps:
            self.seconds = (time.perf_counter() - self.begin) / (trainer.max_steps - self.warm_up)


def torchvision_loader(folder: Path) -> DataLoader[Any]:
    """Return torchvision's data set over the same files, with its usual transform."""
    raw = folder / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train", "t10k"):
        for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"):
            source = Path("/usr/share/datasets/fashion-mnist") / f"{name}-{kind}.gz"
            values = read_idx(source)
            header = [0, 0, 8, values.dim()]
            sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
            (raw / f"{name}-{kind}").write_bytes(bytes(header) + sizes + values.numpy().tobytes())
    to_tensor = transforms.ToTensor()
    return DataLoader(
        datasets.FashionMNIST(str(folder), transform=to_tensor), batch_size=32, shuffle=True
    )


def fit(module: LightningModule, loader: Any, steps: int, folder: Path, **arguments: Any) -> float:
    """Train and return seconds a step."""
    clock = Clock(warm_up=steps // 5)
    settings: dict[str, Any] = {"enable_progress_bar": True, "callbacks": [], **arguments}
    settings["callbacks"] = [*settings["callbacks"], clock]
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        logger=CSVLogger(folder),
        enable_model_summary=False,
        enable_checkpointing=False,
        **settings,
    )
    trainer.fit(module, loader)
    return clock.seconds


def bare_fit(module: LightningModule, loader: Any, steps: int, *callbacks: Callback) -> float:
    """Train without a bar, a logger or checkpoints, and return seconds a step."""
    clock = Clock(warm_up=steps // 5)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[*callbacks, clock],
    )
    trainer.fit(module, loader)
    return clock.seconds


def ours(loader: Any, steps: int, folder: Path, **arguments: Any) -> float:
    """Train the recipe's module with a schedule."""
    return fit(
        ImageClassifier(MLP(SIZES)), loader, steps, folder, callbacks=[CosineLR()], **arguments
    )


def hand_written(loader: Iterable[Any], steps: int) -> float:
    """Return seconds a step of a plain loop with a fused optimizer."""
    network = MLP(SIZES)
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    begin = time.perf_counter()
    for x, y in islice(cycle(loader), steps):
        optimizer.zero_grad()
        functional.cross_entropy(network(x), y).backward()
        optimizer.step()
    return (time.perf_counter() - begin) / steps


def arithmetic(steps: int) -> float:
    """Return seconds for a step's matrix products, forward and backward: the limit."""
    x = torch.randn(32, 784)
    weights = [torch.randn(a, b) for a, b in pairwise(SIZES)]
    inputs = [torch.randn(32, size) for size in SIZES[:-1]]
    outputs = [torch.randn(32, size) for size in SIZES[1:]]
    begin = time.perf_counter()
    for _ in range(steps):
        for a, w, g in zip(inputs, weights, outputs, strict=True):
            a @ w
            a.t() @ g
            if a.shape[1] != x.shape[1]:  # nothing flows back into the images
                g @ w.t()
    return (time.perf_counter() - begin) / steps


def seconds_a_batch(loader: Iterable[Any], batches: int) -> float:
    """Return seconds a batch of a loader alone."""
    begin = time.perf_counter()
    for _ in islice(loader, batches):
        pass
    return (time.perf_counter() - begin) / batches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    steps = options.steps
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stock = torchvision_loader(folder / "torchvision")
        data = FashionMNIST()
        data.prepare_data()
        data.setup()
        loader = data.train_dataloader()
        sides: dict[str, Callable[[], float]] = {
            "stock": lambda: fit(StockModule(), stock, steps, folder, log_every_n_steps=50),
            "ours": lambda: ours(loader, steps, folder, log_every_n_steps=50),
            "ours, no bar": lambda: ours(loader, steps, folder, enable_progress_bar=False),
            "hand-written loop, our loader": lambda: hand_written(loader, steps),
            "bare arithmetic": lambda: arithmetic(steps),
        }
        step_times = interleaved(sides, options.rounds)
        loaders: dict[str, Callable[[], float]] = {
            "torchvision, one sample at a time": lambda: seconds_a_batch(stock, 300),
            "TensorLoader": lambda: seconds_a_batch(loader, 1500),
        }
        loader_times = interleaved(loaders, options.rounds)
    print(f"\n{machine()}; {options.rounds} rounds of {steps} steps; median (least - most)\n")
    print(table(step_times, "stock", "ms a step", 1e3), "\n")
    print(table(loader_times, "torchvision, one sample at a time", "ms a batch", 1e3))


if __name__ == "__main__":
    main()
