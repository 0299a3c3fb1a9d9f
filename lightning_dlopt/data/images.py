"""DataModules of images that lie in memory as integers and go out as normalized floats."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_dlopt.core.checks import check_flag, check_integer, owner_name
from lightning_dlopt.core.errors import ArgumentTypeError, DataError
from lightning_dlopt.data.base import ClassificationDataModule
from lightning_dlopt.data.decoding import DecodingLoader
from lightning_dlopt.data.loader import TensorLoader
from lightning_dlopt.data.resumable import ResumableLoader


@dataclass(frozen=True)
class TensorSamples:
    """Images, uint8 of shape ``(N, C, H, W)``, and their targets, int64 of shape ``(N,)``."""

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def select(self, indices: Tensor) -> "TensorSamples":
        """Return the samples at ``indices``, an int64 tensor of shape ``(n,)``."""
        return TensorSamples(self.inputs[indices], self.targets[indices])

    def stretched(self, highest: int) -> "TensorSamples":
        """Return the samples with values from 0 to 255 instead of 0 to ``highest``, rounded."""
        if highest == 255:
            return self
        scaled = self.inputs.float().mul_(255 / highest).round_().to(torch.uint8)
        return TensorSamples(scaled, self.targets)


class Normalize:
    """Turn a batch of integer images into floats: ``(images / highest - mean) / std``.

    Args:
        mean: One number for each channel, in units of the highest value.
        std: One positive number for each channel, in the same units.
        highest: The integer that stands for full intensity.

    Example:
        >>> normalize = Normalize((0.5,), (0.5,))
        >>> normalize(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1)).flatten()
        tensor([-1.,  1.])
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], highest: int = 255) -> None:
        scale = torch.tensor(std, dtype=torch.float64)
        # Two passes over the batch instead of three: one factor and one summand.
        self.factor = (1 / (highest * scale)).float().view(-1, 1, 1)
        self.summand = (-torch.tensor(mean, dtype=torch.float64) / scale).float().view(-1, 1, 1)

    def __call__(self, images: Tensor) -> Tensor:
        """Return float32 of the shape of ``images``, ``(..., C, H, W)``."""
        device = images.device
        return images.float().mul_(self.factor.to(device)).add_(self.summand.to(device))


@dataclass(frozen=True)
class _AugmentedSamples:
    """Single images, transformed and then turned into floats."""

    samples: TensorSamples
    transform: Callable[[Tensor], Tensor]
    scaling: Normalize

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = self.transform(self.samples.inputs[index])
        return self.scaling(image), self.samples.targets[index]


class ImageDataModule(ClassificationDataModule):
    """Base of the DataModules of images.

    Inputs are float32, ``(B, C, H, W)``; targets int64, ``(B,)``. The other arguments are those
    of :class:`~lightning_dlopt.data.base.ClassificationDataModule`.

    Args:
        normalize: Whether each channel has its mean subtracted and is divided by its standard
            deviation (``mean`` and ``std``, of the training set); otherwise values are in [0, 1].
        train_transform: Augmentation of each single training image before it is normalized, such
            as ``torchvision.transforms.v2.TrivialAugmentWide()``: called with a uint8 tensor
            ``input_shape`` of values up to 255, also where ``highest`` is another number; returns
            one. Its draws, also from the global generators, are keyed by (seed, epoch, sample).
            Sample by sample costs far more than whole batches do.
        num_workers: Processes that read samples where they are read one by one (training with a
            ``train_transform``, image files), at least 0; with 0 the main process does it.

    Attributes:
        input_shape: ``(C, H, W)``.
        mean: Mean of each channel, of values in [0, 1].
        std: Standard deviation of each channel, likewise.
        highest: The stored integer that stands for 1.
    """

    input_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    highest: int = 255

    def __init__(
        self,
        *args: Any,
        normalize: bool = True,
        train_transform: torch.nn.Module | None = None,
        num_workers: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.normalize = check_flag(self, "normalize", normalize)
        if train_transform is not None and not callable(train_transform):
            raise ArgumentTypeError(
                f"{owner_name(self)}: train_transform={train_transform!r} must be callable"
            )
        self.train_transform = train_transform
        self.num_workers = check_integer(self, "num_workers", num_workers, "[0, inf)")

    def make_loader(self, samples: Any, training: bool, **order: Any) -> ResumableLoader[Any]:
        """Return a loader over tensors in memory."""
        if training and self.train_transform is not None:
            # such transforms take 255 for full intensity: they invert, posterize and solarize by it
            stretched = samples.stretched(self.highest)
            augmented = _AugmentedSamples(stretched, self.train_transform, self.scaling(255))
            return DecodingLoader(augmented, num_workers=self.num_workers, **order)
        return TensorLoader(samples.inputs, samples.targets, transform=self.scaling(), **order)

    def scaling(self, highest: int | None = None) -> Normalize:
        """Return what turns integers into the floats of a batch.

        Args:
            highest: the integer that stands for 1; by default that of the stored ones.
        """
        channels = self.input_shape[0]
        mean, std = (
            (self.mean, self.std) if self.normalize else ((0.0,) * channels, (1.0,) * channels)
        )
        return Normalize(mean, std, self.highest if highest is None else highest)


def check_samples(where: str, inputs: Tensor, targets: Tensor, num_classes: int) -> TensorSamples:
    """Return images and targets as one set, or raise a DataError that says what disagrees."""
    if len(inputs) != len(targets):
        raise DataError(f"{where}: {len(inputs)} images, but {len(targets)} labels")
    if len(targets) == 0:
        raise DataError(f"{where}: no images")
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or high >= num_classes:
        raise DataError(
            f"{where}: labels run from {low} to {high}, not within 0..{num_classes - 1}"
        )
    return TensorSamples(inputs, targets)
