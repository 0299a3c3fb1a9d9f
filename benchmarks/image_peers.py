"""How torchvision, albumentations and kornia augment a batch of images.

Each gets the same distribution: a flip of half of the images, a rotation of up to 10 degrees and
a scale of 0.9 to 1.1 where ``turns``, a shift of up to an eighth of the side; black outside.
Batches are mixed by torchvision's MixUp where ``mixes``, for every peer.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import albumentations
import cv2
import kornia.augmentation
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision.transforms import v2

BATCH = 128
CLASSES = 10


class Mixed:
    """Collates samples and mixes the batch."""

    def __init__(self, mixes: bool) -> None:
        self.mix = v2.MixUp(alpha=0.2, num_classes=CLASSES) if mixes else None

    def __call__(self, samples: list[Any]) -> Any:
        return self.of_batch(*default_collate(samples))

    def of_batch(self, images: Tensor, labels: Tensor) -> Any:
        return (images, labels) if self.mix is None else self.mix(images, labels)


class Samples(Dataset[Any]):
    """Images that are transformed one by one; there are as many as several batches need."""

    def __init__(self, images: Any, transform: Callable[[Any], Tensor], batches: int) -> None:
        self.images, self.transform, self.length = images, transform, batches * BATCH

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index % len(self.images)]), index % CLASSES


class AlbumentationsTransform:
    """Its Compose as a function of one image ``(H, W, C)``."""

    def __init__(self, size: int, turns: bool) -> None:
        affine = albumentations.Affine(
            rotate=(-10, 10),
            scale=(0.9, 1.1),
            keep_ratio=True,
            interpolation=cv2.INTER_LINEAR,
            p=1.0,
        )
        padded = size + 2 * (size // 8)
        self.compose = albumentations.Compose(
            [
                *([affine] if turns else []),
                albumentations.HorizontalFlip(p=0.5),
                albumentations.PadIfNeeded(padded, padded),
                albumentations.RandomCrop(size, size),
                albumentations.ToTensorV2(),
            ]
        )

    def __call__(self, image: Any) -> Tensor:
        moved: Tensor = self.compose(image=image)["image"]
        return moved


def torchvision_transform(size: int, turns: bool) -> Callable[[Any], Tensor]:
    affine = v2.RandomAffine(10, scale=(0.9, 1.1), interpolation=v2.InterpolationMode.BILINEAR)
    return v2.Compose(
        [
            *([affine] if turns else []),
            v2.RandomHorizontalFlip(0.5),
            v2.RandomCrop(size, padding=size // 8),
        ]
    )


def kornia_transform(size: int, turns: bool) -> Callable[[Tensor], Tensor]:
    affine = kornia.augmentation.RandomAffine(10.0, scale=(0.9, 1.1), p=1.0)
    return kornia.augmentation.AugmentationSequential(
        *([affine] if turns else []),
        kornia.augmentation.RandomHorizontalFlip(p=0.5),
        kornia.augmentation.RandomCrop((size, size), padding=size // 8),
    )


def seconds_a_batch(loader: DataLoader[Any]) -> float:
    """Return seconds a batch of one epoch; no worker computes anything before or after."""
    begin = time.perf_counter()
    batches = sum(1 for _ in loader)
    return (time.perf_counter() - begin) / batches


def peers(
    images: Tensor, labels: Tensor, *, turns: bool, mixes: bool, batches: int, at_once: int
) -> Iterator[tuple[str, Callable[[], float]]]:
    """Give each peer's name and measurement of seconds a batch."""
    size, collate = images.shape[-1], Mixed(mixes)
    arrays = images.permute(0, 2, 3, 1).contiguous().numpy()
    per_sample: dict[str, tuple[Any, Callable[[Any], Tensor]]] = {
        "torchvision v2": (images, torchvision_transform(size, turns)),
        "albumentations": (arrays, AlbumentationsTransform(size, turns)),
    }
    for name, (source, transform) in per_sample.items():
        samples = Samples(source, transform, batches)
        for workers in (2, 0):
            loader = DataLoader(
                samples,
                BATCH,
                num_workers=workers,
                persistent_workers=workers > 0,
                collate_fn=collate,
            )
            yield f"{name}, {workers} workers", lambda loader=loader: seconds_a_batch(loader)

    def loop() -> float:
        transform = per_sample["albumentations"][1]
        begin = time.perf_counter()
        collate.of_batch(torch.stack([transform(image) for image in arrays]), labels)
        return time.perf_counter() - begin

    augment = kornia_transform(size, turns)

    def batch() -> float:
        begin = time.perf_counter()
        for _ in range(at_once):
            collate.of_batch(augment(images), labels)
        return (time.perf_counter() - begin) / at_once

    yield "albumentations, bare loop", loop
    yield "kornia", batch
