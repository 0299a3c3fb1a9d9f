"""The base of techniques that mix samples of a batch with each other."""

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from lightning_dlopt.augmentation.input_mixer import InputMixer
from lightning_dlopt.augmentation.label_probe import probe_labels
from lightning_dlopt.augmentation.mixed_loss import CatchMixedLabels
from lightning_dlopt.augmentation.mixed_targets import check_soft, further_classes
from lightning_dlopt.augmentation.mixture import MixedLabels, Mixture, mix_labels, soften
from lightning_dlopt.augmentation.two_passes import TwoPasses, same_gradients
from lightning_dlopt.core.batch import find_key, get_tensor
from lightning_dlopt.core.batch_technique import RunStep
from lightning_dlopt.core.cross_entropy import OF_CLASSES
from lightning_dlopt.core.errors import ArgumentError, ArgumentTypeError
from lightning_dlopt.core.loss_technique import is_compiled
from lightning_dlopt.core.patching import MIX
from lightning_dlopt.core.step_output import loss_of


class BatchMixer(InputMixer):
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
    - ``"auto"``: floats are ``"soft"``. For classes it is ``"loss"`` if that gives the same as
      ``"twice"`` where it is tried out: on the first batch, at shares of 1/2, in three more passes
      that leave no trace; else it is ``"twice"``, with a warning. A batch that doesn't tell, as all
      its labels or losses are the same, is run twice and the next one asked. Until the answer a
      batch has one share. Under manual optimization it is ``"loss"``, and not tried out.

    One target is mixed. A cross-entropy of another field of the batch is refused where losses are
    caught; for ``"twice"`` that can't be seen.

    Losses that compare the rows of a batch with each other (contrastive, triplet) mean nothing on
    mixed samples.

    Several techniques: it works on what the other batch techniques give, and what changes the
    cross-entropy (label smoothing, R-Drop, distillation) does so for both labels.

    Args:
        labels: ``"auto"``, ``"loss"``, ``"twice"`` or ``"soft"``, as said above.
        num_classes: for ``"soft"`` labels of classes, at least 1.
        input_key: where the input is in the batch: a position, a key, or a field's name.
        target_key: where the target is.

    Warns:
        UserWarning: once, for ``"auto"`` where it runs twice, or averages what looks like classes
            stored as floats; for ``"loss"`` beside other losses of classes, such as
            ``binary_cross_entropy``.

    Raises:
        ConflictError: beside another batch mixer; in the first step, if the module or the data mix
            by themselves, where that can be seen: labels in the batch (unless ``labels="soft"`` is
            said) or in ``cross_entropy`` that are probabilities of two classes, or a cross-entropy
            of the same logits for the labels in another order.
        TechniqueError: in the first step, if the batch has no input or target tensor that is
            found; for ``"loss"``, if no cross-entropy of the labels is seen, as in a module that is
            compiled as a whole, or one of another field of the batch is; for ``"twice"``, if the
            labels change nothing, and under manual optimization; for ``"auto"``, in any step, if
            it mixes cross-entropies and there are other losses of classes.

    The checkpoint keeps the arguments, and what ``"auto"`` has found.
    """

    level = MIX
    exclusive: ClassVar[str | None] = "batch mixer (RandomMix holds several)"
    _has_checked = False
    _has_mixed = False
    _has_warned = False
    _labels_matter = False
    _compiled = False
    _held: tuple[int, bool] | None = None
    _catcher: CatchMixedLabels | None = None

    def step(self, trainer: Trainer, pl_module: LightningModule, run: RunStep, batch: Any) -> Any:
        """Run the training step on mixed inputs, and mix the loss."""
        try:
            return self._step(trainer, pl_module, run, batch)
        except (ArgumentError, ArgumentTypeError) as error:
            raise self.refused(error) from error

    def _step(self, trainer: Trainer, pl_module: LightningModule, run: RunStep, batch: Any) -> Any:
        target = get_tensor(batch, "target", self.target_key, self)
        way = self._way(pl_module, target)
        number = trainer.fit_loop.total_batch_idx
        if self._held is None or self._held[0] != number:  # an optimizer may run a batch again
            self._held = number, way in ("twice", "auto")
        mixed, _, mixture = self._mixed(batch, self.generator(trainer), self._held[1])
        if not self._has_checked and len(target):
            self._has_checked = True
            if target.is_floating_point() and self.labels != "soft":
                check_soft(target, self)
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
        if way == "auto":
            way = self._ask(TwoPasses(trainer, pl_module, run), pl_module, mixed, labels)
        if way == "twice":
            return self._twice(TwoPasses(trainer, pl_module, run), pl_module, mixed, labels)
        self._catcher = self._catch(labels, mixed)
        with self._catcher:
            output = run(self._with_target(mixed, labels.first))
        self._check_others(pl_module)
        manual = not pl_module.automatic_optimization
        if (loss_of(output) is not None or manual) and not self._catcher.mixed and len(target):
            raise self._uncaught(pl_module)
        return output

    def _ask(
        self, passes: TwoPasses, pl_module: LightningModule, mixed: Any, labels: MixedLabels
    ) -> str:
        """Return how to run this batch, which may tell how to run all."""
        answer = probe_labels(
            passes,
            labels.first,
            lambda y: self._with_target(mixed, y),
            lambda two: self._catch(two, mixed),
        )
        if answer.way == "twice":
            self._find("twice", pl_module, answer.why)
        self._found = answer.way
        return answer.way or "twice"

    def _twice(
        self, passes: TwoPasses, pl_module: LightningModule, mixed: Any, labels: MixedLabels
    ) -> Any:
        first, second = (self._with_target(mixed, y) for y in (labels.first, labels.second))
        share = float(labels.share[0]) if len(labels.share) else 1.0
        output = passes.run(first, second, share)
        if self._labels_matter or passes.losses is None:
            return output
        if not torch.equal(labels.first, labels.second):
            if same_gradients(passes.losses, pl_module):
                raise self.refuse(
                    f"{type(pl_module).__name__}.training_step doesn't use the labels: its loss "
                    "is the same with others. Say by target_key= which ones it uses"
                )
            self._labels_matter = True
        return output

    def _catch(self, labels: MixedLabels, batch: Any) -> CatchMixedLabels:
        keys = (
            find_key(batch, "input", self.input_key, self),
            find_key(batch, "target", self.target_key, self),
        )
        return CatchMixedLabels(labels, self, further_classes(batch, keys))

    def _check_others(self, pl_module: LightningModule) -> None:
        """Refuse losses of classes that aren't mixed, or warn of them if that is meant."""
        others = self._catcher.passed & OF_CLASSES if self._catcher is not None else None
        if not others:
            return
        name, what = type(pl_module).__name__, ", ".join(sorted(others))
        if self.labels == "auto":
            manual = not pl_module.automatic_optimization
            raise self.refuse(
                f"{name}.training_step computes {what}, whose labels aren't mixed: say "
                + ("" if manual else "labels='twice', or ")
                + "labels='loss' to mix cross-entropies only"
            )
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"{self!r} mixes the labels in the cross-entropy that {name}.training_step "
                f"computes, and not in its {what}",
                stacklevel=2,
            )

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

    def _find(self, way: str, pl_module: LightningModule, why: str) -> None:
        self._found = way
        warnings.warn(
            f"{self!r} runs {type(pl_module).__name__}.training_step twice for each batch, once "
            f"for either label, which takes twice the time: {why}. Say labels='twice' if that is "
            "meant, or labels='loss' to mix cross-entropies only",
            stacklevel=2,
        )

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
        self._found, self._catcher, self._held = None, None, None
        self._has_checked = self._has_mixed = self._has_warned = self._labels_matter = False
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
        if pl_module.automatic_optimization:
            return
        self._check_others(pl_module)
        if self._catcher is not None and not self._has_mixed:
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
