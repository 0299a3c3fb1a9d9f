"""Handwritten digits of 8 by 8 pixels, shipped with scikit-learn."""

from typing import Any

import torch

from lightning_dlopt.core.randomness import mix_key
from lightning_dlopt.data.base import Samples, check_share
from lightning_dlopt.data.images import ImageDataModule, TensorSamples
from lightning_dlopt.data.order import split_indices


class Digits(ImageDataModule):
    """1797 grey images of digits, ``(1, 8, 8)``, ten classes; needs no download.

    From E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits (UCI, 1998), as shipped
    in scikit-learn. Values run from 0 to 16. There is no official test set: one is split off by
    ``split_seed``. Mean and standard deviation are those of what then is left.

    Args:
        test: How much is held out as the test set: an integer is a number of samples, a float a
            share in [0, 1); with 0 there is none.
        **kwargs: ``batch_size=32``, ``eval_batch_size=512``, ``validation=0.1``, ``split_seed=0``,
            ``seed=None``, ``drop_last=False``, ``normalize=True``, ``train_transform=None``,
            ``num_workers=0``; see
            :class:`~lightning_dlopt.data.images.ImageDataModule`.

    Example:
        >>> digits = Digits(batch_size=64)
        >>> inputs, targets = next(iter(digits.train_dataloader()))
        >>> inputs.shape, inputs.dtype, targets.dtype
        (torch.Size([64, 1, 8, 8]), torch.float32, torch.int64)
    """

    classes = tuple("0123456789")
    input_shape = (1, 8, 8)
    highest = 16

    def __init__(self, *args: Any, test: int | float = 0.2, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.test = check_share(self, "test", test)

    def read_sets(self) -> dict[str, Samples]:
        """Read scikit-learn's copy and split off the test set."""
        from sklearn.datasets import load_digits  # type: ignore[import-untyped]

        images, targets = load_digits(return_X_y=True)
        everything = TensorSamples(
            torch.from_numpy(images).to(torch.uint8).view(-1, *self.input_shape),
            torch.from_numpy(targets).long(),
        )
        # Another key than the validation split's, or the two would pick by the same draw.
        stay, held_out = split_indices(len(everything), self.test, mix_key(self.split_seed, 1))
        train = everything.select(stay)
        values = train.inputs.double() / self.highest
        self.mean, self.std = (values.mean().item(),), (values.std(correction=0).item(),)
        sets: dict[str, Samples] = {"train": train}
        if len(held_out):
            sets["test"] = everything.select(held_out)
        return sets
