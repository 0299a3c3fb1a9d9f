"""Two passes with other dropout masks, which shall agree."""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.nn import functional

from lightning_dlopt.core.batch_copy import copied
from lightning_dlopt.core.checks import check_number
from lightning_dlopt.core.cross_entropy import (
    CatchCrossEntropy,
    kl_divergence,
    log_probabilities,
    reduce_like_cross_entropy,
)
from lightning_dlopt.core.extra_pass import extra_pass
from lightning_dlopt.core.layer_technique import LayerTechnique
from lightning_dlopt.core.loss_technique import LossTechnique
from lightning_dlopt.core.patching import RERUN
from lightning_dlopt.core.step_arguments import takes_iterator
from lightning_dlopt.core.step_output import loss_of, with_loss
from lightning_dlopt.core.technique import techniques_of


def symmetric_kl(logits: Tensor, others: Tensor) -> Tensor:
    """Return ``½ KL(p‖q) + ½ KL(q‖p)`` of two predictions over the classes.

    Args:
        logits: ``(N, C, d1, …)`` or ``(C,)``.
        others: of the same shape.

    Returns:
        One value for each prediction, ``(N, d1, …)`` or ``()``, in float32 at least.

    Example:
        >>> logits = torch.tensor([[0.0, 1.0]])
        >>> [round(float(symmetric_kl(logits, logits + shift)), 4) for shift in
        ...     (torch.zeros(2), torch.tensor([0.0, 1.0]))]
        [0.0, 0.0749]
    """
    log_p, log_q = log_probabilities(logits), log_probabilities(others)
    return (kl_divergence(log_p, log_q) + kl_divergence(log_q, log_p)) / 2


class RDrop(LossTechnique):
    """Run every batch twice with other dropout masks, and punish where the two disagree.

    The loss is ``½ (CE₁ + CE₂) + alpha · ½ (KL(p₁‖p₂) + KL(p₂‖p₁))``; gradients flow through
    both passes. The divergence is taken of the logits that the module gives to its cross-entropy
    and reduced as the module reduces that: targets of ``ignore_index`` don't count, and the
    module's own weighting of the loss holds for the divergence, too (class weights don't).

    A batch takes about twice the time, and twice the memory for activations. The first pass is
    the module's ordinary one: it draws from the global generators, which end where they would
    without R-Drop, and its logs, BatchNorm statistics and torchmetrics count. The second draws
    its masks from a seed of its own and leaves no trace of that kind; what ``training_step`` counts
    in plain attributes, it counts twice. It gets a copy of the batch as it was before the first.

    Source: X. Liang, L. Wu, J. Li, Y. Wang, Q. Meng, T. Qin, W. Chen, M. Zhang, T.-Y. Liu, R-Drop:
    Regularized Dropout for Neural Networks, 2021, arXiv:2106.14448. Its equation adds the two
    cross-entropies up; we take their mean, as the authors' published example does, so that learning
    rates keep their meaning. The paper's alpha is therefore twice ours. The paper repeats the
    batch in one forward pass, which differs from two passes for BatchNorm only.

    When:
        Networks with dropout that overfit, such as transformers fine-tuned on few texts.

    When not:
        No dropout, where both passes are equal and nothing is done; or time is short, for a step
        takes two.

    Args:
        alpha: weight of the divergence, in [0, inf). At 0 there is no second pass.

    Raises:
        TechniqueError: before the first step, under manual optimization, for a training step that
            takes the ``dataloader_iter``, or if it computes no cross-entropy (see
            :class:`LossTechnique`); later, if the two passes compute it at different places.

    Warns:
        NoEffectWarning: if the two passes of the first batch give the same logits; not besides a
            technique that sets dropout rates, which may rise from 0.

    The checkpoint keeps the arguments.

    Example:
        >>> RDrop(alpha=0.5)
        RDrop(alpha=0.5)
    """

    exclusive: ClassVar[str | None] = "R-Drop"

    def __init__(self, alpha: float) -> None:
        self.alpha = check_number(self, "alpha", alpha, "[0, inf)")
        self._first: list[Tensor] = []
        self._second: list[Tensor] | None = None
        self._has_compared = False

    def neutral(self) -> str | None:
        """Return why there is nothing to do, if alpha is 0."""
        return "alpha is 0" if self.alpha == 0 else None

    def replace(self, logits: Tensor, target: Tensor, **options: Any) -> Tensor:
        """Return the cross-entropy, in the second pass with twice the divergence added."""
        loss = functional.cross_entropy(logits, target, **options)
        if self._second is None:
            self._first.append(logits)
            return loss
        position = len(self._second)
        self._second.append(logits)
        if position >= len(self._first) or self._first[position].shape != logits.shape:
            raise self._differ()
        # twice, since the mean of the two passes halves it
        divergence = symmetric_kl(self._first[position], logits)
        return loss + 2 * self.alpha * reduce_like_cross_entropy(divergence, target, options)

    def patch_step(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replace ``training_step`` by two passes of it."""
        if not pl_module.automatic_optimization:
            raise self.refuse(
                f"{type(pl_module).__name__} optimizes manually, so a training step can't be run "
                "twice for one optimizer step: use automatic optimization"
            )
        if takes_iterator(pl_module):
            raise self.refuse(
                f"{type(pl_module).__name__}.training_step takes its batch from dataloader_iter, "
                "so a second pass would get another one: let it take the batch"
            )
        self._has_compared = False
        self._catcher = catcher = CatchCrossEntropy(self.replace)

        def wrap(training_step: Callable[..., Any]) -> Callable[..., Any]:
            def run(*args: Any, **kwargs: Any) -> Any:
                with catcher:
                    return training_step(*args, **kwargs)

            def step(*args: Any, **kwargs: Any) -> Any:
                if not trainer.training:
                    return training_step(*args, **kwargs)
                self._has_run = True
                catcher.restart()
                # the first pass may normalize the batch, or take things out of it
                again_args, again_kwargs = copied((args, kwargs), tensors=True)
                try:
                    output = run(*args, **kwargs)
                    if loss_of(output) is None:
                        return output
                    self.require_caught(pl_module)
                    if not self._first:  # a batch for which the module has another loss
                        return output
                    self._second = []
                    seed = self.generator(trainer).initial_seed()
                    with extra_pass(pl_module, seed, trainer.strategy.root_device):
                        again = run(*again_args, **again_kwargs)
                    return self._mean(trainer, output, again)
                finally:
                    self._first, self._second = [], None

            return step

        self.patch(pl_module, "training_step", wrap, level=RERUN)

    def _mean(self, trainer: Trainer, output: Any, again: Any) -> Any:
        first, second = loss_of(output), loss_of(again)
        if first is None or second is None or len(self._first) != len(self._second or []):
            raise self._differ()
        if not self._has_compared:
            differs = not all(map(torch.equal, self._first, self._second or []))
            # a technique that draws in layers may begin with a rate of 0
            others = any(isinstance(other, LayerTechnique) for other in techniques_of(trainer))
            self._has_compared = differs or not others
            if not differs and not others:
                self.warn_no_effect(
                    "both passes of a batch give the same logits: the module has no dropout"
                )
        return with_loss(output, (first + second) / 2)

    def _differ(self) -> Exception:
        return self.refuse(
            "the two passes of a batch don't compute the same cross-entropies, so they can't be "
            "compared"
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_first": [], "_second": None}
