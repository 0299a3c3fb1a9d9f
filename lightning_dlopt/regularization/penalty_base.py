"""What L1, L2 and Elastic Net share: which parameters, when, and what is logged."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_dlopt.core.checks import check_choice, check_flag
from lightning_dlopt.core.errors import ArgumentError, ConflictError
from lightning_dlopt.core.gradients import unscale_gradients, was_skipped
from lightning_dlopt.core.log_interval import is_logging_step
from lightning_dlopt.core.parameters import Selection, check_selection, select_parameters
from lightning_dlopt.core.technique import Technique, techniques_of
from lightning_dlopt.regularization.penalties import (
    add_elastic_net_gradient_,
    elastic_net_penalty,
    soft_threshold_,
    zero_share,
)
from lightning_dlopt.regularization.penalty_refusals import (
    problem_of_bare_step,
    problem_of_group,
    problem_of_run,
)
from lightning_dlopt.regularization.penalty_run import Run, Share
from lightning_dlopt.regularization.tensor_groups import Workspace, try_kernels


class Penalty(Technique, ABC):
    """Penalizes ``l1 * sum |w| + l2 * sum w**2`` of the selected parameters.

    How it acts on the weights, by ``method``:

    * the *gradient* forms (``"subgradient"``, ``"gradient"``) add ``l1 * sign(w) + 2 * l2 * w`` to
      the gradients once per optimizer step, when they are summed over ranks and micro-batches and
      free of the loss scale, and before the Trainer clips them: what the penalty in the loss would
      give. Under manual optimization they are added inside ``optimizer.step()``, after whatever
      clipping ``training_step`` has done;
    * the *proximal* form leaves the gradients alone and, after each step that was really made (not
      one that 16-bit training skipped), moves each weight ``w`` to
      ``soft(w, lr * l1) / (1 + 2 * lr * l2)``, with ``lr`` the current rate of its param group.

    In either form: only parameters of the optimizer that steps, a shared one once, frozen ones not
    at all. A selected parameter that has no gradient in a step is penalized as the others, as it
    would be in the loss; but an optimizer none of whose parameters has a gradient (because
    ``training_step`` returned None) is left alone.

    With gradient accumulation every step takes the whole penalty, also the last one of an epoch,
    whose window may be shorter; Lightning would give a penalty in the loss its share of it only.

    Steps made past Lightning, on the bare optimizer, would not be penalized, and raise a
    TechniqueError that names what to call instead: before the step, or, if it was given a closure,
    after it.

    Logged at the Trainer's logging interval, and computed at no other step: the penalty's value at
    the weights before the step, and in the proximal form the share of weights that are exactly 0,
    under the names in the class's text. With several penalties of one class, the second's names
    end in ``_2``, and so on.
    """

    not_identity: ClassVar[frozenset[str]] = frozenset({"compile"})
    #: Begins the names of what is logged.
    log_name: ClassVar[str]
    #: Values of ``method``; the first adds to the gradients.
    methods: ClassVar[tuple[str, ...]]
    _run: Run | None = None

    def __init__(self, parameters: Selection, method: str, compiled: bool) -> None:
        self.parameters = check_selection(self, "parameters", parameters)
        self.method = check_choice(self, "method", method, self.methods)
        self.compile = check_flag(self, "compile", compiled)

    @property
    @abstractmethod
    def strengths(self) -> tuple[float, float]:
        """The strengths (l1, l2)."""

    @property
    def acts_on_gradients(self) -> bool:
        """Whether it adds to the gradients, rather than acting on the weights."""
        return self.method == self.methods[0]

    def select(self, module: nn.Module) -> list[Tensor]:
        """Return the module's trainable parameters that are penalized, each once.

        Raises:
            ArgumentError: if a name pattern matches nothing.
        """
        try:
            return [parameter for _, parameter in select_parameters(module, self.parameters)]
        except ArgumentError as error:
            raise ArgumentError(f"{self!r}: {error}") from error

    def value(self, module: nn.Module) -> Tensor:
        """Return the penalty of the module's parameters, differentiable."""
        return elastic_net_penalty(self.select(module), *self.strengths)

    def joins_loss(self) -> None:
        """Learn that the module's own loss holds this penalty, and leave it there.

        Raises:
            TechniqueError: if it can't be left there alone.
        """
        if self._run is None or self._run.in_loss:
            return
        if not self.acts_on_gradients:
            raise self.refuse(
                f"a backward pass went through regularization_loss(), and method={self.method!r} "
                f"would penalize once more: use method={self.methods[0]!r}, or leave it out of "
                "the loss"
            )
        if self._run.has_acted:
            raise self.refuse(
                "a backward pass went through regularization_loss() after earlier steps had been "
                "penalized without it: add it to the loss from the first step on, or give "
                "the penalty to no 'regularization' and use elastic_net_penalty in the loss"
            )
        self._run.in_loss = True

    # ---- what Lightning calls ----

    def prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget what an earlier run left in this object."""
        self.let_go(trainer, pl_module)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the parameters, and refuse what can't work."""
        selected = self.select(pl_module)
        if not any(self.strengths):
            self.warn_no_effect("its strength is 0")
            return
        alike = [t for t in techniques_of(trainer) if type(t) is type(self)]
        place = next(index for index, one in enumerate(alike, 1) if one is self)
        run = self._run = Run(log_suffix="" if place == 1 else f"_{place}")
        self._refuse_what_cannot_work(trainer, pl_module, selected)
        shares = [self._share(run, pl_module, optimizer) for optimizer in trainer.optimizers]
        if not selected:
            self.warn_no_effect(f"parameters={self.parameters!r} selects none that is trained")
        elif not any(share.parameters for share in shares):
            self.warn_no_effect("none of the selected parameters belongs to an optimizer")
        run.finds_some = any(share.parameters for share in shares)
        for optimizer in trainer.optimizers:
            self._watch(run, optimizer)

    @torch.no_grad()
    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Log, and act on the gradients or make ready for what comes after the step."""
        run = self._run
        if run is None:
            return
        share = self._share(run, pl_module, optimizer)
        if is_logging_step(trainer) and run.logged_batch != trainer.fit_loop.total_batch_idx:
            run.logged_batch = trainer.fit_loop.total_batch_idx
            self._log(run, pl_module)
        self._watch(run, optimizer)  # the strategy may have got a new one
        if run.finds_some and not any(any(one.groups) for one in run.shares.values()):
            run.finds_some = False
            self.warn_no_effect("the selected parameters are all frozen (until they are thawed)")
        parameters = (p for group in optimizer.param_groups for p in group["params"])
        # without any gradient there is no step to take part in
        acts = not run.in_loss and any(p.grad is not None for p in parameters)
        if acts:
            run.has_acted = True
            self.before_step(trainer, optimizer, share)
        run.prepared[id(optimizer)] = acts

    def before_step(self, trainer: Trainer, optimizer: Optimizer, share: Share) -> None:
        """Do what must be done before a step that is about to be made."""
        if not self.acts_on_gradients:
            return
        unscale_gradients(trainer, optimizer)
        try:
            add_elastic_net_gradient_(
                share.parameters,
                *self.strengths,
                compiled=self.compile,
                workspace=share.workspaces[0],
            )
        except ArgumentError as error:
            raise self.refuse(str(error)) from error

    def after_step(self, optimizer: Optimizer, share: Share) -> None:
        """Do what must be done after a step that was made."""
        l1, l2 = self.strengths
        # looked up now: restoring an optimizer gives it other groups
        for group, selected, workspace in zip(
            optimizer.param_groups, share.groups, share.workspaces, strict=True
        ):
            rate = float(group["lr"])
            soft_threshold_(
                selected,
                rate * l1,
                1 / (1 + 2 * rate * l2),
                compiled=self.compile,
                workspace=workspace,
            )

    def let_go(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the hooks off the optimizers."""
        if self._run is not None:
            self._run.unwatch()
        self._run = None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_run"}

    def _watch(self, run: Run, optimizer: Optimizer) -> None:
        """Learn of every step that the optimizer makes."""
        watched = run.watch(optimizer, self._before_step, self._after_step)
        if not watched and not self.acts_on_gradients:
            raise self.refuse(f"{type(optimizer).__name__} takes no step hooks")

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        # with a closure, which may prepare it, this is told after the step
        if kwargs.get("closure", args[1] if len(args) > 1 else None) is None:
            self._refuse_unprepared(optimizer)

    def _refuse_unprepared(self, optimizer: Optimizer) -> None:
        run = self._run
        share = run.shares.get(id(optimizer)) if run else None
        if run is None or run.in_loss or id(optimizer) in run.prepared:
            return
        if share is None or share.parameters:
            raise self.refuse(problem_of_bare_step(optimizer))

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._refuse_unprepared(optimizer)
        run = self._run
        if run is None or not run.prepared.pop(id(optimizer), False):
            return
        if self.method == "proximal" and not was_skipped(optimizer):
            self.after_step(optimizer, run.shares[id(optimizer)])

    def _share(self, run: Run, module: nn.Module, optimizer: Optimizer) -> Share:
        """Return the optimizer's part, found anew when it trains others than before."""
        groups: list[Sequence[Tensor]] = [group["params"] for group in optimizer.param_groups]
        key = [id(p) for group in groups for p in group if p.requires_grad]
        share = run.shares.get(id(optimizer))
        if share is None or share.key != key or len(share.groups) != len(groups):
            selected = {id(parameter) for parameter in self.select(module)}
            mine = [[p for p in group if id(p) in selected] for group in groups]
            trained = [p for group in groups for p in group if p.requires_grad]
            share = Share(trained, key, mine, [Workspace() for _ in groups] or [Workspace()])
            run.shares[id(optimizer)] = share
            self.check_share(optimizer, share)
        return share

    def check_share(self, optimizer: Optimizer, share: Share) -> None:
        """Raise a TechniqueError if it can't penalize this optimizer's parameters."""
        for group, selected in zip(optimizer.param_groups, share.groups, strict=True):
            why = problem_of_group(optimizer, group, proximal=self.method == "proximal")
            if selected and why:
                raise self.refuse(why)

    def _refuse_what_cannot_work(
        self, trainer: Trainer, pl_module: LightningModule, selected: list[Tensor]
    ) -> None:
        proximal = self.method == "proximal"
        why = problem_of_run(trainer, pl_module, selected, proximal=proximal)
        if why:
            raise self.refuse(why)
        chosen = {id(parameter) for parameter in selected}
        for other in techniques_of(trainer):
            if (
                proximal
                and other is not self
                and isinstance(other, Penalty)
                and other.method == "proximal"
                and any(other.strengths)
                and chosen & {id(parameter) for parameter in other.select(pl_module)}
            ):
                raise ConflictError(
                    f"{self!r} and {other!r} are both proximal and share parameters, and one after "
                    "the other isn't the proximal step of their sum: use one ElasticNet"
                )
        if self.compile:
            try:
                try_kernels(selected)
            except Exception as error:  # whatever the compiler chain raises
                raise self.refuse(
                    f"torch.compile failed ({type(error).__name__}): train with compile=False"
                ) from error

    def _log(self, run: Run, pl_module: LightningModule) -> None:
        # of all optimizers; those that don't step now may have their parameters frozen for it
        parameters = [p for share in run.shares.values() for p in share.parameters]
        value = elastic_net_penalty(parameters, *self.strengths)
        pl_module.log(f"{self.log_name}_penalty{run.log_suffix}", value)
        if self.method == "proximal":
            pl_module.log(f"{self.log_name}_zero_share{run.log_suffix}", zero_share(parameters))
