"""Samples that are weighted means of two."""

import torch
from torch import Tensor

from lightning_dlopt.augmentation.batch_mixer import BatchMixer
from lightning_dlopt.augmentation.mixture import Mixture, draw_shares, draw_shift, for_each
from lightning_dlopt.core.batch import Key
from lightning_dlopt.core.checks import check_number
from lightning_dlopt.core.errors import ArgumentError, ArgumentTypeError


def mix_up(inputs: Tensor, share: Tensor, shift: int) -> Tensor:
    """Return ``share · inputs[i] + (1 - share) · inputs[(i + shift) % B]`` for each sample.

    Args:
        inputs: ``(B, …)``, floats, or images ``(B, C, H, W)`` of uint8, which are rounded; on any
            device. They stay as they are; gradients flow through.
        share: ``(B,)``, each sample's own share.
        shift: how far each sample's partner is from it.

    Returns:
        Inputs of the same shape, type, device and memory format.

    Raises:
        ArgumentError: for a share of another shape.
        ArgumentTypeError: for inputs of other integers, such as tokens.

    Example:
        >>> mix_up(torch.tensor([[1.0], [5.0]]), torch.tensor([0.75, 0.5]), shift=1)
        tensor([[2.],
                [3.]])
    """
    _check_mean(inputs)
    count = len(inputs)
    if share.shape != (count,):
        raise ArgumentError(f"mix_up: share of shape {tuple(share.shape)} must be ({count},)")
    exact = inputs if inputs.dtype == torch.float64 else inputs.float()
    share = for_each(share.to(exact), inputs)
    shift = shift % count if count else 0
    if exact.requires_grad and torch.is_grad_enabled():
        return torch.lerp(exact.roll(-shift, 0), exact, share).to(inputs.dtype)
    mixed, rest = torch.empty_like(exact), count - shift
    torch.lerp(exact[shift:], exact[:rest], share[:rest], out=mixed[:rest])
    torch.lerp(exact[:shift], exact[rest:], share[rest:], out=mixed[rest:])
    return (mixed.round_() if inputs.dtype == torch.uint8 else mixed).to(inputs.dtype)


def _check_mean(inputs: Tensor) -> None:
    is_bytes = inputs.dtype == torch.uint8 and inputs.dim() == 4
    if not (inputs.is_floating_point() or is_bytes):
        raise ArgumentTypeError(
            f"mix_up: inputs of {inputs.dtype} and shape {tuple(inputs.shape)} can't be averaged: "
            "they must be floats, or uint8 images (B, C, H, W). Tokens have no mean"
        )


class MixUp(BatchMixer):
    """Mix each training sample with another one of its batch, and their labels alike.

    The input becomes ``share · x + (1 - share) · x'``, the loss ``share · loss(y) + (1 - share) ·
    loss(y')``; see :class:`BatchMixer` for how that is done on a module which knows nothing of it.

    Source: H. Zhang, M. Cisse, Y. N. Dauphin, D. Lopez-Paz, mixup: Beyond Empirical Risk
    Minimization, 2018, arXiv:1710.09412. There the shares are Beta(alpha, alpha), one for a batch,
    and the partners a permutation of it. Here each sample has its own share; it is that or one
    minus it, whichever is larger, which gives the same pairs, as a sample is as often a partner;
    and the partners are the batch moved on by a random number of places, so that none is mixed
    with itself.

    When:
        Classifiers that overfit in long runs, or whose labels are partly wrong.

    When not:
        Short runs and networks that underfit; losses that compare the samples of a batch; token
        ids.

    Args:
        alpha: how much is mixed, in [0, inf). At 0 nothing is; at 1 shares are even.
        labels: how both labels come into the loss: ``"loss"`` mixes the cross-entropy where it is
            computed, ``"twice"`` runs the step with either label, ``"soft"`` hands over mixed
            labels, ``"auto"`` takes the first that is right; see :class:`BatchMixer`.
        num_classes: for ``"soft"`` labels of classes, at least 1.
        input_key: where the input is in the batch: a position, a key, or a field's name.
        target_key: where the target is.

    Raises:
        TechniqueError: in the first step, if the input is neither floats nor uint8 images (tokens
            can't be averaged), and for what :class:`BatchMixer` says.

    Example:
        >>> MixUp(alpha=0.4)
        MixUp(alpha=0.4)
    """

    def __init__(
        self,
        alpha: float = 0.2,
        labels: str = "auto",
        num_classes: int | None = None,
        input_key: Key | None = None,
        target_key: Key | None = None,
    ) -> None:
        super().__init__(labels, num_classes, input_key, target_key)
        self.alpha = check_number(self, "alpha", alpha, "[0, inf)")

    def neutral(self) -> str | None:
        """Return why there is nothing to do, if alpha is 0."""
        return "alpha is 0" if self.alpha == 0 else None

    def check_inputs(self, inputs: Tensor) -> None:
        """Refuse what has no mean."""
        _check_mean(inputs)

    def mix(
        self, inputs: Tensor, generator: torch.Generator, one_share: bool = False
    ) -> tuple[Tensor, Mixture]:
        """Return mixed inputs and how they were mixed; draws the shares, then the shift."""
        count = len(inputs)
        share = draw_shares(1 if one_share else count, self.alpha, generator).expand(count)
        share = torch.maximum(share, 1 - share)
        mixture = Mixture(draw_shift(count, generator), share)
        return mix_up(inputs, share, mixture.shift), mixture
