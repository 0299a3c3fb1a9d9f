"""Channels that are removed for good, in mid-training."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn

from lightning_dlopt.core.batch_copy import copied
from lightning_dlopt.core.checks import check_choice, check_integer, check_number
from lightning_dlopt.core.coverage import Coverage
from lightning_dlopt.core.errors import ArgumentError, TechniqueError
from lightning_dlopt.core.run_length import RunLength
from lightning_dlopt.core.spans import Span, parse_period, parse_span
from lightning_dlopt.structure.channels.choose import Shrinkage
from lightning_dlopt.structure.channels.graph import torch_pruning
from lightning_dlopt.structure.channels.in_training import (
    Gradients,
    choose_together,
    costs,
    cut_channels,
    gradients_of,
    reversed_plan,
)
from lightning_dlopt.structure.channels.recorded_calls import Call, record_calls
from lightning_dlopt.structure.channels.refusals import check_keep, check_run, check_trained
from lightning_dlopt.structure.channels.telling import tell_of_larger_checkpoints, tell_removal
from lightning_dlopt.structure.channels.timing import removals_by
from lightning_dlopt.structure.channels.widths import merge, reshape_to
from lightning_dlopt.structure.plan import find_entry, plan_of
from lightning_dlopt.structure.surgery import Surgery


class ChannelPruning(Surgery):
    """Removes the channels that matter least, in mid-training, and trains on without them.

    What changes in training: at one or several moments the least important channels (outputs of
    convolutional and fully connected layers, and all that hangs on them: norms, the next layers'
    inputs, what a residual connection adds up) are cut out of the parameters until the model needs
    ``speed_up`` times fewer multiply-adds or parameters. Layers are really smaller then: file,
    memory and time fall. The optimizers go on with what is left of their state, and so does what
    other techniques of this package keep; frozen parameters stay frozen.

    From H. Li, A. Kadav, I. Durdanovic, H. Samet, H. P. Graf, Pruning Filters for Efficient
    ConvNets (2016, arXiv:1608.08710), by another norm; ``importance="taylor"`` is that of P.
    Molchanov, A. Mallya, S. Tyree, I. Frosio, J. Kautz, Importance Estimation for Neural Network
    Pruning (2019, arXiv:1906.10771), with the gradient of one batch. Which channels hang together
    is found with Torch-Pruning: G. Fang, X. Ma, M. Song, M. B. Mi, X. Wang, DepGraph: Towards Any
    Structural Pruning (2023, arXiv:2301.12900). They prune and then fine-tune; here the same run
    goes on, with the optimizer's state.

    What the network is called with is found by an extra pass of ``training_step`` on the batch at
    hand, from which nothing stays. Of a network whose training step calls several parts itself,
    what goes from one to the other keeps its channels, and a part counts as often as it is called
    with inputs of the same shapes, up to 16 times. All ranks do what the first one decides. A copy
    of the network that the module averages by itself isn't cut with it, and fails then: use EMA.

    When:
        A large network is there, or its best widths are unknown, and a smaller one is wanted.

    When not:
        The widths are known: the narrow network, trained from scratch for as long, is often as
        good or better (Z. Liu, M. Sun, T. Zhou, G. Huang, T. Darrell, Rethinking the Value of
        Network Pruning, 2018, arXiv:1810.05270). Measure against it.

    Args:
        speed_up: how many times fewer there are in the end, at least 1; it is met within 5 %.
        at: span of training before the first removal; 0 is before its first step, by untrained
            weights unless others were loaded, and ``"100%"`` at its end, with no training after it.
        steps: in how many steps it is done, at least 1; after step ``i`` the model is
            ``speed_up ** (i / steps)`` times smaller.
        every: span between two steps.
        by: ``"multiply_adds"`` or ``"parameters"``.
        importance: ``"magnitude"`` of the weights, or ``"taylor"``, which also asks the gradient.
        scope: ``"layer"``: every layer loses about the same share; ``"global"``: those go first
            that matter least in their layer for what they save.
        align: changed numbers of channels are multiples of it, at least 1. Devices are often slow
            for others than multiples of 8.
        keep: name patterns of layers that stay as they are.

    Raises:
        ArgumentError, ArgumentTypeError: if an argument has a bad value.
        TechniqueError: before the first step, if the target can't be reached, the module can't be
            traced or is sharded, the training step takes the ``dataloader_iter``, or an optimizer
            or technique can't go on with smaller parameters. A removal that turns out impossible
            later is left out, with a warning.

    Choosing channels needs ``pip install 'lightning-dlopt[pruning]'``, a checkpoint doesn't: it
    keeps the arguments and the plan, which is the widths before and now and how many steps are
    done. :func:`load_from_checkpoint` rebuilds the model.

    At each of its steps a line says what was removed, and the loggers get the shares
    ``multiply_adds_left`` and ``parameters_left``. A warning names a best checkpoint from before.

    Example:
        >>> ChannelPruning(speed_up=3.0, at="30%", steps=2)
        ChannelPruning(speed_up=3.0, at='30%', steps=2)
    """

    exclusive: ClassVar[str | None] = "channel pruning"

    def __init__(
        self,
        speed_up: float = 2.0,
        at: Span = "50%",
        steps: int = 1,
        every: Span = "1ep",
        by: Literal["multiply_adds", "parameters"] = "multiply_adds",
        importance: Literal["magnitude", "taylor"] = "magnitude",
        scope: Literal["layer", "global"] = "layer",
        align: int = 8,
        keep: Sequence[str] = (),
    ) -> None:
        self.speed_up = check_number(self, "speed_up", speed_up, "[1, inf)")
        self._at = parse_span(at, self, "at")
        self.at = at
        self.steps = check_integer(self, "steps", steps, "[1, inf)")
        self._every = parse_period(every, self, "every")
        self.every = every
        check_choice(self, "by", by, ("multiply_adds", "parameters"))
        self.by = by
        check_choice(self, "importance", importance, ("magnitude", "taylor"))
        self.importance = importance
        check_choice(self, "scope", scope, ("layer", "global"))
        self.scope = scope
        self.align = check_integer(self, "align", align, "[1, inf)")
        self.keep = check_keep(self, keep)
        self._forget()

    def _forget(self) -> None:
        self._due: Callable[[int], int] | None = None  # how many removals by a step
        self._is_known = False  # that the target can be reached
        self._has_end = False  # whether one removal comes after the last batch
        self._last: tuple[Any, int] | None = None  # the batch for it

    # ---- the plan ----

    def operate(self, module: nn.Module, generator: torch.Generator) -> dict[str, Any]:
        """Change nothing yet."""
        if self.speed_up == 1:
            self.warn_no_effect("speed_up is 1")
            return {}
        return {"parts": {}, "tensors": {}, "steps": 0, "left": {}}

    @classmethod
    def redo(cls, module: nn.Module, plan: dict[str, Any]) -> None:
        """Give the module the plan's widths; what an earlier plan had cut grows again."""
        own = [entry["plan"] for entry in plan_of(module) if entry["technique"] == cls.__name__]
        reshape_to(module, merge(reversed_plan(own[0]) if own else {}, plan))

    # ---- what Lightning calls ----

    def prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what it can't work with."""
        self._forget()
        check_run(self, trainer, pl_module, needs_loss=self.importance == "taylor")

    def before_restore(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Bring the model to the checkpoint's widths; see that no optimizer has the old weights."""
        self._coverage = Coverage(pl_module)
        super().before_restore(trainer, pl_module, checkpoint)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See that channels can be chosen, if any are to be."""
        super().on_fit_start(trainer, pl_module)
        if self._done(pl_module) < self.steps:
            torch_pruning()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the steps at which channels are removed."""
        if self.speed_up == 1:
            return
        check_trained(self, trainer, pl_module)
        run = RunLength.of(trainer, automatic=pl_module.automatic_optimization)
        self._due = due = removals_by(self, run, self._at, self._every, self.steps)
        self._has_end = run.total is not None and due(run.total) > due(run.total - 1)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remove channels if the time has come; never in the middle of an accumulation window."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        if self._has_end:
            self._last = copied(batch), batch_idx
        if pl_module.automatic_optimization and batch_idx % trainer.accumulate_grad_batches:
            return
        self._work(trainer, pl_module, batch, batch_idx)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove channels at the end of training, if it is for then."""
        if self._last is not None:
            self._work(trainer, pl_module, *self._last)
        if self._done(pl_module) == 0:
            self.warn_no_effect("training ended before any channel was removed")
        elif trainer.is_global_zero:
            tell_of_larger_checkpoints(self, trainer, self._done(pl_module))

    def let_go(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep nothing of the run."""
        super().let_go(trainer, pl_module)
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        arguments = {name: getattr(self, name) for name in self.arguments()}
        return {**super().__getstate__(), **vars(type(self)(**arguments))}

    # ---- how it is done ----

    def _plan(self, module: nn.Module) -> dict[str, Any]:
        entry = find_entry(module, self.state_key)
        return entry["plan"] if entry is not None else {"steps": self.steps}

    def _done(self, module: nn.Module) -> int:
        return int(self._plan(module)["steps"])

    def _work(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remove the channels that are due by now, and see at first that all can be."""
        done, due = self._done(pl_module), self._due(_step(trainer)) if self._due else 0
        if done == self.steps or (self._is_known and due <= done):
            return
        try:
            calls = record_calls(trainer, pl_module, batch, batch_idx)
        except TechniqueError as error:
            raise self.refuse(str(error)) from error
        gradients: Gradients | None = ()
        if self.importance == "taylor":
            gradients = gradients_of(trainer, pl_module, batch, batch_idx)
        if not calls or gradients is None:  # the step leaves this batch out
            return
        if not self._is_known and done == 0:
            for steps in {1, self.steps} - {due}:  # is it possible at all?
                self._choose(trainer, pl_module, calls, gradients, steps)
        if due > done:
            self._remove(trainer, pl_module, calls, gradients, due)
        self._is_known = True

    def _choose(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        calls: list[Call],
        gradients: Gradients,
        steps: int,
    ) -> Shrinkage | None:
        """Return what is to be removed until ``steps`` steps are done, None if nothing is."""
        plan = self._plan(pl_module)
        speed_up = self.speed_up ** (steps / self.steps) * plan["left"].get(self.by, 1.0)
        if speed_up <= 1:  # an earlier step has removed enough for this one
            return None
        try:
            return choose_together(
                trainer,
                pl_module,
                calls,
                gradients,
                speed_up=speed_up,
                by=self.by,
                importance=self.importance,
                scope=self.scope,
                keep=self.keep,
                align=self.align,
            )
        except (ArgumentError, TechniqueError) as error:
            if not self._is_known and plan["steps"] == 0:
                raise self.refuse(str(error).removeprefix("choose_channels: ")) from error
            # hours of training aren't thrown away for a step that comes out otherwise
            warnings.warn(f"{self!r} leaves out a removal: {error}", stacklevel=2)
            return None

    def _remove(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        calls: list[Call],
        gradients: Gradients,
        steps: int,
    ) -> None:
        shrinkage = self._choose(trainer, pl_module, calls, gradients, steps)
        plan = {**self._plan(pl_module), "steps": steps}
        if shrinkage is not None and shrinkage.kept:
            before = costs(trainer, pl_module, calls)
            cut_channels(self, trainer, pl_module, shrinkage)
            now = costs(trainer, pl_module, calls)
            left = {by: plan["left"].get(by, 1.0) * now[by] / before[by] for by in now}
            plan = {**plan, **merge(plan, shrinkage.plan), "left": left}
            tell_removal(self, trainer, shrinkage, left, _step(trainer))
        elif shrinkage is not None and not plan["parts"]:
            self.warn_no_effect("no layer has channels that could be removed")
        self.record(pl_module, plan)


def _step(trainer: Trainer) -> int:
    manual = not trainer.lightning_module.automatic_optimization
    return trainer.fit_loop.total_batch_idx if manual else trainer.global_step
