"""Another optimizer than the module's own, with weight decay and rates group by group."""

from collections.abc import Mapping
from typing import Any, ClassVar

from lightning.pytorch import LightningModule, Trainer
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.optim import Optimizer

from lightning_dlopt.core.coverage import Coverage, in_optimizers, listed
from lightning_dlopt.core.errors import ArgumentError, ArgumentTypeError, CheckpointError, UserError
from lightning_dlopt.core.named_modules import sparse_embeddings
from lightning_dlopt.core.plain import plain
from lightning_dlopt.core.resume import SavedTechnique
from lightning_dlopt.core.technique import Technique
from lightning_dlopt.optimizers.brought_schedulers import MoveError, move_scheduler
from lightning_dlopt.optimizers.building import (
    Bucket,
    BuildError,
    build,
    default_options,
    leaves,
    sort_parameters,
    with_optimizer,
)
from lightning_dlopt.optimizers.given import (
    MakesOptimizer,
    description,
    differing_option,
    group_options,
    optimizer_class,
    sample,
)
from lightning_dlopt.optimizers.groups import (
    NoDecay,
    check_layer_decay,
    check_no_decay,
    hidden_matrices,
    layer_numbers,
)
from lightning_dlopt.optimizers.schedule_free import lacks_switching

_INSTEAD = (
    "to change the optimizer, load the weights alone (load_from_checkpoint) and start a new fit"
)


