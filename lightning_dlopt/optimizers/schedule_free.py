"""Training and evaluation weights of schedule-free optimizers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_dlopt.core.errors import CheckpointError, ConflictError
from lightning_dlopt.core.replaced import Replaced
from lightning_dlopt.core.resume import SavedTechnique
from lightning_dlopt.core.strategies import strategy_kind
from lightning_dlopt.core.technique import Technique, techniques_of
from lightning_dlopt.optimizers.rival_averages import refuse_lightnings_averages


def switches(optimizer: Any) -> bool:
    """Return whether an optimizer has the two modes of schedule-free ones.

    Example:
        >>> switches(torch.optim.SGD([torch.zeros(1)], lr=0.1))
        False
    """
    return all(callable(getattr(optimizer, name, None)) for name in ("train", "eval"))


def _parameters(optimizers: Sequence[Any]) -> list[Tensor]:
    return [p for o in optimizers for group in o.param_groups for p in group["params"]]


def _switching(made: Any) -> list[Any]:
    """Return the optimizers with two modes in what ``configure_optimizers`` returns."""
    if isinstance(made, Mapping | list | tuple):
        items = made.values() if isinstance(made, Mapping) else made
        return [optimizer for item in items for optimizer in _switching(item)]
    return [made] if switches(made) else []


@contextmanager
def evaluation_weights(optimizers: Sequence[Any]) -> Iterator[None]:
    """Put the evaluation weights of optimizers in training mode in place; put back the others.

    What is put back is bitwise what was there before; ``train()`` after ``eval()`` gives it only
    up to rounding.

    Args:
        optimizers: schedule-free optimizers in training mode.
    """
    parameters = _parameters(optimizers)
    training = [parameter.detach().clone() for parameter in parameters]
    for optimizer in optimizers:
        optimizer.eval()
    try:
        yield
    finally:
        for optimizer in optimizers:
            optimizer.train()
        with torch.no_grad():
            for parameter, weights in zip(parameters, training, strict=True):
                parameter.copy_(weights)


class ScheduleFree(Technique):
    """Switch a schedule-free optimizer between its training and its evaluation weights.

    These optimizers compute gradients at other weights than those that are to be used, and refuse
    to step unless ``train()`` and ``eval()`` are called around training and evaluation. Validation,
    and the module after training, have the evaluation weights. Any optimizer with these two methods
    will do, such as those of ``schedulefree`` (``pip install 'lightning-dlopt[schedulefree]'``).

    Source: A. Defazio, X. A. Yang, H. Mehta, K. Mishchenko, A. Khaled, A. Cutkosky: The Road Less
    Scheduled, 2024, arXiv:2405.15682.

    Training goes on with bitwise the weights it had, whether it was validated and saved or not:
    they are kept aside meanwhile (``train()`` after ``eval()`` would give them up to rounding),
    with a copy of the evaluation weights to notice changes, which takes the memory of the trained
    parameters twice more; a parameter that the module changes meanwhile, such as in
    ``on_train_epoch_end``, trains on with what it was given. A checkpoint's ``state_dict``
    holds the evaluation weights, so ``load_from_checkpoint`` gives the module that validation saw;
    the training weights are kept beside it, and a resume is exact. To resume training, give this
    technique again: a run with other techniques of this package refuses such a checkpoint, and a
    Trainer without any goes on from the evaluation weights, after a warning of Lightning's.

    The optimizer's own ``warmup_steps`` is the place for a warm-up; of this package's schedules
    only :class:`~lightning_dlopt.schedules.ConstantLR`, which can warm up too, goes with it. A
    scheduler that the module brings is left in place.

    When:
        The length of the run is open, and no schedule is to be tuned to it.

    When not:
        Networks with BatchNorm, whose running statistics are those of the training weights, unless
        they are computed anew from a few batches at the evaluation weights, as the source says;
        a rate tuned for a schedule, for these optimizers want a larger one.

    Raises:
        TechniqueError: before the first step, if an optimizer of the module has no ``train`` and
            ``eval``, or for strategies other than one device and DDP.
        ConflictError: beside :class:`EMA`, Lightning's averages, or a varying :class:`.Schedule`.

    Example:
        >>> ScheduleFree()
        ScheduleFree()
    """

    exclusive: ClassVar[str | None] = "weight average"
    required_on_resume: ClassVar[bool] = True

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._started = False
        # the training weights by parameter, and what is in place of them for the time being
        self._kept: dict[Tensor, tuple[Tensor, Tensor]] | None = None
        self._groups = 0
        self._loaded: Mapping[str, Tensor] | None = None

    def prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what averages or schedules as well, and take care of what is saved."""
        self._forget()
        refuse_lightnings_averages(self, trainer)
        self._refuse_schedules(trainer)
        if strategy_kind(trainer) not in ("single", "replicated"):
            raise self.refuse(
                f"{type(trainer.strategy).__name__} isn't supported: use one device or DDP"
            )

        def on_save_checkpoint(original: Callable[..., Any]) -> Callable[..., Any]:
            def saving(checkpoint: dict[str, Any]) -> None:
                if self._started:
                    self._save(trainer, pl_module, checkpoint)
                original(checkpoint)

            return saving

        def configure_optimizers(original: Callable[..., Any]) -> Callable[..., Any]:
            def in_training_mode() -> Any:
                made = original()
                for optimizer in _switching(made):
                    if not optimizer.state:  # of one that was kept, this would move the weights
                        optimizer.train()
                return made

            return in_training_mode

        # a search for a learning rate or a batch size trains without the callbacks
        self.patch(pl_module, "configure_optimizers", configure_optimizers)
        # the module's hook, because the callbacks' isn't called for a weights-only checkpoint
        self.patch(pl_module, "on_save_checkpoint", on_save_checkpoint)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse optimizers that have nothing to switch."""
        kinds = {
            type(optimizer).__name__ for optimizer in trainer.optimizers if not switches(optimizer)
        }
        if kinds or not trainer.optimizers:
            what = " and ".join(sorted(kinds)) or "no optimizer"
            raise self.refuse(
                f"{type(pl_module).__name__} trains with {what}, which has no train() and eval(): "
                "let configure_optimizers return a schedule-free optimizer, such as "
                "schedulefree.AdamWScheduleFree (pip install 'lightning-dlopt[schedulefree]')"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with the training weights, the saved ones if there are."""
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        if all(group.get("lr") == 0 for group in groups):
            self.warn_no_effect("every learning rate is 0")
        self._started = True
        for optimizer in trainer.optimizers:
            optimizer.train()  # type: ignore[attr-defined]
        if self._loaded is not None:
            parameters = dict(pl_module.named_parameters())
            with torch.no_grad():
                for name, weights in self._loaded.items():
                    parameters[name].copy_(weights)
            self._loaded = None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Go back to the training weights.

        Not as soon as validation is over: what looks at the module then, and at the epoch's end,
        finds the weights that were validated.
        """
        groups = sum(len(optimizer.param_groups) for optimizer in trainer.optimizers)
        if self._kept is None and groups == self._groups:
            return
        self._groups = groups  # a new one isn't in training mode
        now = {p: p.detach().clone() for p in self._kept or ()}
        for optimizer in trainer.optimizers:
            optimizer.train()  # type: ignore[attr-defined]
        with torch.no_grad():
            for parameter, (training, shown) in (self._kept or {}).items():
                if torch.equal(now[parameter], shown):
                    parameter.copy_(training)
                else:  # the module has changed it meanwhile
                    parameter.copy_(now[parameter])
        self._kept = None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate with the evaluation weights."""
        self._evaluate(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the evaluation weights behind."""
        self._evaluate(trainer)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Leave the evaluation weights behind after an exception, too."""
        self._evaluate(trainer)
        super().on_exception(trainer, pl_module, exception)

    def parameters_replaced(
        self, trainer: Trainer, pl_module: LightningModule, replaced: Replaced
    ) -> None:
        """Cut the weights that are kept during validation, too."""
        if self._kept is not None:
            self._kept = {
                replaced.now(p): (replaced.cut(p, training), replaced.cut(p, shown))
                for p, (training, shown) in self._kept.items()
            }

    def let_go(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let go of the training weights."""
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        # a copy of a module in mid-training isn't under training itself
        gone = {"_started": False, "_kept": None, "_groups": 0, "_loaded": None}
        return {**super().__getstate__(), **gone}

    def check_resume(self, saved: list[SavedTechnique]) -> None:
        """Refuse a checkpoint that has another average."""
        for other in saved:
            if other.exclusive == self.exclusive and other.name != self.state_key:
                saved_with = f"the checkpoint was saved with {other.name}"
                raise CheckpointError(f"{saved_with}, but this run has {self!r}: resume with that")

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take up the training weights; they are put in place when training starts."""
        self._loaded = state_dict.get("training_weights")

    def _evaluate(self, trainer: Trainer) -> None:
        if self._started and self._kept is None:
            parameters = _parameters(trainer.optimizers)
            training = [p.detach().clone() for p in parameters]
            for optimizer in trainer.optimizers:
                optimizer.eval()  # type: ignore[attr-defined]
            shown = [p.detach().clone() for p in parameters]
            self._kept = dict(zip(parameters, zip(training, shown, strict=True), strict=True))

    def _save(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Write the evaluation weights where Lightning may have put those of training."""
        trained = _parameters(trainer.optimizers)
        if self._kept is None:
            training = [parameter.detach().clone() for parameter in trained]
            with evaluation_weights(trainer.optimizers):
                evaluation = [parameter.detach().clone() for parameter in trained]
        else:
            training = [self._kept[p][0] if p in self._kept else p.detach() for p in trained]
            evaluation = trained
        position = {id(parameter): index for index, parameter in enumerate(trained)}
        state: dict[str, Any] = checkpoint["state_dict"]
        for name, parameter in pl_module.named_parameters(remove_duplicate=False):
            if id(parameter) in position and name in state:
                state[name] = evaluation[position[id(parameter)]].detach()
        if "callbacks" in checkpoint:
            checkpoint["callbacks"][self.state_key]["training_weights"] = {
                name: training[position[id(parameter)]]
                for name, parameter in pl_module.named_parameters()
                if id(parameter) in position
            }

    def _refuse_schedules(self, trainer: Trainer) -> None:
        for other in techniques_of(trainer):
            schedule = other.exclusive == "learning-rate schedule"
            if schedule and not getattr(other, "may_be_constant", False):
                raise ConflictError(
                    f"{self!r} and {other!r} don't go together: a schedule-free optimizer takes a "
                    "constant rate; remove the schedule (a warm-up may stay, as ConstantLR)"
                )


def lacks_switching(trainer: Trainer, optimizer: Any) -> str | None:
    """Return what is wrong if the optimizer has two modes and no technique switches them."""
    if not switches(optimizer) or any(isinstance(t, ScheduleFree) for t in techniques_of(trainer)):
        return None
    return (
        f"{type(optimizer).__name__} must be told to train() and eval(), and nothing here does: "
        "add ScheduleFree() to the callbacks"
    )
