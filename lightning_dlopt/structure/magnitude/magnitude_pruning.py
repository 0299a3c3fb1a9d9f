"""Weights of small magnitude that become and stay 0."""

from collections.abc import Mapping
from typing import Any, ClassVar

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelPruning
from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from lightning_dlopt.core.checks import check_choice, check_number
from lightning_dlopt.core.coverage import in_optimizers
from lightning_dlopt.core.errors import ArgumentError, CheckpointError, ConflictError
from lightning_dlopt.core.log_interval import is_logging_step
from lightning_dlopt.core.parameters import Selection, check_selection, select_parameters
from lightning_dlopt.core.replaced import Replaced
from lightning_dlopt.core.run_length import RunLength
from lightning_dlopt.core.spans import Span, parse_period, parse_span, steps_within
from lightning_dlopt.core.strategies import strategy_kind
from lightning_dlopt.core.technique import Technique, techniques_of
from lightning_dlopt.structure.magnitude.magnitude import SCOPES, cubic_sparsity
from lightning_dlopt.structure.magnitude.masked_weights import MaskedWeights


class MagnitudePruning(Technique):
    """Set more and more of the smallest weights to 0 in training, and keep them there.

    The zeros are in tensors of the same size as before: they gain nothing in parameters,
    multiply-adds, memory, latency or the size of a file, unless that is compressed. To make a
    network smaller or faster, remove whole channels (``ChannelPruning``).

    Every ``every`` between ``begin`` and ``end``, as many of the smallest weights are pruned as
    :func:`cubic_sparsity` says; at ``end`` and after it, exactly the share ``sparsity`` is. What is
    pruned never comes back: it has no gradient (which could also weigh in a clipped norm), and
    after every optimizer step, whatever momentum or decay have done, it is 0 again. A step costs
    two products with the masks, which take as much memory as the weights.

    Source: M. Zhu, S. Gupta, To prune, or not to prune: exploring the efficacy of pruning for model
    compression, 2017, arXiv:1710.01878, who prune each layer by itself every 100 steps
    (``scope="layer", every=100``); the global threshold is that of S. Han, J. Pool, J. Tran,
    W. J. Dally, Learning both Weights and Connections for Efficient Neural Networks, 2015,
    arXiv:1506.02626, in the form of torch's ``global_unstructured``. Lightning's ``ModelPruning``
    prunes a share of what is left at every epoch, and forgets its masks when resumed.

    Only parameters that are trained when training starts: frozen ones stay as they are, and
    nothing more is pruned of those that are frozen later. A shared one is pruned once. Under
    manual optimization a batch counts as a step. A second fit begins anew, at 0; to train on with
    the zeros that are there, prune their share at once (``begin=0, end=0``). An average of weights
    (``EMA``) is 0 only where all that it averages is: let it begin when pruning has ended.

    Logged at the Trainer's logging interval: ``pruned_share``, of the selected weights; with
    several of this class, the second's ends in ``_2``, and so on.

    When:
        The file is sent compressed, or a runtime has kernels for zeros; to learn how many weights
        are needed.

    When not:
        The network shall be faster or take less memory: ChannelPruning.

    Args:
        sparsity: the share of the selected weights that is pruned in the end, in [0, 1).
        begin: when it begins: steps, ``"5ep"``, ``"30%"``.
        end: when the share is reached; not before ``begin``. What follows lets the rest recover.
        every: how often more is pruned: a span, of one step at least.
        parameters: ``"weights"`` (tensors of two or more dimensions: no biases, no norms),
            ``"all"``, or a list of name patterns.
        scope: ``"global"`` prunes the smallest of all, whichever layer they are in; ``"layer"``
            prunes the same share of each tensor.

    Raises:
        ArgumentError: if an argument is out of range, or the run shorter than ``end``.
        ArgumentTypeError: if an argument has another type.
        ConflictError: if another one prunes the same parameters, or Lightning's ``ModelPruning``
            is there.
        TechniqueError: before the first step, if a pattern matches nothing, if the strategy shards
            the weights, or for schedule-free optimizers, which compute the weights anew; when an
            epoch begins, if one of the parameters was replaced.
        CheckpointError: if the checkpoint's masks don't fit the module.

    Warns:
        NoEffectWarning: if ``sparsity`` is 0, or none of the parameters is trained; after training,
            if an average has taken the place of what was pruned.

    The checkpoint keeps the arguments and the masks, a bit for each weight; its weights hold the
    zeros.

    Example:
        >>> MagnitudePruning(0.9, begin="10%")
        MagnitudePruning(sparsity=0.9, begin='10%')
    """

    required_on_resume: ClassVar[bool] = True

    def __init__(
        self,
        sparsity: float,
        begin: Span = "0%",
        end: Span = "80%",
        every: Span = "1%",
        parameters: Selection = "weights",
        scope: str = "global",
    ) -> None:
        self.sparsity = check_number(self, "sparsity", sparsity, "[0, 1)")
        self._begin_span = parse_span(begin, self, "begin")
        self._end_span = parse_span(end, self, "end")
        self._every_span = parse_period(every, self, "every")
        self.begin, self.end, self.every = begin, end, every
        first, last = self._begin_span, self._end_span
        if first.unit == last.unit and first.amount > last.amount:
            raise ArgumentError(f"MagnitudePruning: begin={begin!r} comes after end={end!r}")
        self.parameters = check_selection(self, "parameters", parameters)
        self.scope = check_choice(self, "scope", scope, SCOPES)
        self._forget()

    def _forget(self) -> None:
        self._weights: MaskedWeights | None = None
        self._point = -1  # the step at which weights were pruned last
        self._hooks: list[RemovableHandle] = []
        self._state: dict[str, Any] = {"point": -1, "masks": {}}

    # ---- what Lightning calls ----

    def prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what it can't work with."""
        self._forget()
        if strategy_kind(trainer) not in ("single", "replicated"):
            raise self.refuse(
                f"{type(trainer.strategy).__name__} shards the weights, and no rank sees which are "
                "smallest: use strategy='ddp' or a single device"
            )
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, ModelPruning):
                raise ConflictError(f"{self!r} and Lightning's ModelPruning both prune: keep one")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Resolve the spans, find the parameters, and take up the masks of a checkpoint."""
        if self.sparsity == 0:
            self.warn_no_effect("sparsity is 0")
            return
        run = RunLength.of(trainer, automatic=pl_module.automatic_optimization)
        self._first = steps_within(run, self._begin_span, self, "begin")
        self._last = steps_within(run, self._end_span, self, "end")
        self._every = max(steps_within(run, self._every_span, self, "every"), 1)
        if self._first > self._last:
            raise self.refuse(f"begin is step {self._first}, after end, step {self._last}")
        targets = self._find(trainer, pl_module)
        for other in techniques_of(trainer):
            if not isinstance(other, MagnitudePruning) or other is self or not other.sparsity:
                continue
            if both := targets.keys() & other._find(trainer, pl_module).keys():
                raise ConflictError(f"{self!r} and {other!r} both prune {min(both)}")
        if not targets:
            self.warn_no_effect(f"parameters={self.parameters!r} selects none that is trained")
            return
        for optimizer in trainer.optimizers:
            if all(callable(getattr(optimizer, name, None)) for name in ("train", "eval")):
                raise self.refuse(
                    f"{type(optimizer).__name__} computes the weights anew from its state (it has "
                    "train() and eval()), and what is pruned wouldn't stay 0: use another optimizer"
                )
        try:
            self._weights = MaskedWeights(targets, self._state["masks"])
        except ArgumentError as error:
            raise CheckpointError(f"{self!r}: the checkpoint doesn't fit: {error}") from error
        self._point = self._state["point"]
        self._hooks = [one.register_step_post_hook(self._after_step) for one in trainer.optimizers]

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Prune more if it is time, and log."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        if self._weights is None:
            return
        if batch_idx == 0 and (missing := self._weights.missing_from(pl_module)):
            raise self.refuse(f"{missing[0]} was replaced in training: its mask fits no longer")
        self._follow(self._weights, self._step(trainer, pl_module, 0))
        if is_logging_step(trainer):
            alike = [t for t in techniques_of(trainer) if isinstance(t, MagnitudePruning)]
            place = next(index for index, one in enumerate(alike, 1) if one is self)
            suffix = "" if place == 1 else f"_{place}"
            pl_module.log(f"pruned_share{suffix}", self._weights.share, batch_size=1)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Take what is pruned out of the gradients, before they are clipped."""
        if self._weights is not None:
            self._weights.mask_gradients()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Prune more if it is time, so that validation and checkpoints have what the next step has.

        Techniques that move the weights after a step, such as Lookahead, may come after this one.
        """
        if self._weights is not None:
            self._follow(self._weights, self._step(trainer, pl_module, 1))
            self._weights.mask()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell if other weights have been put in place of those that were pruned."""
        if self._weights is not None and (back := self._weights.came_back()):
            self.warn_no_effect(
                f"of {self._weights.pruned} weights that were pruned {back} aren't 0 after "
                "training: something has put others in their place, such as an average with those "
                "of before. Let it begin when pruning has ended"
            )

    def parameters_replaced(
        self, trainer: Trainer, pl_module: LightningModule, replaced: Replaced
    ) -> None:
        """Cut the masks, too."""
        if self._weights is not None:
            self._weights.follow(replaced)

    def let_go(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop watching; a checkpoint may be saved yet."""
        for hook in self._hooks:
            hook.remove()
        state = self.extra_state()
        self._forget()
        self._state = state

    def extra_state(self) -> dict[str, Any]:
        """Keep the masks, packed, and the step of the last one."""
        if self._weights is None:
            return self._state
        return {"point": self._point, "masks": self._weights.packed()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take up the masks once the parameters are known."""
        self._state = {name: state_dict[name] for name in ("point", "masks")}

    def __getstate__(self) -> dict[str, Any]:
        # a copy of a module in mid-training is no part of the run
        run = ("_weights", "_point", "_hooks", "_state")
        fresh = MagnitudePruning(self.sparsity)
        return {**super().__getstate__(), **{name: vars(fresh)[name] for name in run}}

    # ---- how it is done ----

    def _find(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, nn.Parameter]:
        try:
            selected = select_parameters(pl_module, self.parameters)
        except ArgumentError as error:
            raise self.refuse(str(error)) from error
        trained = in_optimizers(trainer.optimizers)
        return {name: parameter for name, parameter in selected if id(parameter) in trained}

    def _step(self, trainer: Trainer, pl_module: LightningModule, ended: int) -> int:
        if pl_module.automatic_optimization:
            return trainer.global_step
        return trainer.fit_loop.total_batch_idx + ended

    def _follow(self, weights: MaskedWeights, step: int) -> None:
        """Prune as much as the last point of the ramp says, unless that was done."""
        done = (step - self._first) // self._every * self._every
        point = self._last if step >= self._last else self._first + done
        if step >= self._first and point > self._point:
            self._point = point
            share = cubic_sparsity(point, self._first, self._last, self.sparsity)
            weights.prune(share, self.scope)

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if self._weights is not None:
            self._weights.mask()
