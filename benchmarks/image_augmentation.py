"""Augmentation of a batch of 128 images: ours, torchvision, albumentations, kornia.

``python -m benchmarks.image_augmentation`` measures, in interleaved runs, on images in memory:

* flip, rotation, scale and crop by RandomGeometry, then MixUp, against the same distribution by the
  others (see ``benchmarks/image_peers.py``), at 1x28x28, 3x32x32 and 3x224x224. Sides with workers
  and "ours, with its loader" begin with a data set in memory, the other sides with a batch;
* flip and crop alone;
* a small network trained by the stock Trainer with and without them.

The limit is one ``grid_sample`` with a grid that is there already.

Needs ``pip install -e '.[bench]'``.
"""

import argparse
import logging
import warnings
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.image_peers import BATCH, CLASSES, peers
from benchmarks.measuring import interleaved, machine, repeated, spread, table
from benchmarks.training_step import bare_fit
from lightning_dlopt import MixUp, RandomGeometry, TensorLoader
from lightning_dlopt.core.batch_technique import BatchTechnique

#: Images, and how many batches make one measurement: of sides that go image by image, and of those
#: that take a batch at once, so that all are measured for about as long.
SIZES = {(1, 28, 28): (20, 300), (3, 32, 32): (20, 300), (3, 224, 224): (3, 5)}


def geometry(size: int, turns: bool) -> RandomGeometry:
    turned: dict[str, Any] = {"rotation": 10, "scale": (0.9, 1.1)} if turns else {}
    return RandomGeometry(flip=0.5, crop=size // 8, **turned)


def chain(techniques: list[BatchTechnique], batch: Any) -> Any:
    """Return the batch as the Trainer's callbacks change it, each with its own generator."""
    for number, technique in enumerate(techniques):
        batch = technique.change(batch, torch.Generator().manual_seed(number))
    return batch


def ours(
    images: Tensor, labels: Tensor, turns: bool, mixes: bool, batches: int
) -> dict[str, Callable[[], float]]:
    """Return measurements of our techniques on a batch, and behind our loader."""
    techniques = [geometry(images.shape[-1], turns), *([MixUp(0.2)] if mixes else [])]
    loader = TensorLoader(
        images.repeat(2, 1, 1, 1), labels.repeat(2), batch_size=BATCH, shuffle=True
    )

    def epoch() -> None:
        for batch in loader:
            chain(techniques, batch)

    def per_batch() -> float:
        return repeated(epoch, max(batches // 2, 1))() / len(loader)

    return {
        "ours": repeated(lambda: chain(techniques, (images, labels)), batches),
        "ours, with its loader": per_batch,
    }


def limit(images: Tensor, batches: int) -> Callable[[], float]:
    """Return a measurement of the sampling alone."""
    identity = torch.eye(2, 3).expand(len(images), 2, 3)
    grid = functional.affine_grid(identity, list(images.shape), align_corners=False)
    return repeated(lambda: functional.grid_sample(images, grid, align_corners=False), batches)


class Small(LightningModule):
    """A network of two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * 7 * 7, CLASSES),
        )

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        return functional.cross_entropy(self.net(x), y)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)


def training(rounds: int, steps: int) -> str:
    """Return a table of what augmentation adds to a step of training."""
    images, labels = torch.rand(10 * BATCH, 1, 28, 28), torch.randint(CLASSES, (10 * BATCH,))
    loader = TensorLoader(images, labels, batch_size=BATCH, shuffle=True)
    sides = {
        "no augmentation": lambda: bare_fit(Small(), loader, steps),
        "RandomGeometry": lambda: bare_fit(Small(), loader, steps, geometry(28, True)),
        "RandomGeometry and MixUp": lambda: bare_fit(
            Small(), loader, steps, geometry(28, True), MixUp(0.2)
        ),
    }
    times = interleaved(sides, rounds)
    plain = times["no augmentation"]
    rows = ["| training | ms a step | longer |", "| --- | --- | --- |"]
    for name, values in times.items():
        more = [100 * (b / a - 1) for a, b in zip(plain, values, strict=True)]
        rows.append(f"| {name} | {spread([v * 1e3 for v in values])} | {spread(more, 1)} % |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    print(f"\n{machine()}; {options.rounds} rounds; median (least - most)\n")
    for shape, (few, many) in SIZES.items():
        images, labels = torch.rand(BATCH, *shape), torch.arange(BATCH) % CLASSES
        for turns in (True, False):
            sides = {
                **ours(images, labels, turns, turns, many),
                **dict(peers(images, labels, turns=turns, mixes=turns, batches=few, at_once=many)),
                "limit: grid_sample alone": limit(images, many),
            }
            what = "flip, rotation, scale, crop, MixUp" if turns else "flip and crop"
            print(f"{'x'.join(map(str, shape))}: {what}\n")
            times = interleaved(sides, options.rounds)
            print(table(times, "torchvision v2, 2 workers", "ms a batch", 1e3))
            for peer in ("albumentations, 2 workers", "albumentations, bare loop", "kornia"):
                pairs = zip(times[peer], times["ours"], strict=True)
                print(f"\nours against {peer}: {spread([slow / fast for slow, fast in pairs])}")
            print(flush=True)
    print(training(options.rounds, options.steps))


if __name__ == "__main__":
    main()