class UseOptimizer(Technique):
    """Train with another optimizer than the one the module brings.

    What the module's ``configure_optimizers`` returns is replaced: the new optimizer gets exactly
    the parameters that the module's own had, so what the module left out stays out. Of the own
    optimizer's param groups three things are kept: how the groups' rates relate to each other
    (the group with the highest rate gets the new optimizer's), a weight decay of 0 that stands
    beside others that are not, and which parameters belong together. Its other options are gone,
    and so is its state, if the module kept it from an earlier fit.

    A scheduler that the module brings goes on with the new rates, as if the module had built it
    over the new optimizer. torch's own are known to allow that; ``OneCycleLR`` and ``CyclicLR``,
    whose rates are written into them, and foreign classes are refused.

    Where torch has a fused form of the optimizer for the parameters' device and type, it is used,
    unless ``fused`` or ``foreach`` is given, or ``optimizer`` is a function and no class; groups
    with an embedding made with ``sparse=True`` are left out (sparse gradients from elsewhere need
    ``fused=False``), and so is SGD with both momentum and dampening. Clipping and 16-bit training
    work with it as with the others, which is not so for a module's own optimizer with
    ``fused=True``.

    Sources, formulas, and how Keras's optimizers differ: :mod:`lightning_dlopt.optimizers`.

    When:
        Another optimizer, biases and norms out of the decay, or rates by layer, on a module nobody
        edits.

    When not:
        Modules with several optimizers; those that step or schedule one by hand which they keep
        under a name of their own (``self.o``): they go on holding the one that was replaced, and
        train nothing. What is used is in ``self.optimizers()`` and ``trainer.optimizers``.

    Args:
        optimizer: builds the optimizer from parameters: a class such as ``torch.optim.SGD``, a
            ``functools.partial`` of one, a function; in YAML a ``class_path`` with ``init_args``.
        no_decay: what the optimizer's ``weight_decay`` leaves alone. ``"auto"``: biases, every
            other tensor of fewer than two dimensions, weight normalization's gains, and torch's
            normalization layers (embeddings are decayed); or a list of name patterns
            (``fnmatch``) instead; or None for nothing.
        layer_decay: each layer nearer to the input trains at this many times the rate of the next
            one, in (0, 1]: of n layers, layer i (the first is 0) has ``lr * layer_decay ** (n - 1
            - i)``. (K. Clark and others, ELECTRA, 2020, arXiv:2003.10555; H. Bao and others,
            BEiT, 2021, arXiv:2106.08254.) A layer is a module that holds a matrix or kernel, in
            the order of registration; norms count to the layer before them; what the optimizer
            doesn't have is no layer, nor is a frozen one after the first that is trained. Those
            papers count a whole transformer block as one layer: where a block has six matrices,
            0.75 there is 0.75 ** (1/6) here. A learning-rate schedule multiplies each of these
            rates.

    The checkpoint keeps the arguments, the optimizer's class and the options of its param groups as
    they were built, and a run is resumed only with the same: options and state of an optimizer
    come from the checkpoint, so others would have no effect, or fail at the first step.

    Raises:
        ArgumentError: if an argument has a value outside its range; also if the optimizer refuses
            its own arguments.
        ArgumentTypeError: if an argument has the wrong type.
        TechniqueError: in training, if the module has several optimizers or none; if its optimizer
            trains parameters that are not the module's; or if the model was changed by other
            callbacks after its optimizer was made; or for a schedule-free optimizer without
            :class:`ScheduleFree`.
        CheckpointError: on resuming from a checkpoint made with another optimizer.

    Example:
        >>> import torch
        >>> from functools import partial
        >>> UseOptimizer(partial(torch.optim.SGD, lr=0.1), no_decay=None)
        UseOptimizer(optimizer={'class_path': 'torch.optim.sgd.SGD', 'init_args': {'lr': 0.1}}, \
no_decay=None)
    """

    exclusive: ClassVar[str | None] = "choice of the optimizer"
    required_on_resume: ClassVar[bool] = True

    def __init__(
        self,
        optimizer: MakesOptimizer,
        no_decay: str | list[str] | None = "auto",
        layer_decay: float | None = None,
    ) -> None:
        if not callable(optimizer):
            raise ArgumentTypeError(
                f"UseOptimizer: optimizer={optimizer!r} must be a class or function that makes an "
                "optimizer from parameters, such as torch.optim.SGD"
            )
        self.optimizer = optimizer
        self.no_decay: NoDecay = check_no_decay(self, no_decay)
        self.layer_decay = check_layer_decay(self, layer_decay)
        if optimizer_class(optimizer) is not None:
            try:
                sample(optimizer)
            except (ValueError, TypeError, RuntimeError) as error:
                raise ArgumentError(
                    f"UseOptimizer: optimizer={description(optimizer)}: {error}"
                ) from error
        self._built: Optimizer | None = None
        self._forget()

    def _forget(self) -> None:
        self._built_class: str | None = None
        self._saved_class: str | None = None
        self._built_options: list[dict[str, Any]] | None = None
        self._saved_options: list[dict[str, Any]] | None = None

    def arguments(self) -> dict[str, Any]:
        """Return the constructor's arguments, the optimizer as class path and arguments."""
        return {
            "optimizer": description(self.optimizer),
            "no_decay": plain(self.no_decay),
            "layer_decay": self.layer_decay,
        }

    # ---- what Lightning calls ----

    def prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stand between the module's ``configure_optimizers`` and its caller."""
        self._built = None
        self._forget()
        self._coverage = Coverage(pl_module)

        def wrap(original: Any) -> Any:
            def configure_optimizers() -> Any:
                return self._replace(trainer, pl_module, original())

            return configure_optimizers

        self.patch(pl_module, "configure_optimizers", wrap)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the checkpoint's optimizer before its state is loaded, and at who switches it."""
        self._check_saved()
        if problem := lacks_switching(trainer, self._built):
            raise self.refuse(problem)
        self._check_coverage(pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See whether other callbacks have changed the model behind the optimizer's back."""
        self._check_coverage(pl_module)
        groups = self._built.param_groups if self._built else []
        if groups and all(float(group.get("lr", 1)) == 0 for group in groups):
            self.warn_no_effect("the optimizer's rate is 0")

    def let_go(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let go of the optimizer, so that a module that brings this technique can be pickled."""
        self._built = None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_built": None}

    def extra_state(self) -> dict[str, Any]:
        """Keep which optimizer's state the checkpoint holds."""
        return {"optimizer_class": self._built_class, "optimizer_options": self._built_options}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Note which optimizer's state the checkpoint holds."""
        self._saved_class = state_dict["optimizer_class"]
        self._saved_options = state_dict.get("optimizer_options")
        self._check_saved()

    def check_resume(self, saved: list[SavedTechnique]) -> None:
        """Refuse a checkpoint whose optimizer was another, or had other options."""
        names = [other.name for other in saved if other.exclusive == self.exclusive]
        if self.state_key in names:
            return
        had = names[0] if names else "the module's own optimizer"
        instead = "with that" if names else "without UseOptimizer"
        raise CheckpointError(
            f"the checkpoint was saved with {had}, and this run has {self!r}: the optimizer's "
            f"state and options come from the checkpoint. Resume {instead}; or, {_INSTEAD}"
        )

    # ---- building ----

    def _check_saved(self) -> None:
        if None not in (self._built_class, self._saved_class) and (
            self._built_class != self._saved_class
        ):
            raise CheckpointError(
                f"the checkpoint holds the state of {self._saved_class}, and {self!r} has made "
                f"{self._built_class}: resume with the optimizer it was saved with"
            )
        if difference := differing_option(self._saved_options, self._built_options):
            raise CheckpointError(
                f"{self!r}: the checkpoint's optimizer was made with {difference}: options come "
                f"from the checkpoint, so resume with its own; or, {_INSTEAD}"
            )

    def _check_coverage(self, pl_module: LightningModule) -> None:
        if self._built is not None:
            self._coverage.check(repr(self), pl_module, [self._built])

    def _replace(self, trainer: Trainer, pl_module: LightningModule, configured: Any) -> Any:
        found = list(leaves(configured))
        optimizers = [leaf for leaf in found if isinstance(leaf, Optimizer)]
        schedulers = [leaf for leaf in found if not isinstance(leaf, Optimizer)]
        if len(optimizers) != 1:
            count = len(optimizers) or "no"
            raise self.refuse(
                f"{type(pl_module).__name__} has {count} optimizers, and only one can be replaced"
            )
        old = optimizers[0]
        self._coverage.check(repr(self), pl_module, [old])
        try:
            buckets = self._sort(trainer, pl_module, old)
            sparse = {id(layer.weight) for _, layer in sparse_embeddings(pl_module)}
            new = build(self.optimizer, buckets, sparse)
        except (BuildError, UserError) as why:
            raise self.refuse(str(why)) from why
        self._built, self._built_class = new, plain(type(new))
        self._built_options = group_options(new)
        try:
            for scheduler in schedulers:
                move_scheduler(scheduler, old, new, [bucket.origin for bucket in buckets])
        except MoveError as why:
            raise self.refuse(
                f"{type(pl_module).__name__} brings a scheduler that can't be kept: {why}. Remove "
                "it from configure_optimizers, and use a schedule of lightning_dlopt.schedules"
            ) from why
        self._coverage = Coverage(pl_module)
        return with_optimizer(configured, new)

    def _sort(self, trainer: Trainer, pl_module: LightningModule, old: Optimizer) -> list[Bucket]:
        own = {id(parameter) for parameter in pl_module.parameters()}
        foreign = [p for key, p in in_optimizers([old]).items() if key not in own]
        if foreign:
            shapes = listed([str(tuple(parameter.shape)) for parameter in foreign])
            raise BuildError(
                f"the optimizer of {type(pl_module).__name__} holds parameters that aren't the "
                f"module's, of shape {shapes}: if the model was changed after the optimizer was "
                "made, make it in configure_optimizers; else make them the module's"
            )
        defaults = default_options(self.optimizer)
        decays, parts = bool(defaults.get("weight_decay")), "use_muon" in defaults
        model: Any = trainer.strategy.model
        flat = any(isinstance(m, FullyShardedDataParallel) for m in model.modules())
        if flat and (parts or (decays and self.no_decay == "auto")):
            raise BuildError(
                "FSDP's flat parameters don't show which are matrices and which are biases: use "
                "FSDP2 (ModelParallelStrategy) or DDP"
                + ("" if parts else ", or give no_decay as a list of names, or None")
            )
        self._warn_of_idle_arguments(pl_module, set(in_optimizers([old])), decays, parts)
        return sort_parameters(pl_module, old, defaults, self.no_decay, self.layer_decay)

    def _warn_of_idle_arguments(
        self, pl_module: LightningModule, held: set[int], decays: bool, parts: bool
    ) -> None:
        if self.no_decay not in (None, "auto") and not decays:
            self.warn_no_effect("no_decay is given, and the optimizer has no weight decay")
        if self.layer_decay not in (None, 1) and layer_numbers(pl_module, held)[1] < 2:
            self.warn_no_effect("layer_decay is given, and the module has one layer only")
        if parts and not hidden_matrices(pl_module, held):
            self.warn_no_effect("the module has no hidden matrix; AdamW trains all of it")
