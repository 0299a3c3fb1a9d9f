"""A trained teacher's predictions as further targets."""

import copy
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional

from lightning_dlopt.core.batch import Key, check_key, get_tensor
from lightning_dlopt.core.checks import check_number, check_text
from lightning_dlopt.core.cross_entropy import (
    class_dim,
    kl_divergence,
    log_probabilities,
    reduce_like_cross_entropy,
)
from lightning_dlopt.core.errors import ArgumentTypeError, CheckpointError, TechniqueError, one_line
from lightning_dlopt.core.load_weights import load_weights
from lightning_dlopt.core.loss_technique import LossTechnique


def distillation_loss(logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Return ``T² · KL(softmax(teacher / T) ‖ softmax(logits / T))`` over the classes.

    Args:
        logits: the student's, ``(N, C, d1, …)`` or ``(C,)``.
        teacher_logits: of the same shape.
        temperature: T, in (0, inf).

    Returns:
        One value for each prediction, ``(N, d1, …)`` or ``()``, in float32 at least.

    Example:
        >>> student, teacher = torch.zeros(1, 2), torch.tensor([[1.0, -1.0]])
        >>> round(distillation_loss(student, teacher, temperature=2.0).item(), 4)
        0.4438
    """
    temperature = check_number("distillation_loss", "temperature", temperature, "(0, inf)")
    teacher = log_probabilities(teacher_logits / temperature)
    student = log_probabilities(logits / temperature)
    return temperature**2 * kl_divergence(teacher, student)


class Distillation(LossTechnique):
    """Train a network to predict what a trained, frozen teacher predicts.

    The loss is ``(1 - weight) · CE + weight · T² · KL(teacher_T ‖ student_T)``, both distributions
    softened by the temperature T. The student's logits are those that the module gives to its
    cross-entropy; the teacher gets the batch's input as the training step gets it, augmented or
    mixed, in the same precision; what the step itself does to it (a normalization), the teacher
    must do, too. The divergence is reduced as the module reduces its
    cross-entropy: targets of ``ignore_index`` don't count (class weights change the CE only).

    The teacher is copied; the copy is moved to the module's device, in eval mode and without
    gradients, and dropped after training. It is no part of the module or of its checkpoints.

    Source: G. Hinton, O. Vinyals, J. Dean, Distilling the Knowledge in a Neural Network, 2015,
    arXiv:1503.02531, section 2. Their weighted average has the hard labels' part small, and its T²
    keeps the gradients' size at any temperature; the KL divergence has the gradient of their
    cross-entropy with soft targets.

    When:
        A trained network is clearly better, and too large to be used; a smaller one is to come near
        it.

    When not:
        The teacher is hardly better than the student; or its pass in every step costs more than as
        much longer training would.

    Args:
        teacher: maps the input to logits, as a tensor or as the ``logits`` of what it returns, in
            the shape and layout of the student's: ``(N, T, C)`` is taken for ``(N, C, T)`` if T
            is C, which no shape can tell. Where the student's are ``(N, C)``, a teacher's
            ``(…, C)``, the classes last, with N predictions in the same order will do.
        temperature: T, in (0, inf).
        weight: share of the teacher in the loss, in [0, 1]. At 0 the teacher isn't run.
        input_key: where the input is in a batch, a position or a name; by default the first item
            of a tuple or list, or what has one of the usual names (see :mod:`.core.batch`).
        checkpoint: a file with the teacher's weights, a Lightning checkpoint or a saved
            ``state_dict``, opened with ``weights_only=True``. None for a teacher that has them.
        checkpoint_prefix: where they are in it, such as ``"network."``; by default the only prefix
            under which all are found.

    Raises:
        CheckpointError: before training, if the file can't be read or doesn't fit the teacher.
        TechniqueError: before training, if the teacher can't be copied; in the first step, if the
            module computes no cross-entropy (see :class:`LossTechnique`), the batch's input isn't
            found, the teacher fails on it, or the logits' shapes differ.

    The checkpoint keeps the arguments, of the teacher its class.

    Example:
        >>> Distillation(nn.Linear(2, 3), temperature=2.0, weight=0.5, checkpoint="teacher.ckpt")
        Distillation(teacher='torch.nn.modules.linear.Linear', temperature=2.0, weight=0.5, \
checkpoint='teacher.ckpt')
    """

    exclusive: ClassVar[str | None] = "distillation"

    def __init__(
        self,
        teacher: nn.Module,
        temperature: float,
        weight: float,
        input_key: Key | None = None,
        checkpoint: str | None = None,
        checkpoint_prefix: str | None = None,
    ) -> None:
        if not isinstance(teacher, nn.Module):
            raise ArgumentTypeError(f"Distillation: teacher={teacher!r} must be a torch.nn.Module")
        self.teacher = teacher
        self.temperature = check_number(self, "temperature", temperature, "(0, inf)")
        self.weight = check_number(self, "weight", weight, "[0, 1]")
        self.input_key = check_key(self, "input_key", input_key)
        self.checkpoint = checkpoint
        if checkpoint is not None:
            self.checkpoint = check_text(self, "checkpoint", checkpoint)
        self.checkpoint_prefix = checkpoint_prefix
        if checkpoint_prefix is not None and not isinstance(checkpoint_prefix, str):
            raise ArgumentTypeError(
                f"Distillation: checkpoint_prefix={checkpoint_prefix!r} must be a string"
            )
        self._running: nn.Module | None = None
        self._has_answered = False
        self._input: Tensor | TechniqueError | None = None
        self._teacher_logits: Tensor | None = None

    def neutral(self) -> str | None:
        """Return why there is nothing to do, if weight is 0."""
        return "weight is 0" if self.weight == 0 else None

    def patch_step(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Load the teacher, and go around the training step."""
        try:
            teacher = copy.deepcopy(self.teacher)
        except Exception as error:
            raise self.refuse(
                f"the teacher can't be copied ({one_line(error)}); one with the old "
                "torch.nn.utils.weight_norm or spectral_norm can be after remove_weight_norm or "
                "remove_spectral_norm, or with those of torch.nn.utils.parametrizations"
            ) from error
        teacher.requires_grad_(False).eval()
        self._has_answered = False
        if self.checkpoint is not None:
            try:
                load_weights(teacher, self.checkpoint, self.checkpoint_prefix)
            except CheckpointError as error:
                raise CheckpointError(f"{self!r}: {error}") from error
        self._running = trainer.precision_plugin.convert_module(teacher)
        super().patch_step(trainer, pl_module)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move the teacher to where the module trains."""
        if self._running is not None:
            self._running.to(trainer.strategy.root_device)

    def look_at(self, batch: Any) -> None:
        """Keep the batch's input for the moment when the loss is computed."""
        self._input = self._teacher_logits = None
        try:
            inputs = get_tensor(batch, "input", self.input_key, repr(self))
        except TechniqueError as error:
            self._input = error  # matters only if the step computes a cross-entropy
        else:
            # the step may write to it, or take it out of the batch; and so may the teacher
            self._input = inputs.detach().clone()

    def replace(self, logits: Tensor, target: Tensor, **options: Any) -> Tensor:
        """Return the weighted sum of the cross-entropy and the divergence from the teacher."""
        loss = functional.cross_entropy(logits, target, **options)
        if self._teacher_logits is None:
            self._teacher_logits = self._ask_teacher()
        teacher = self._in_shape_of(logits, self._teacher_logits)
        divergence = distillation_loss(logits, teacher, self.temperature)
        reduced = reduce_like_cross_entropy(divergence, target, options)
        return (1 - self.weight) * loss + self.weight * reduced

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Let go of what belongs to the batch."""
        self._input = self._teacher_logits = None

    def let_go(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drop the teacher's copy and what belongs to the last batch."""
        super().let_go(trainer, pl_module)
        self._running = self._input = self._teacher_logits = None

    def _ask_teacher(self) -> Tensor:
        if isinstance(self._input, TechniqueError):
            raise self._input
        inputs, self._input = self._input, None
        assert self._running is not None
        assert inputs is not None
        with torch.no_grad():
            try:
                output = self._running(inputs)
            except torch.OutOfMemoryError:
                raise
            except (RuntimeError, ValueError, IndexError, AssertionError) as error:
                if self._has_answered:
                    raise
                raise self.refuse(
                    f"the teacher fails on the batch's input, of shape {tuple(inputs.shape)} and "
                    f"{inputs.dtype}: {one_line(error)}"
                ) from error
        self._has_answered = True
        if isinstance(output, Mapping):
            output = output.get("logits")
        logits = getattr(output, "logits", output)
        if not isinstance(logits, Tensor):
            raise self.refuse(
                "the teacher must return logits, as a tensor or under the name 'logits', not a "
                f"{type(logits).__name__}"
            )
        return logits

    def _in_shape_of(self, logits: Tensor, teacher: Tensor) -> Tensor:
        classes = logits.shape[class_dim(logits)]
        flat = logits.dim() == 2 and teacher.numel() == logits.numel() and teacher.dim() > 2
        if flat and teacher.shape[-1] == classes:
            return teacher.reshape(logits.shape)
        if teacher.shape != logits.shape:
            raise self.refuse(
                f"the teacher's logits have the shape {tuple(teacher.shape)}, the student's "
                f"{tuple(logits.shape)}: both must be the same"
            )
        return teacher

    def __getstate__(self) -> dict[str, Any]:
        kept = {"_running": None, "_input": None, "_teacher_logits": None}
        return {**super().__getstate__(), **kept}

    def __deepcopy__(self, memo: dict[int, Any]) -> "Distillation":
        memo[id(self.teacher)] = self.teacher  # it is only read, so copies share it
        twin = memo[id(self)] = type(self).__new__(type(self))
        vars(twin).update(copy.deepcopy(self.__getstate__(), memo))
        return twin
