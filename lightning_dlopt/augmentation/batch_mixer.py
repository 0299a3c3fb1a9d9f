"""The base of techniques that mix samples of a batch with each other."""

import warnings
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from lightning_dlopt.augmentation.mixed_loss import CatchMixedLabels
from lightning_dlopt.augmentation.mixture import Mixture, looks_mixed, mix_labels, soften
from lightning_dlopt.augmentation.two_passes import TwoPasses, loss_of, with_loss
from lightning_dlopt.core.batch import Key, check_key, find_key, get_tensor, replace_fields
from lightning_dlopt.core.batch_technique import BatchTechnique, RunStep
from lightning_dlopt.core.checks import check_choice, check_integer
from lightning_dlopt.core.errors import ArgumentError, ArgumentTypeError, ConflictError
from lightning_dlopt.core.loss_technique import is_compiled
from lightning_dlopt.core.patching import MIX


class BatchMixer(BatchTechnique):
    """Mixes each training sample with another one, and the loss of their labels.

    The module goes on seeing one hard label for each sample, that of the larger share, so its
    metrics work. How both labels come into the loss, ``labels`` says:

    - ``"loss"``: a cross-entropy of the batch's labels is mixed where the training step computes
      it (see :func:`mixed_cross_entropy`); one of other targets is left alone. Each sample has its
      own share. What the module logs as its loss is the mixed one.
    - ``"twice"``: the training step runs twice on the same inputs, with the one and with the other
      labels, and the losses are mixed; one share holds for the whole batch. Right for any loss, at
      twice the cost. The first pass has the labels of the larger share; the second has the same
      dropout masks, and its logs, BatchNorm statistics, metrics and counters are dropped.
    - ``"soft"``: the module gets ``share · y + (1 - share) · y'``: of numbers (a regression),
      probabilities, or, with ``num_classes``, classes. Metrics of classes must be ready for that.
    - ``"auto"``: floats are ``"soft"``. For classes it is ``"loss"`` if the first step's loss is a
      weighted sum of cross-entropies of the labels and of what doesn't depend on them, and else
      ``"twice"``, with a warning. The first batch has one share, so that either is exact.

    Losses that compare the rows of a batch with each other (contrastive, triplet) mean nothing on
    mixed samples.

    Several techniques: it works on what the other batch techniques give, and what changes the
    cross-entropy (label smoothing, R-Drop, distillation) does so for both labels.

    Args:
        labels: see above.
        num_classes: for ``"soft"`` labels of classes, at least 1.
        input_key: where the input is in the batch: a position, a key, or a field's name.
        target_key: where the target is.

    Raises:
        ConflictError: beside another batch mixer; in the first step, if the module or the data mix
            by themselves, where that can be seen: labels in the batch or in ``cross_entropy`` that
            are probabilities of two classes, or a cross-entropy of the same logits for the labels
            in another order.
        TechniqueError: in the first step, if the batch has no input or target tensor that is
            found; for ``"loss"``, if no cross-entropy of the labels is seen, as in a module that is
            compiled as a whole; under manual optimization for ``"twice"``.

    The checkpoint keeps the arguments, and what ``"auto"`` has found.
    """

    level = MIX
    exclusive: ClassVar[str | None] = "batch mixer"
    _found: str | None = None
    _has_checked = False
    _has_mixed = False
    _compiled = False
    _catcher: CatchMixedLabels | None = None

    def __init__(
        self,
        labels: str = "auto",
        num_classes: int | None = None,
        input_key: Key | None = None,
        target_key: Key | None = None,
    ) -> None:
        self.labels = check_choice(self, "labels", labels, ("auto", "soft", "loss", "twice"))
        self.num_classes = num_classes
        if num_classes is not None:
            self.num_classes = check_integer(self, "num_classes", num_classes, "[1, inf)")
        self.input_key = check_key(self, "input_key", input_key)
        self.target_key = check_key(self, "target_key", target_key)

    @abstractmethod
    def check_inputs(self, inputs: Tensor) -> None:
        """Raise an ArgumentError or ArgumentTypeError for inputs that can't be mixed."""

    @abstractmethod
    def mix(
        self, inputs: Tensor, generator: torch.Generator, one_share: bool = False
    ) -> tuple[Tensor, Mixture | None]:
        """Return mixed inputs and how they were mixed; None if they weren't.

        Args:
            inputs: stay as they are.
            generator: what the draws come from.
            one_share: whether all samples must have the same share.
        """

    def mix_pixels(self, target: Tensor, inputs: Tensor, mixture: Mixture) -> Tensor | None:
        """Return a target of pixels mixed like the inputs, if there is a way to do that."""
        return None

    def change(self, batch: Any, generator: torch.Generator) -> Any:
        """Return mixed inputs with the labels of the larger share; of floats, with mixed ones."""
        mixed, target, mixture = self._mixed(batch, generator)
        if mixture is None:
            return mixed
        labels = mix_labels(target, mixture)
        new = soften(labels) if target.is_floating_point() else labels.first
        return self._with_target(mixed, new)

    def label_shares(self, batch: Any, generator: torch.Generator) -> list[dict[int, float]] | None:
        """Return each sample's classes with their shares; None if the target isn't classes."""
        _, target, mixture = self._mixed(batch, generator)
        if target.is_floating_point() or target.dim() != 1:
            return None
        if mixture is None:
            return [{label: 1.0} for label in target.tolist()]
        labels = mix_labels(target, mixture)
        rows = zip(
            labels.first.tolist(), labels.second.tolist(), labels.share.tolist(), strict=True
        )
        return [{a: s, b: 1 - s} if a != b else {a: 1.0} for a, b, s in rows]

    def step(self, trainer: Trainer, pl_module: LightningModule, run: RunStep, batch: Any) -> Any:
        """Run the training step on mixed inputs, and mix the loss."""
        try:
            return self._step(trainer, pl_module, run, batch)
        except (ArgumentError, ArgumentTypeError) as error:
            raise self.refuse(str(error)) from error

    def _step(self, trainer: Trainer, pl_module: LightningModule, run: RunStep, batch: Any) -> Any:
        target = get_tensor(batch, "target", self.target_key, self)
        manual = not pl_module.automatic_optimization
        way = self._way(pl_module, target)
        one_share = way in ("twice", "auto")
        mixed, _, mixture = self._mixed(batch, self.generator(trainer), one_share)
        if not self._has_checked and len(target):
            self._has_checked = True
            if target.is_floating_point() and looks_mixed(target):
                raise ConflictError(
                    f"{self!r}: the batch's targets are probabilities of two classes, so the data "
                    "are mixed already: keep one of the two"
                )
        if mixture is None:
            if way == "soft":
                whole = Mixture(0, torch.ones(len(target)))
                mixed = self._with_target(
                    mixed, soften(mix_labels(target, whole), self.num_classes)
                )
            return run(mixed)
        pixels = self.mix_pixels(target, get_tensor(mixed, "input", self.input_key), mixture)
        if pixels is not None:
            return run(self._with_target(mixed, pixels))
        labels = mix_labels(target, mixture)
        if way == "soft":
            return run(self._with_target(mixed, soften(labels, self.num_classes)))
        first, second = (self._with_target(mixed, y) for y in (labels.first, labels.second))
        share = float(mixture.share[0]) if len(target) else 1.0
        passes = TwoPasses(trainer, pl_module, run, first, second, max(share, 1 - share))
        if way == "twice":
            return passes.run()
        self._catcher = CatchMixedLabels(labels, self)
        if way == "auto":
            passes.prepare()
        with self._catcher:
            output = run(first)
        loss = loss_of(output)
        if way == "auto":
            return self._decide(pl_module, passes, output, loss)
        if (loss is not None or manual) and not self._catcher.mixed and len(target):
            raise self._uncaught(pl_module)
        return output

    def _way(self, pl_module: LightningModule, target: Tensor) -> str:
        """Return how labels come into the loss of this batch; "auto" as long as it isn't known."""
        if self.labels != "auto":
            return self.labels
        if target.is_floating_point():
            return "soft"
        if pl_module.automatic_optimization:
            if self._compiled and self._found is None:
                self._find("twice", pl_module, "in a compiled training step no loss can be caught")
            return self._found or "auto"
        if self._compiled:
            raise self.refuse(
                f"{type(pl_module).__name__} is compiled as a whole, where its loss can't be "
                "caught, and optimizes manually, so it can't run twice: compile its network instead"
            )
        return "loss"

    def _decide(
        self, pl_module: LightningModule, passes: TwoPasses, output: Any, loss: Tensor | None
    ) -> Any:
        assert self._catcher is not None
        if loss is None:
            return output
        why = self._catcher.why_not_all(loss)
        if why is None:
            self._found = "loss"
            return output
        self._find("twice", pl_module, why)
        if self._catcher.mixed:  # the loss is of both labels in part, so it is computed once more
            return with_loss(output, passes.again())
        return passes.finish(output)

    def _find(self, way: str, pl_module: LightningModule, why: str) -> None:
        self._found = way
        warnings.warn(
            f"{self!r} runs {type(pl_module).__name__}.training_step twice for each batch, once "
            f"for either label, which takes twice the time: {why}. Say labels='twice' if that is "
            "meant, or labels='loss' to mix cross-entropies only",
            stacklevel=2,
        )

    def _mixed(
        self, batch: Any, generator: torch.Generator, one_share: bool = False
    ) -> tuple[Any, Tensor, Mixture | None]:
        inputs = get_tensor(batch, "input", self.input_key, self)
        target = get_tensor(batch, "target", self.target_key, self)
        if not target.dim() or not inputs.dim() or len(inputs) != len(target):
            raise ArgumentError(
                f"the input, of shape {tuple(inputs.shape)}, and the target, of shape "
                f"{tuple(target.shape)}, must have one entry for each sample: say by input_key= "
                "and target_key= where they are"
            )
        mixed, mixture = self.mix(inputs, generator, one_share)
        where = find_key(batch, "input", self.input_key, self)
        return replace_fields(batch, {where: mixed}), target, mixture

    def _with_target(self, batch: Any, target: Tensor) -> Any:
        return replace_fields(batch, {find_key(batch, "target", self.target_key, self): target})

    def _uncaught(self, pl_module: LightningModule) -> Exception:
        way = ": say labels='twice', which is right for any loss"
        return self.refuse(
            f"{type(pl_module).__name__}.training_step computed no cross-entropy of the batch's "
            "labels that could be caught (torch.nn.functional.cross_entropy, nll_loss, or their "
            "modules)" + (way if pl_module.automatic_optimization else "")
        )

    # ---- what Lightning calls ----

    def prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what can't work, and go around the training step."""
        self._found, self._catcher = None, None
        self._has_checked = self._has_mixed = False
        self._compiled = is_compiled(pl_module.training_step)
        if self.neutral() is None:
            if self.labels == "loss" and self._compiled:
                raise self.refuse(
                    f"{type(pl_module).__name__} is compiled as a whole, and in a compiled "
                    "training step the loss can't be caught: compile its network instead "
                    "(module.network.compile()), or say labels='twice'"
                )
            if self.labels == "twice" and not pl_module.automatic_optimization:
                raise self.refuse(
                    f"{type(pl_module).__name__} optimizes manually, so its training step can't "
                    "be run twice for one optimizer step: use automatic optimization"
                )
        super().prepare(trainer, pl_module)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Look out for the training step."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        self._catcher = None

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Refuse a module that steps by itself and whose loss was not mixed."""
        super().on_before_optimizer_step(trainer, pl_module, optimizer)
        manual = not pl_module.automatic_optimization
        if manual and self._catcher is not None and not self._has_mixed:
            if not self._catcher.mixed:
                raise self._uncaught(pl_module)
            self._has_mixed = True

    def let_go(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drop what belongs to the last batch."""
        self._catcher = None

    def extra_state(self) -> dict[str, Any]:
        """Keep what "auto" has found."""
        return {"labels_found": self._found}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on with what "auto" had found."""
        self._found = state_dict["labels_found"]

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_catcher": None}
