"""Gradient descent: one optimizer step for each pass over the training data."""

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch import Tensor
from torch.optim import LBFGS

from lightning_dlopt.core.batch import Key, check_key
from lightning_dlopt.core.checks import check_choice
from lightning_dlopt.core.errors import ArgumentError, CheckpointError, ConflictError
from lightning_dlopt.core.gradients import with_gradients
from lightning_dlopt.core.sample_count import count_samples
from lightning_dlopt.core.step_arguments import takes_iterator
from lightning_dlopt.core.strategies import strategy_kind
from lightning_dlopt.core.technique import Technique

#: More batches than any pass has: Lightning steps at a pass's last batch all the same.
_NEVER_BEFORE_THE_END = 2**31


class FullBatch(Technique):
    """Make one optimizer step for each pass over the training data, as gradient descent does.

    The gradient is that of the whole set in one batch, whatever the batch size: the batches'
    gradients are added up, each weighted by its number of samples, so that a smaller last batch,
    ranks with different shares (DDP, FSDP2), and batches that ``training_step`` leaves out by
    returning None are all weighted rightly. ``max_steps``, schedules and spans count these steps,
    one for each epoch. With a plain SGD optimizer this is gradient descent in the classical sense.

    Source: A. Cauchy, Méthode générale pour la résolution des systèmes d'équations simultanées,
    1847.

    Samples are counted along the first dimension of a batch's tensors.

    A pass is what the Trainer takes from the loader in an epoch, so ``drop_last`` and
    ``limit_train_batches`` leave samples out, and a run that is stopped inside a pass (by
    ``max_time``, say) makes no step for it. BatchNorm goes on normalizing by the statistics of
    each batch, and dropout draws a mask for each: for such modules the gradient is the weighted
    mean of the batches', which isn't the one that a single large batch would give.

    A technique that reads gradients after the last batch's backward pass sees the whole set's.
    The checkpoint keeps the arguments and, in the middle of a pass, the gradient so far: as large
    as the trained parameters. With several ranks that isn't kept, and such a checkpoint can't be
    resumed.

    When:
        Small data sets and models whose descent shall be free of the batches' noise, or to study
        gradient descent itself.

    When not:
        Ordinary training: one step for a pass over the data learns far less in the same time than
        many.

    Args:
        reduction: what ``training_step`` returns: the ``"mean"`` of the losses of a batch's
            samples, or their ``"sum"`` (the gradient is then that of the sum over the whole set).
        input_key: position, key or attribute of a batch's field by which samples are counted;
            needed only where the fields of a batch don't agree on their number.

    Raises:
        TechniqueError: before the first step, under manual optimization, for ``LBFGS``, for a
            ``training_step`` that takes the ``dataloader_iter``, for strategies other than one
            device, DDP and FSDP2, and if the samples of a batch can't be counted.
        ConflictError: beside another setting of gradient accumulation.
        CheckpointError: on resuming in the middle of a pass without its gradient so far, or with
            a loader that can't go on where it was.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from lightning.pytorch.demos.boring_classes import BoringModel
        >>> trainer = Trainer(
        ...     callbacks=[FullBatch()], max_epochs=3, accelerator="cpu", logger=False,
        ...     enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        ... )
        >>> trainer.fit(BoringModel())  # 64 batches
        >>> trainer.global_step
        3
    """

    exclusive: ClassVar[str | None] = "full-batch step"

    def __init__(self, reduction: str = "mean", input_key: Key | None = None) -> None:
        self.reduction = check_choice(self, "reduction", reduction, ("mean", "sum"))
        self.input_key = check_key(self, "input_key", input_key)
        self._has_accumulation = False
        self._forget()

    def _forget(self) -> None:
        self._samples = 0  # that have gone into the gradient so far, of this rank
        self._current = 0  # of the batch under way
        self._reference = 1  # a batch of so many samples has weight 1
        self._divisor = 1.0  # by which the gradient so far is divided already
        self._loaded: Mapping[str, Any] | None = None

    # ---- what Lightning calls ----

    def prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the Trainer accumulate to the end of each pass, and weight each batch's loss."""
        self._forget()
        self._refuse_what_cannot_work(trainer, pl_module)
        self._has_accumulation = True
        trainer.accumulate_grad_batches = _NEVER_BEFORE_THE_END

        def backward(original: Callable[..., Any]) -> Callable[..., Any]:
            def weighted(loss: Tensor, *args: Any, **kwargs: Any) -> None:
                weight = self._weight(trainer)
                original(loss if weight == 1 else loss * weight, *args, **kwargs)
                self._samples += self._current
                if _is_last(trainer):
                    self._finish(trainer)

            return weighted

        def training_step(original: Callable[..., Any]) -> Callable[..., Any]:
            def step(*args: Any, **kwargs: Any) -> Any:
                output = original(*args, **kwargs)
                if output is None and self._samples and _is_last(trainer):
                    # Lightning makes no step, or one without the hooks before it, if the last
                    # batch has no loss; a loss of 0 from nothing adds nothing to the gradient
                    self._current = 0
                    return torch.zeros((), device=pl_module.device, requires_grad=True)
                return output

            return step

        self.patch(pl_module, "backward", backward)
        if trainer.world_size == 1:  # on several ranks Lightning doesn't let a batch be left out
            self.patch(pl_module, "training_step", training_step)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at what is to be trained, and go on with a pass that was under way."""
        if any(isinstance(optimizer, LBFGS) for optimizer in trainer.optimizers):
            raise self.refuse(
                "LBFGS asks for the loss several times in a step, and would get the last batch's: "
                "take an optimizer that needs one gradient for a step"
            )
        trial = bool(trainer.fast_dev_run)  # type: ignore[attr-defined]
        if trainer.num_training_batches == 1 and trainer.world_size == 1 and not trial:
            self.warn_no_effect("the loader gives the whole training set in one batch")
        self._fit_to_the_pass(trainer)
        self._resume(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fit to a loader that was changed between epochs."""
        self._fit_to_the_pass(trainer)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Count the samples."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        try:
            samples = 1 if self.reduction == "sum" else count_samples(batch, self.input_key)
        except ArgumentError as error:
            raise self.refuse(str(error)) from error
        if batch_idx == 0:
            several = trainer.world_size > 1 and self.reduction == "mean"
            self._samples = 0
            self._reference = max(1, trainer.strategy.broadcast(samples) if several else samples)
            known = math.isfinite(trainer.num_training_batches)
            self._divisor = float(trainer.num_training_batches) if known else 1.0
        self._current = samples
        if math.isinf(trainer.num_training_batches):
            # never a divisor of the batches so far; its size is what the loss is divided by
            trainer.accumulate_grad_batches = batch_idx + 2

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell of a pass that was broken off by the module."""
        if self._samples and not trainer.should_stop:
            warnings.warn(
                f"{self!r}: epoch {trainer.current_epoch} ended before its last batch, so its "
                "gradient isn't the whole set's, and no step was made",
                stacklevel=2,
            )

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the gradient so far, if a pass is under way."""
        if not self._samples:
            return
        whole = trainer.world_size == 1 and strategy_kind(trainer) != "sharded"
        checkpoint["callbacks"][self.state_key]["pass_under_way"] = {
            "samples": self._samples,
            "reference": self._reference,
            "divisor": self._divisor,
            "gradients": {
                name: parameter.grad.detach().clone()
                for name, parameter in pl_module.named_parameters()
                if whole and parameter.grad is not None
            },
            "whole": whole,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take up the gradient so far; it is put back when training starts."""
        self._loaded = state_dict

    def let_go(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the Trainer back its setting."""
        if self._has_accumulation:
            trainer.accumulate_grad_batches = 1
        self._has_accumulation = False

    # ---- how it is done ----

    def _refuse_what_cannot_work(self, trainer: Trainer, pl_module: LightningModule) -> None:
        accumulation: int = trainer.accumulate_grad_batches
        rivals = [f"accumulate_grad_batches={accumulation}"] if accumulation != 1 else []
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, GradientAccumulationScheduler):
                rivals.append("GradientAccumulationScheduler")
        if rivals:
            raise ConflictError(
                f"{self!r} and the Trainer's {rivals[0]} would both say when a step is made: "
                "keep one of them"
            )
        if not pl_module.automatic_optimization:
            raise self.refuse(
                "under manual optimization the module steps by itself: call the optimizer's step "
                "once for each epoch there"
            )
        if strategy_kind(trainer) == "other":
            raise self.refuse(
                f"{type(trainer.strategy).__name__} isn't supported: use one device, DDP or FSDP2"
            )
        if takes_iterator(pl_module):
            raise self.refuse(
                "training_step takes the dataloader_iter, so its samples can't be counted: let it "
                "take a batch"
            )

    def _fit_to_the_pass(self, trainer: Trainer) -> None:
        if math.isfinite(trainer.num_training_batches):
            # the loss that Lightning shows is divided by this number
            batches = max(1, int(trainer.num_training_batches))
            trainer.accumulate_grad_batches = batches

    def _weight(self, trainer: Trainer) -> float:
        accumulation: int = trainer.accumulate_grad_batches
        return accumulation / self._divisor * self._current / self._reference

    def _finish(self, trainer: Trainer) -> None:
        """Turn the weighted sum, averaged over ranks, into the mean over all samples."""
        total = self._samples
        if trainer.world_size > 1:
            samples = torch.tensor(total, device=trainer.strategy.root_device)
            total = int(trainer.strategy.reduce(samples, reduce_op="sum"))
        factor = self._divisor * trainer.world_size
        if self.reduction == "mean" and total:
            factor = factor * self._reference / total  # in this order it is 1 where it ought to be
        if factor != 1:
            with torch.no_grad():
                for parameter in with_gradients(trainer.optimizers[0]):
                    parameter.grad.mul_(factor)  # type: ignore[union-attr]
        self._samples = 0

    def _resume(self, trainer: Trainer, pl_module: LightningModule) -> None:
        progress = trainer.fit_loop.epoch_loop.batch_progress
        inside = trainer.fit_loop.restarting and progress.current.ready > 0
        if not inside or progress.is_last_batch:
            return
        again = "resume from a checkpoint of an epoch's end"
        if self._loaded is None:
            raise CheckpointError(
                f"{self!r}: the checkpoint was saved without it in the middle of an epoch, so the "
                f"gradient of the whole set can't be had: {again}"
            )
        loaders = CombinedLoader(trainer.train_dataloader).flattened
        if not all(hasattr(loader, "load_state_dict") for loader in loaders):
            raise CheckpointError(
                f"{self!r}: the checkpoint was saved in the middle of an epoch, and the training "
                f"loader can't go on from there (it has no load_state_dict): {again}"
            )
        partial = self._loaded.get("pass_under_way")
        if partial is None:
            return
        if not partial["whole"] or trainer.world_size != 1:
            raise CheckpointError(
                f"{self!r}: the checkpoint was saved in the middle of an epoch, and what several "
                f"ranks have added up isn't in it: {again}"
            )
        parameters = dict(pl_module.named_parameters())
        for name, gradient in partial["gradients"].items():
            parameters[name].grad = gradient.to(parameters[name].device, copy=True)
        self._samples, self._reference = partial["samples"], partial["reference"]
        self._divisor = partial["divisor"]


def _is_last(trainer: Trainer) -> bool:
    """Return whether the batch under way ends the pass."""
    ready = trainer.fit_loop.epoch_loop.batch_progress.current.ready
    return trainer.is_last_batch or ready == trainer.num_training_batches
