"""Layers that don't train for a part of the run."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.nn.parameter import is_lazy

from lightning_dlopt.core.checks import check_choice
from lightning_dlopt.core.errors import ArgumentError
from lightning_dlopt.core.replaced import Replaced
from lightning_dlopt.core.run_length import RunLength
from lightning_dlopt.core.spans import Span, parse_span
from lightning_dlopt.core.strategies import strategy_kind
from lightning_dlopt.core.technique import Technique, techniques_of
from lightning_dlopt.optimizers.freezing import (
    check_patterns,
    find_parameters,
    find_statistics,
    unfreeze,
)


class FreezeLayers(Technique):
    """Keep layers from training until a point of the run, or from one on.

    A frozen parameter has no gradient: no loss, weight decay, momentum, penalty or clipping norm
    knows of it. It stays in its optimizer's param group and takes up training without any change
    there.

    Source: unfreezing the layers of a pretrained network one after another, the last first, is due
    to J. Howard, S. Ruder: Universal Language Model Fine-tuning for Text Classification, 2018,
    arXiv:1801.06146; freezing early layers for good while others go on, to A. Brock, T. Lim, J. M.
    Ritchie, N. Weston: FreezeOut: Accelerate Training by Progressively Freezing Layers, 2017,
    arXiv:1706.04983. Neither's schedule of rates is part of this.

    On one device the frozen layers' backward pass is saved, too. Under DDP and FSDP2, which decide
    at the start what they synchronize, and where the whole of an optimizer rests under manual
    optimization, gradients are computed and dropped: it costs what training costs.

    Layers are looked up by name when the time comes, and at each epoch's start, as they may have
    been replaced (not under FSDP2). Parameters that are frozen otherwise by then stay frozen, and
    after training every one is as it was before; only what the module freezes while it is frozen
    here trains afterwards. Under manual optimization a batch counts as a step. What is frozen
    follows from the step alone, so a resumed run goes on as it would have; the checkpoint keeps the
    arguments only.

    When:
        A pretrained network gets a new head, which trains first (``until``); or early layers have
        settled, and their backward pass can be saved (``after``).

    When not:
        The frozen layers are random ones, which would stay so; under DDP and FSDP2 to save time.

    Args:
        patterns: a name pattern or a list of them (``fnmatch``, case-sensitive), for parameters
            (``"*.bias"``) or for modules, which stand for all in them (``"encoder"`` takes
            ``encoder.0.weight``).
        until: how long they are frozen, from the start of the run.
        after: when they are frozen, to the end of the run. Exactly one of the two is given.
        batch_norm: ``"eval"`` keeps running statistics whose names match (``bn.running_mean``)
            as they are and normalizes by them while their layer is frozen, as Keras does;
            ``"train"`` goes on normalizing by the batch and updating them, as torch does when
            only ``requires_grad`` is set.

    Raises:
        TechniqueError: before the first step, if a pattern matches nothing, if nothing would be
            left to train, if a layer to be frozen then is lazy, or for strategies other than one
            device, DDP and FSDP2.

    Example:
        >>> FreezeLayers("encoder", until="20%")
        FreezeLayers(patterns=['encoder'], until='20%')
    """

    def __init__(
        self,
        patterns: str | Sequence[str],
        until: Span | None = None,
        after: Span | None = None,
        batch_norm: str = "eval",
    ) -> None:
        self.patterns = check_patterns(self, "patterns", patterns)
        if (until is None) == (after is None):
            raise ArgumentError(
                f"FreezeLayers: exactly one of until={until!r} and after={after!r} must be given"
            )
        self._span = (
            parse_span(after, self, "after") if until is None else parse_span(until, self, "until")
        )
        self.until = until
        self.after = after
        self.batch_norm = check_choice(self, "batch_norm", batch_norm, ("eval", "train"))
        self._forget()

    def _forget(self) -> None:
        self._boundary = 0
        self._manual = False
        self._keeps_graph = False  # gradients are dropped, requires_grad is left alone
        self._is_sharded = False
        self._parameters: list[nn.Parameter] = []
        self._frozen: list[nn.Parameter] | None = None  # None: not frozen now
        self._held: frozenset[int] = frozenset()  # the same by id
        self._silenced: list[nn.Module] = []

    # ---- what Lightning calls ----

    def prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See whether the strategy's gradients can be dropped, and do so where some may appear."""
        self._forget()
        kind = strategy_kind(trainer)
        if kind == "other":
            raise self.refuse(
                f"{type(trainer.strategy).__name__} isn't supported: use one device, DDP or FSDP2"
            )
        self._manual = not pl_module.automatic_optimization
        self._keeps_graph = kind != "single"
        self._is_sharded = kind == "sharded"

        def dropping(original: Callable[..., Any], *, first: bool) -> Callable[..., Any]:
            def around(*args: Any, **kwargs: Any) -> Any:
                if first:
                    self._drop_gradients()
                result = original(*args, **kwargs)
                if not first:
                    self._drop_gradients()
                return result

            return around

        # before any hook can take the gradients for those of the step
        if self._keeps_graph or self._manual:
            self.patch(pl_module, "backward", lambda original: dropping(original, first=False))
        if not self._manual:  # a technique may have made gradients where there were none
            name = "configure_gradient_clipping"
            self.patch(pl_module, name, lambda original: dropping(original, first=True))

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the parameters, or refuse.

        FSDP2 hasn't put whole copies in the place of the parameters that are trained yet, as it
        does in the sanity check.
        """
        try:
            found = find_parameters(pl_module, self.patterns)
        except ArgumentError as error:
            raise self.refuse(str(error)) from error
        self._parameters = [parameter for parameter in found if parameter.requires_grad]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the step at which it changes; refuse to freeze all."""
        run = RunLength.of(trainer, automatic=not self._manual)
        try:
            self._boundary = self._span.steps(run)
        except ArgumentError as error:
            raise self.refuse(str(error)) from error
        self._parameters = self._find(trainer, pl_module)
        trained = {id(p) for o in trainer.optimizers for g in o.param_groups for p in g["params"]}
        if not any(id(parameter) in trained for parameter in self._parameters):
            self.warn_no_effect("none of the parameters that match is trained by an optimizer")
        elif self.until is not None and self._boundary == 0:
            self.warn_no_effect(f"until={self.until!r} is no step at all")
        elif self.after is not None and run.total is not None and self._boundary >= run.total:
            if not run.trial:
                self.warn_no_effect(f"after={self.after!r} doesn't come before the end of the run")
        else:
            self._refuse_to_freeze_all(trainer, {id(parameter) for parameter in self._parameters})

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Freeze or unfreeze when the time has come.

        Not before the first batch: until then, other techniques look for what is trained.
        """
        step = trainer.fit_loop.total_batch_idx if self._manual else trainer.global_step
        wanted = step < self._boundary if self.after is None else step >= self._boundary
        if wanted and (self._frozen is None or batch_idx == 0):
            self._freeze(trainer, pl_module)
        elif not wanted and self._frozen is not None:
            self._release(trainer)
        for part in self._silenced:
            part.eval()  # validation and others may have set the module's mode anew

    def parameters_replaced(
        self, trainer: Trainer, pl_module: LightningModule, replaced: Replaced
    ) -> None:
        """Hold those that stand in the place of the parameters held."""
        self._parameters = [replaced.now(parameter) for parameter in self._parameters]
        if self._frozen is not None:
            self._frozen = [replaced.now(parameter) for parameter in self._frozen]
            self._held = frozenset(id(parameter) for parameter in self._frozen)

    def let_go(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave every parameter as it was before training."""
        self._release(trainer)
        self._parameters = []

    def __getstate__(self) -> dict[str, Any]:
        # a copy of a module in mid-training isn't under training itself
        gone: dict[str, Any] = {
            "_parameters": [],
            "_frozen": None,
            "_held": frozenset(),
            "_silenced": [],
        }
        return {**super().__getstate__(), **gone}

    def holds(self, parameter: nn.Parameter) -> bool:
        """Return whether a parameter is frozen now; ``requires_grad`` doesn't tell under DDP."""
        return id(parameter) in self._held

    # ---- how it is done ----

    def _drop_gradients(self) -> None:
        for parameter in self._frozen or ():
            parameter.grad = None

    def _find(self, trainer: Trainer, pl_module: LightningModule) -> list[nn.Parameter]:
        """Return what matches now and would train; layers may have been replaced or frozen."""
        if self._is_sharded:
            return self._parameters
        found: dict[int, nn.Parameter] = {}
        for pattern in self.patterns:
            with suppress(ArgumentError):  # it matched at the start; its layer is gone
                found.update((id(p), p) for p in find_parameters(pl_module, [pattern]))
        freezers = (self, *self._others(trainer))
        held = {id(parameter) for one in freezers for parameter in one._frozen or ()}
        return [p for p in found.values() if p.requires_grad or id(p) in held]

    def _freeze(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freeze what matches, or what is new of it."""
        known = {id(parameter) for parameter in self._frozen or ()}
        is_new = self._frozen is None
        found = self._find(trainer, pl_module)
        if any(is_lazy(parameter) for parameter in found):
            raise self.refuse(
                "what it would freeze has no values yet, as its layers are lazy: run a batch "
                "through the module before training"
            )
        self._frozen, self._held = found, frozenset(id(parameter) for parameter in found)
        others = self._others(trainer)
        together = {id(p) for one in (self, *others) for p in one._frozen or ()}
        rests = self._refuse_to_freeze_all(trainer, together)
        # an optimizer all of whose parameters rest may be toggled: its loss needs a graph
        keeps_graph = self._keeps_graph or rests
        for parameter in self._frozen:
            if id(parameter) not in known:
                parameter.grad = None
                if not keeps_graph:
                    parameter.requires_grad_(False)
        if is_new and self.batch_norm == "eval":
            silent = {id(part) for other in others for part in other._silenced}
            self._silenced = [
                part
                for part in find_statistics(pl_module, self.patterns)
                if part.training or id(part) in silent
            ]

    def _others(self, trainer: Trainer) -> list["FreezeLayers"]:
        freezers = [t for t in techniques_of(trainer) if isinstance(t, FreezeLayers)]
        return [freezer for freezer in freezers if freezer is not self]

    def _release(self, trainer: Trainer) -> None:
        others = self._others(trainer)
        held = {id(parameter) for other in others for parameter in other._frozen or ()}
        if not self._keeps_graph:
            unfreeze([p for p in self._frozen or () if id(p) not in held])
        still = {id(part) for other in others for part in other._silenced}
        for part in self._silenced:
            if id(part) not in still:
                part.train()
        self._frozen, self._held, self._silenced = None, frozenset(), []

    def _refuse_to_freeze_all(self, trainer: Trainer, frozen: set[int]) -> bool:
        """Return whether a whole optimizer would rest; refuse where that can't be."""
        rests = False
        for optimizer in trainer.optimizers:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            if any(p.requires_grad and id(p) not in frozen for p in parameters):
                continue
            if not any(id(p) in frozen for p in parameters):
                continue
            rests = True
            # a loss scaler can't step an optimizer without gradients
            scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
            if not self._manual or len(trainer.optimizers) == 1 or scaled:
                raise self.refuse(
                    f"it would freeze every parameter that {type(optimizer).__name__} trains: "
                    "give patterns that leave some"
                )
        return rests
