"""What a run's augmentation makes of its first training batch."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_dlopt.cli.image_page import Row
from lightning_dlopt.core.batch import find_key, get_field, get_tensor
from lightning_dlopt.core.batch_technique import BatchTechnique
from lightning_dlopt.core.errors import TechniqueError
from lightning_dlopt.core.global_generators import kept_generators
from lightning_dlopt.data import ResumableLoader


def in_order(techniques: Sequence[BatchTechnique]) -> list[BatchTechnique]:
    """Return techniques in the order in which a batch passes them."""
    places = {id(technique): place for place, technique in enumerate(techniques)}
    return sorted(techniques, key=lambda one: places[id(one)] - one.level)


@dataclass
class Preview:
    """What a run does to its first training batch.

    A loader of another kind than this package's gives its batch once, so that whatever is made of
    it has the same samples; and with the generators as they are, so that it has them also without
    the ``train_transform``.

    Attributes:
        datamodule: the run's data, set up.
        techniques: those that change batches, in their order of work.
        overfits: whether the run takes its batches unshuffled.
    """

    datamodule: Any
    techniques: list[BatchTechnique]
    overfits: bool = False
    _taken: dict[bool, Any] = field(default_factory=dict, repr=False)

    def original(self) -> Any:
        """Return the first batch without the DataModule's ``train_transform``."""
        transform = getattr(self.datamodule, "train_transform", None)
        if transform is None:
            return self._batch(0)
        self.datamodule.train_transform = None
        try:
            return self._batch(0)
        finally:
            self.datamodule.train_transform = transform

    def trained(self, draws: int = 0) -> tuple[Any, list[dict[int, float]] | None]:
        """Return the batch that the training step gets, and each sample's labels if they change.

        With ``draws=0`` that is the first step's; with others the same samples have the draws of
        another batch and epoch. What the data of a loader of another kind draw themselves stays.
        """
        batch, shares = self._batch(draws), None
        for technique in self.techniques:
            mixed = technique.label_shares(batch, technique.keyed(draws))
            shares = shares if mixed is None else mixed
            batch = technique.changed(batch, technique.keyed(draws))
        return batch, shares

    def input_of(self, batch: Any) -> Tensor:
        """Return a batch's input, where the techniques look for it."""
        keys = [getattr(one, "input_key", None) for one in self.techniques]
        key = next((key for key in keys if key is not None), None)
        return get_tensor(batch, "input", key, "dlopt preview")

    def labels_of(self, batch: Any, shares: list[dict[int, float]] | None = None) -> list[str]:
        """Return each sample's labels as text, with their shares if there are several.

        Floats are shown as they are: one value for each sample, or several that are no shares.
        Targets of other shapes, such as masks, have no text.
        """
        if shares is None:
            keys = [getattr(one, "target_key", None) for one in self.techniques]
            key = next((key for key in keys if key is not None), None)
            try:
                targets = get_field(batch, find_key(batch, "target", key, "dlopt preview"))
            except TechniqueError:
                return []
            if not isinstance(targets, Tensor) or targets.dim() not in (1, 2):
                return []
            if targets.dim() == 1 or targets.shape[1] == 1:
                if targets.is_floating_point():
                    return [_number(value) for value in targets.flatten().tolist()]
                shares = [{int(target): 1.0} for target in targets]
            elif bool(((targets >= 0) & (targets <= 1)).all()):
                shares = [dict(enumerate(map(float, row))) for row in targets]
            else:
                return [", ".join(map(_number, row)) for row in targets.tolist()]
        return [self._label(share) for share in shares]

    def _label(self, shares: dict[int, float]) -> str:
        names = getattr(self.datamodule, "classes", None) or ()
        largest = sorted(shares.items(), key=lambda item: -item[1])[:3]
        shown = [
            (names[label] if 0 <= label < len(names) else str(label), share)
            for label, share in largest
            if share >= 0.005
        ]
        if len(shown) == 1:
            return str(shown[0][0])
        return " + ".join(f"{name} · {share:.2f}" for name, share in shown)

    def _batch(self, draws: int) -> Any:
        is_plain = getattr(self.datamodule, "train_transform", None) is None
        if is_plain in self._taken:
            return self._taken[is_plain]
        with kept_generators(torch.device("cpu")):
            loader = self.datamodule.train_dataloader()
            if isinstance(loader, ResumableLoader):
                loader.shuffle = loader.shuffle and not self.overfits
                return loader.first_batch(draws)
            batch = self._taken[is_plain] = _first_of(loader)
        return batch


def _first_of(loader: Any) -> Any:
    own = getattr(loader, "generator", None)
    if not isinstance(own, torch.Generator):
        return next(iter(loader))
    state = own.get_state()
    try:
        return next(iter(loader))
    finally:
        own.set_state(state)


def _number(value: float) -> str:
    """Return a number with three digits, or more before the point.

    Example:
        >>> _number(0.51234), _number(-12345.6), _number(7)
        ('0.512', '-12346', '7')
    """
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def displayed(images: Tensor, original: Tensor, datamodule: Any) -> Tensor:
    """Return images in [0, 1] with one or three channels, without their normalization.

    Args:
        images: ``(B, C, H, W)``.
        original: images whose range says what is black and white if nobody else does.
        datamodule: its ``mean`` and ``std``, if it normalizes, are undone.
    """
    low, high = 0.0, 255.0 if original.dtype == torch.uint8 else 1.0
    mean, std = (getattr(datamodule, name, None) for name in ("mean", "std"))
    images, original = images.float(), original.float()
    if mean is not None and std is not None and getattr(datamodule, "normalize", True):
        images = images * torch.tensor(std).view(-1, 1, 1) + torch.tensor(mean).view(-1, 1, 1)
    elif original.min() < low or original.max() > high:
        low, high = float(original.min()), float(original.max())
    images = ((images - low) / max(high - low, 1e-12)).clamp(0, 1)
    return images if images.shape[1] in (1, 3) else images.mean(1, keepdim=True)


def image_rows(preview: Preview, samples: int, rounds: int) -> list[Row]:
    """Return the rows of the page: the original images, then each round's."""
    plain = preview.original()
    original = preview.input_of(plain)
    shown = displayed(original, original, preview.datamodule)[:samples]
    rows = [Row("original", shown, preview.labels_of(plain)[:samples])]
    for draws in range(rounds):
        batch, shares = preview.trained(draws)
        images = preview.input_of(batch)
        title = "with other draws" if draws else "in the first step"
        if images.shape[2:] != original.shape[2:]:
            title += f" ({images.shape[2]} x {images.shape[3]} pixels)"
        rows.append(
            Row(
                title,
                displayed(images, original, preview.datamodule)[:samples],
                preview.labels_of(batch, shares)[:samples],
            )
        )
    return rows


def token_lines(preview: Preview, samples: int, rounds: int) -> list[str]:
    """Return each sample's token ids, before and after."""
    before = preview.original()
    after = [preview.trained(draws) for draws in range(rounds)]
    labels = [preview.labels_of(before), *(preview.labels_of(*one) for one in after)]
    inputs = [preview.input_of(before), *(preview.input_of(batch) for batch, _ in after)]
    titles = ["original", "in the first step", *["with other draws"] * (rounds - 1)]
    lines = []
    for index in range(min(samples, len(inputs[0]))):
        lines.append(f"sample {index + 1}")
        for title, tokens, names in zip(titles, inputs, labels, strict=True):
            label = f"  [{names[index]}]" if names else ""
            lines.append(f"  {title:<18}{' '.join(map(str, tokens[index].tolist()))}{label}")
    return lines
