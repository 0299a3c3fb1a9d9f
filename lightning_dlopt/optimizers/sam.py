"""Sharpness-aware minimization: the gradient is taken where the loss nearby is largest."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lightning_dlopt.core.batch_copy import copied
from lightning_dlopt.core.checks import check_flag, check_integer, check_number
from lightning_dlopt.core.global_generators import GlobalGenerators
from lightning_dlopt.core.module_state import ModuleState
from lightning_dlopt.core.step_arguments import takes_iterator
from lightning_dlopt.core.strategies import strategy_kind
from lightning_dlopt.core.technique import Technique, techniques_of
from lightning_dlopt.optimizers.freeze_layers import FreezeLayers
from lightning_dlopt.optimizers.sharpness import perturb_weights, summed_over_processes


class SAM(Technique):
    """Sharpness-aware minimization: step by the gradient at the worst point nearby.

    Each training batch runs twice: once to find the direction in which the loss rises fastest,
    and once with the weights moved by ``rho`` in that direction; the optimizer, whichever it is,
    gets the gradient of the second pass. This prefers flat minima, which often generalize better,
    at up to twice the cost of a step.

    Source: P. Foret, A. Kleiner, H. Mobahi, B. Neyshabur, Sharpness-Aware Minimization for
    Efficiently Improving Generalization, 2021, arXiv:2010.01412. With ``adaptive=True``: J. Kwon,
    J. Kim, H. Park, I. K. Choi, ASAM: Adaptive Sharpness-Aware Minimization for Scale-Invariant
    Learning of Deep Neural Networks, 2021, arXiv:2102.11600, without its constant eta and for
    every parameter. With ``every`` above 1 the steps in between are the optimizer's own: the plain
    part of Y. Liu, S. Mai, X. Chen, C. Hsieh, Y. You, Towards Efficient and Scalable
    Sharpness-Aware Minimization, 2022, arXiv:2203.02714, without its reuse of old directions.

    What is recorded comes from the first pass: what the module logs, the statistics of batch norms
    and other buffers, frozen parameters that ``training_step`` moves (a momentum teacher), metrics,
    the module's attributes (a counter, say) with what is in its lists, dicts, sets and deques, and
    what ``training_step`` returns beside the loss; the returned loss itself is that of the second
    pass. The second pass starts from the same state, the same global random generators and the same
    batch as the first. Each step copies the batch, the buffers and the frozen parameters for this.

    Twice a step go what only objects within the module know: an iterator or a
    ``torch.Generator`` that it holds moves on in both passes, a meter of one's own class counts
    both, and so does a container in a container. Calls that go around the module aren't muted:
    ``print``, a logger's ``experiment``. Until the backward pass is over, ``on_before_backward``
    included, the module has the moved weights. Outside of training, as where ``validation_step``
    calls ``training_step``, there is one pass.

    Under gradient accumulation each batch is moved by its own gradient (the paper's m-sharpness),
    so N batches of b aren't quite one of N·b. Under DDP the direction is that of the gradient
    averaged over all processes. Penalties and clipping act on the second gradient only. A gradient
    that isn't finite gives weights and a loss that aren't, as without SAM.

    When:
        Networks that overfit, labels that are partly wrong, vision transformers without
        pretraining; and time for two passes a step.

    When not:
        The network underfits, or time is short: plain training for as long, with twice the epochs,
        is what it must beat.

    Args:
        rho: how far the weights are moved, 0 or more; 0 does nothing.
        adaptive: measure the distance relative to each weight's size; takes a larger ``rho``, such
            as 0.5 or 2.
        every: at which optimizer steps it is done: those whose number, from 0 on, is a multiple.

    Raises:
        ArgumentError: if ``rho`` is negative or infinite, or ``every`` is less than 1.
        ArgumentTypeError: if an argument has another type.
        TechniqueError: before the first step, under manual optimization, under strategies other
            than DDP that use several processes, for a ``training_step`` that takes the
            ``dataloader_iter``, and if no optimizer trains a parameter.

    The checkpoint keeps the arguments only.

    Example:
        >>> SAM(rho=0.1, every=2)
        SAM(rho=0.1, every=2)
    """

    exclusive: ClassVar[str | None] = "sharpness-aware step"

    def __init__(self, rho: float = 0.05, adaptive: bool = False, every: int = 1) -> None:
        self.rho = check_number(self, "rho", rho, "[0, inf)")
        self.adaptive = check_flag(self, "adaptive", adaptive)
        self.every = check_integer(self, "every", every, "[1, inf)")
        self._forget()

    def _forget(self) -> None:
        self._moved: list[Tensor | None] = []  # kept from step to step, to be written over
        self._held: list[tuple[nn.Parameter, Tensor]] = []
        self._recorded: ModuleState | None = None
        self._muted = False

    # ---- what Lightning calls ----

    def prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what it can't work with."""
        self._forget()
        if not pl_module.automatic_optimization:
            raise self.refuse(
                "it runs training_step twice, which under manual optimization would step twice: "
                "use automatic optimization"
            )
        if strategy_kind(trainer) not in ("single", "replicated"):
            raise self.refuse(
                f"{type(trainer.strategy).__name__} doesn't let it move the weights within a "
                "step: use strategy='ddp' or a single device"
            )

        if takes_iterator(pl_module):
            raise self.refuse(
                "training_step takes the dataloader_iter, and the second pass would take the next "
                "batch from it: let it take a batch"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put itself around ``training_step`` and all that other techniques have done to it."""
        if self.rho == 0:
            self.warn_no_effect("rho is 0")
            return
        if not _trained(trainer):
            raise self.refuse(
                f"no optimizer of {type(pl_module).__name__} trains a parameter, so there are no "
                "weights to move: let configure_optimizers return an optimizer"
            )

        def around_step(training_step: Callable[..., Any]) -> Callable[..., Any]:
            def twice(*args: Any, **kwargs: Any) -> Any:
                # a validation_step may call training_step, too
                trains = trainer.training and torch.is_grad_enabled()
                if not trains or trainer.global_step % self.every:
                    return training_step(*args, **kwargs)
                # a step may take its batch apart, or write to it
                again = copied((args, kwargs), tensors=True)
                return self._run(
                    trainer,
                    pl_module,
                    lambda: training_step(*args, **kwargs),
                    lambda: training_step(*again[0], **again[1]),
                )

            return twice

        def around_log(log: Callable[..., None]) -> Callable[..., None]:
            return lambda *args, **kwargs: None if self._muted else log(*args, **kwargs)

        self.patch(pl_module, "training_step", around_step)
        self.patch(pl_module, "log", around_log)

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put back the weights, and what the first pass left in the module."""
        self._restore()

    def let_go(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put everything back, wherever the step was, and drop the second set of weights."""
        self._restore()
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        # what belongs to the step under way is the original's
        fresh = SAM(self.rho, self.adaptive, self.every)
        return {**super().__getstate__(), **vars(fresh)}

    # ---- one step ----

    def _run(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        step: Callable[[], Any],
        step_again: Callable[[], Any],
    ) -> Any:
        """Run a training step twice and return the output that has the second pass's loss."""
        before, draws = ModuleState(pl_module), GlobalGenerators(pl_module.device)
        first = step()
        if first is None:
            return None
        parameters = _trained(trainer)
        if not parameters:
            return first
        gradients = self._gradients(trainer, _loss(first), parameters)
        # autocast may remember the weights in 16 bits, and those are about to change
        torch.clear_autocast_cache()
        self._recorded, drawn = ModuleState(pl_module), GlobalGenerators(pl_module.device)
        before.restore_attributes()
        before.restore_contents()
        draws.restore()
        self._move(parameters, gradients)
        self._muted = True
        try:
            second = step_again()
        finally:
            self._muted = False
            self._recorded.restore_attributes()
            drawn.restore()
        if second is None:
            self._restore()
        elif isinstance(first, Mapping):
            return {**first, "loss": second["loss"]}
        return second

    def _gradients(
        self, trainer: Trainer, loss: Tensor, parameters: list[nn.Parameter]
    ) -> list[Tensor | None]:
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if scaler is not None:
            loss = scaler.scale(loss)  # its factor falls out of the direction
        with torch.autocast(loss.device.type, enabled=False):
            found = torch.autograd.grad(loss, parameters, allow_unused=True)
        gradients: list[Tensor | None] = [
            g.to_dense() if g is not None and g.is_sparse else g for g in found
        ]
        if trainer.world_size > 1:
            return summed_over_processes(trainer, parameters, gradients)
        return gradients

    def _move(self, parameters: list[nn.Parameter], gradients: list[Tensor | None]) -> None:
        self._moved += [None] * (len(parameters) - len(self._moved))
        chosen, given, out = [], [], []
        for index, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
            if gradient is None:
                continue
            moved = self._moved[index]
            if moved is None or not _alike(moved, parameter):
                moved = self._moved[index] = torch.empty_like(parameter, requires_grad=False)
            chosen.append(parameter)
            given.append(gradient)
            out.append(moved)
        perturb_weights([p.detach() for p in chosen], given, self.rho, self.adaptive, out)
        for parameter, moved in zip(chosen, out, strict=True):
            # the weights themselves are set aside, so what comes back is bitwise what was there
            self._held.append((parameter, parameter.data))
            parameter.data = moved

    def _restore(self) -> None:
        for parameter, data in self._held:
            parameter.data = data
        self._held = []
        if self._recorded is not None:
            self._recorded.restore_contents()
            self._recorded = None


def _trained(trainer: Trainer) -> list[nn.Parameter]:
    freezers = [one for one in techniques_of(trainer) if isinstance(one, FreezeLayers)]
    groups = (group for optimizer in trainer.optimizers for group in optimizer.param_groups)
    parameters = (
        p
        for group in groups
        for p in group["params"]
        # FreezeLayers can't set requires_grad under DDP
        if p.requires_grad and not any(freezer.holds(p) for freezer in freezers)
    )
    return list({id(p): p for p in parameters}.values())


def _loss(output: Any) -> Tensor:
    loss: Tensor = output["loss"] if isinstance(output, Mapping) else output
    return loss


def _alike(moved: Tensor, parameter: Tensor) -> bool:
    return (
        moved.shape == parameter.shape
        and moved.stride() == parameter.stride()
        and moved.dtype == parameter.dtype
        and moved.device == parameter.device
    )
