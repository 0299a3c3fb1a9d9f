"""What the batch mixers do to a batch, without its loss."""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from lightning_dlopt.augmentation.mixture import Mixture, mix_labels, soften
from lightning_dlopt.core.batch import Key, check_key, find_key, get_tensor, replace_fields
from lightning_dlopt.core.batch_technique import BatchTechnique
from lightning_dlopt.core.checks import check_choice, check_integer
from lightning_dlopt.core.errors import ArgumentError


class InputMixer(BatchTechnique):
    """Mixes inputs and finds the labels that belong to them; arguments as in BatchMixer."""

    _found: str | None = None

    def __init__(
        self,
        labels: str = "auto",
        num_classes: int | None = None,
        input_key: Key | None = None,
        target_key: Key | None = None,
    ) -> None:
        self.labels = check_choice(self, "labels", labels, ("auto", "soft", "loss", "twice"))
        self.num_classes = num_classes
        if num_classes is not None:
            self.num_classes = check_integer(self, "num_classes", num_classes, "[1, inf)")
        self.input_key = check_key(self, "input_key", input_key)
        self.target_key = check_key(self, "target_key", target_key)

    @abstractmethod
    def check_inputs(self, inputs: Tensor) -> None:
        """Raise an ArgumentError or ArgumentTypeError for inputs that can't be mixed."""

    @abstractmethod
    def mix(
        self, inputs: Tensor, generator: torch.Generator, one_share: bool = False
    ) -> tuple[Tensor, Mixture | None]:
        """Return mixed inputs and how they were mixed; None if they weren't.

        Args:
            inputs: stay as they are.
            generator: what the draws come from.
            one_share: whether all samples must have the same share.
        """

    def mix_pixels(self, target: Tensor, inputs: Tensor, mixture: Mixture) -> Tensor | None:
        """Return a target of pixels mixed like the inputs, if there is a way to do that."""
        return None

    def has_pixels(self, target: Tensor, inputs: Tensor) -> bool:
        """Return whether :meth:`mix_pixels` mixes such a target, whatever is drawn."""
        return False

    def change(self, batch: Any, generator: torch.Generator) -> Any:
        """Return mixed inputs with the labels of the larger share; of floats, with mixed ones.

        The draws are those of a run's first step under automatic optimization.
        """
        mixed, target, mixture = self._mixed(batch, generator)
        if mixture is None:
            return mixed
        new = self.mix_pixels(target, get_tensor(mixed, "input", self.input_key), mixture)
        if new is None:
            labels = mix_labels(target, mixture)
            new = soften(labels) if target.is_floating_point() else labels.first
        return self._with_target(mixed, new)

    def label_shares(self, batch: Any, generator: torch.Generator) -> list[dict[int, float]] | None:
        """Return each sample's classes with their shares; None if the target isn't classes."""
        _, target, mixture = self._mixed(batch, generator)
        if target.is_floating_point() or target.dim() != 1:
            return None
        if mixture is None:
            return [{label: 1.0} for label in target.tolist()]
        labels = mix_labels(target, mixture)
        rows = zip(
            labels.first.tolist(), labels.second.tolist(), labels.share.tolist(), strict=True
        )
        return [{a: s, b: 1 - s} if a != b else {a: 1.0} for a, b, s in rows]

    def _mixed(
        self, batch: Any, generator: torch.Generator, one_share: bool | None = None
    ) -> tuple[Any, Tensor, Mixture | None]:
        inputs = get_tensor(batch, "input", self.input_key, self)
        target = get_tensor(batch, "target", self.target_key, self)
        if not target.dim() or not inputs.dim() or len(inputs) != len(target):
            raise ArgumentError(
                f"the input, of shape {tuple(inputs.shape)}, and the target, of shape "
                f"{tuple(target.shape)}, must have one entry for each sample: say by input_key= "
                "and target_key= where they are"
            )
        if one_share is None:
            is_auto = self.labels == "auto" and not target.is_floating_point()
            one_share = self.labels == "twice" or (is_auto and self._found != "loss")
        one_share = one_share and not self.has_pixels(target, inputs)
        mixed, mixture = self.mix(inputs, generator, one_share)
        where = find_key(batch, "input", self.input_key, self)
        return replace_fields(batch, {where: mixed}), target, mixture

    def _with_target(self, batch: Any, target: Tensor) -> Any:
        return replace_fields(batch, {find_key(batch, "target", self.target_key, self): target})
