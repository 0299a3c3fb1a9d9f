"""One of several ways of mixing for each batch."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_dlopt.augmentation.batch_mixer import BatchMixer
from lightning_dlopt.augmentation.mixture import Mixture
from lightning_dlopt.core.batch import Key
from lightning_dlopt.core.checks import check_number
from lightning_dlopt.core.errors import ArgumentError, ArgumentTypeError


def choose(probabilities: Sequence[float], generator: torch.Generator) -> int | None:
    """Draw the position of one of ``probabilities``, or None in the rest of the cases.

    Example:
        >>> choose([0.0, 1.0], torch.Generator()), choose([0.0], torch.Generator())
        (1, None)
    """
    drawn = float(torch.rand((), generator=generator, dtype=torch.float64))
    for index, probability in enumerate(probabilities):
        if drawn < probability:
            return index
        drawn -= probability
    return None


class RandomMix(BatchMixer):
    """Mix each batch by one of several techniques, such as MixUp and CutMix.

    How the labels come into the loss is said here, once for all of them; see :class:`BatchMixer`.

    Source: the switching between MixUp and CutMix of R. Wightman, H. Touvron, H. Jégou, ResNet
    strikes back: An improved training procedure in timm, 2021, arXiv:2110.00476.

    When:
        Long runs of large image classifiers, for which MixUp and CutMix each are of use.

    When not:
        One of them hasn't been tried alone; short runs.

    Args:
        mixers: the techniques, of which each but its own arguments has the defaults.
        probabilities: how often each is taken, in [0, 1] and not more than 1 together; in the
            rest of the cases the batch stays as it is. By default all the same, and no rest.
        labels: how both labels come into the loss: ``"loss"`` mixes the cross-entropy where it is
            computed, ``"twice"`` runs the step with either label, ``"soft"`` hands over mixed
            labels, ``"auto"`` takes the first that is right; see :class:`BatchMixer`.
        num_classes: for ``"soft"`` labels of classes, at least 1.
        input_key: where the input is in the batch: a position, a key, or a field's name.
        target_key: where the target is.

    Raises:
        ArgumentError: if a mixer says by itself where the labels are or how they are mixed.
        TechniqueError: in the first step, if one of the mixers refuses the input, and for what
            :class:`BatchMixer` says.

    Example:
        >>> from lightning_dlopt import CutMix, MixUp
        >>> RandomMix([MixUp(), CutMix(0.5)], [0.5, 0.25])
        RandomMix(mixers=['MixUp()', 'CutMix(alpha=0.5)'], probabilities=[0.5, 0.25])
    """

    def __init__(
        self,
        mixers: Sequence[BatchMixer],
        probabilities: Sequence[float] | None = None,
        labels: str = "auto",
        num_classes: int | None = None,
        input_key: Key | None = None,
        target_key: Key | None = None,
    ) -> None:
        super().__init__(labels, num_classes, input_key, target_key)
        self.mixers = self._check_mixers(mixers)
        if probabilities is None:
            probabilities = [1 / len(self.mixers)] * len(self.mixers)
        elif not isinstance(probabilities, Sequence) or isinstance(probabilities, str):
            raise ArgumentTypeError(
                f"RandomMix: probabilities={probabilities!r} must be a list of numbers in [0, 1]"
            )
        if len(probabilities) != len(self.mixers):
            raise ArgumentError(
                f"RandomMix: probabilities={probabilities!r} must be {len(self.mixers)} numbers, "
                "one for each of the mixers"
            )
        self.probabilities = [
            check_number(self, "probabilities", p, "[0, 1]") for p in probabilities
        ]
        if sum(self.probabilities) > 1 + 1e-9:
            raise ArgumentError(
                f"RandomMix: probabilities={probabilities!r} add up to {sum(self.probabilities)}, "
                "not to [0, 1]"
            )

    def _check_mixers(self, mixers: Any) -> list[BatchMixer]:
        if not isinstance(mixers, Sequence) or isinstance(mixers, str):
            raise ArgumentTypeError(f"RandomMix: mixers={mixers!r} must be a list of batch mixers")
        if not mixers:
            raise ArgumentError("RandomMix: mixers=[] must hold one batch mixer or more")
        for mixer in mixers:
            if not isinstance(mixer, BatchMixer) or isinstance(mixer, RandomMix):
                raise ArgumentTypeError(
                    f"RandomMix: mixers={mixers!r} must hold batch mixers such as MixUp() and "
                    f"CutMix(), not {mixer!r}"
                )
            given = mixer.labels, mixer.num_classes, mixer.input_key, mixer.target_key
            if given != ("auto", None, None, None):
                raise ArgumentError(
                    f"RandomMix: mixers: {mixer!r} must leave labels, num_classes, input_key and "
                    "target_key to RandomMix, which has them once for all"
                )
        return list(mixers)

    def arguments(self) -> dict[str, Any]:
        """Return the arguments; each mixer as a text that tells its own."""
        return {**super().arguments(), "mixers": [repr(mixer) for mixer in self.mixers]}

    def neutral(self) -> str | None:
        """Return why there is nothing to do, if no mixer ever does anything."""
        return None if self._in_use() else "every mixer has alpha=0 or a probability of 0"

    def check_inputs(self, inputs: Tensor) -> None:
        """Refuse what one of the mixers refuses, whenever its turn may come."""
        for mixer in self._in_use():
            mixer.check_inputs(inputs)

    def has_pixels(self, target: Tensor, inputs: Tensor) -> bool:
        """Return whether each of the mixers mixes the target's pixels."""
        found = [mixer.has_pixels(target, inputs) for mixer in self._in_use()]  # each may refuse
        return all(found)

    def _in_use(self) -> list[BatchMixer]:
        pairs = zip(self.mixers, self.probabilities, strict=True)
        return [mixer for mixer, p in pairs if p > 0 and mixer.neutral() is None]

    def mix(
        self, inputs: Tensor, generator: torch.Generator, one_share: bool = False
    ) -> tuple[Tensor, Mixture | None]:
        """Draw which mixer is taken, and let it draw and mix."""
        self.check_inputs(inputs)
        index = choose(self.probabilities, generator)
        if index is None or self.mixers[index].neutral() is not None:
            return inputs, None
        return self.mixers[index].mix(inputs, generator, one_share)

    def mix_pixels(self, target: Tensor, inputs: Tensor, mixture: Mixture) -> Tensor | None:
        """Return what the mixer that works on pixels makes of the target."""
        found = (mixer.mix_pixels(target, inputs, mixture) for mixer in self._in_use())
        return next((pixels for pixels in found if pixels is not None), None)
