"""The sum of the weights' squares as a penalty: ridge."""

from typing import Any, ClassVar

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import optim
from torch.optim import Optimizer

from lightning_dlopt.core.checks import check_number
from lightning_dlopt.core.errors import ConflictError
from lightning_dlopt.core.parameters import Selection
from lightning_dlopt.core.technique import techniques_of
from lightning_dlopt.regularization.penalty_base import Penalty
from lightning_dlopt.regularization.penalty_run import Share

#: torch's optimizers that add ``weight_decay * w`` to the gradient before anything else.
COUPLED = (
    optim.SGD,
    optim.Adam,
    optim.NAdam,
    optim.RAdam,
    optim.Adamax,
    optim.RMSprop,
    optim.Adagrad,
    optim.Adadelta,
    optim.ASGD,
)


class L2(Penalty):
    """Penalize ``strength * sum w**2``, which keeps weights small.

    With ``method="gradient"``, how and when it acts: see :class:`Penalty`.

    With ``method="weight_decay"`` the optimizer does it while it steps: for each step, and only
    for it, ``2 * strength`` is added to the ``weight_decay`` of its param groups. That saves a pass
    over the gradients, and almost everything with a fused optimizer. It is the same where the
    optimizer adds the decay to the gradient and nothing comes between, and is refused elsewhere.
    There, a parameter without a gradient is left alone, as such optimizers do.

    torch's ``weight_decay`` of the same effect is ``2 * strength``, in SGD, Adam and RMSprop. In
    AdamW it isn't: its decay doesn't go through the gradient and its denominators (I. Loshchilov,
    F. Hutter, Decoupled Weight Decay Regularization, 2019, arXiv:1711.05101).

    Source: A. E. Hoerl, R. W. Kennard, Ridge Regression: Biased Estimation for Nonorthogonal
    Problems, 1970, Technometrics 12(1).

    Logged: ``l2_penalty``.

    When:
        The network overfits and its optimizer is SGD or Adam; or parts of it want strengths of
        their own.

    When not:
        AdamW, whose own ``weight_decay`` isn't divided by Adam's denominators; layers with a
        normalization behind them, where the size of the weights changes no output.

    Args:
        strength: at least 0 and finite; 0 changes nothing.
        parameters: see :class:`L1`.
        method: ``"gradient"`` or ``"weight_decay"``.

    Raises:
        ArgumentError: if a pattern matches no parameter (when training starts).
        TechniqueError: for what :class:`L1` refuses; and with ``method="weight_decay"`` for
            optimizers with another decay or none, param groups of which only a part is selected
            (with ``parameters="weights"``: groups with biases), and where the gradients are
            clipped or read before the step, all before the first step.
        ConflictError: with ``method="weight_decay"``, for another technique that works on the
            gradients, and for a second one with this method that shares parameters.

    The checkpoint keeps the arguments; the optimizer's own ``weight_decay`` in it is unchanged.

    Example:
        >>> L2(1e-4)
        L2(strength=0.0001)
    """

    log_name: ClassVar[str] = "l2"
    methods: ClassVar[tuple[str, ...]] = ("gradient", "weight_decay")

    def __init__(
        self, strength: float, parameters: Selection = "weights", method: str = "gradient"
    ) -> None:
        self.strength = check_number(self, "strength", strength, "[0, inf)")
        super().__init__(parameters, method, compiled=False)
        self._raised: list[tuple[dict[str, Any], float]] = []

    @property
    def strengths(self) -> tuple[float, float]:
        """The strengths (l1, l2)."""
        return 0.0, self.strength

    # ---- the optimizer's own decay ----

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the parameters, and refuse what can't work."""
        if self.method == "weight_decay" and self.strength:
            self._refuse_what_reads_gradients(trainer, pl_module)
            self._refuse_a_second(trainer, pl_module)
        super().on_fit_start(trainer, pl_module)

    def before_step(self, trainer: Trainer, optimizer: Optimizer, share: Share) -> None:
        """Raise the decay for the coming step, or add to the gradients."""
        super().before_step(trainer, optimizer, share)
        if self.method == "weight_decay":
            self._put_back()
            for group, selected in zip(optimizer.param_groups, share.groups, strict=True):
                if selected:
                    self._raised.append((group, group["weight_decay"]))
                    group["weight_decay"] += 2 * self.strength

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Put the decay back if 16-bit training skipped the step, before anything is saved."""
        self._put_back()

    def check_share(self, optimizer: Optimizer, share: Share) -> None:
        """Raise a TechniqueError if the optimizer's decay isn't this penalty."""
        super().check_share(optimizer, share)
        if self.method != "weight_decay":
            return
        for group, selected in zip(optimizer.param_groups, share.groups, strict=True):
            if not selected:
                continue
            if type(optimizer) not in COUPLED or group.get("decoupled_weight_decay"):
                raise self.refuse(
                    f"{type(optimizer).__name__} doesn't add its weight_decay to the gradient, so "
                    "it isn't this penalty: use method='gradient', or an optimizer of "
                    + ", ".join(kind.__name__ for kind in COUPLED)
                )
            if len(selected) < sum(parameter.requires_grad for parameter in group["params"]):
                raise self.refuse(
                    f"a param group of {type(optimizer).__name__} holds selected parameters and "
                    "others, and has one weight_decay for all: use parameters='all' or "
                    "method='gradient', or give the others a group of their own"
                )

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._put_back()
        super()._after_step(optimizer, args, kwargs)

    def let_go(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the hooks off, and put the optimizer's own decay back."""
        super().let_go(trainer, pl_module)
        self._put_back()

    def __getstate__(self) -> dict[str, Any]:
        # not the original's param groups
        return {**super().__getstate__(), "_raised": []}

    def _put_back(self) -> None:
        while self._raised:
            group, decay = self._raised.pop()
            group["weight_decay"] = decay

    def _refuse_a_second(self, trainer: Trainer, pl_module: LightningModule) -> None:
        mine = {id(parameter) for parameter in self.select(pl_module)}
        for other in techniques_of(trainer):
            if (
                other is not self
                and isinstance(other, L2)
                and other.method == "weight_decay"
                and other.strength
                and mine & {id(parameter) for parameter in other.select(pl_module)}
            ):
                raise ConflictError(
                    f"{self!r} and {other!r} would both raise the weight_decay of the same "
                    "parameters: use one with the sum of the strengths, or method='gradient' for "
                    "one of them"
                )

    def _refuse_what_reads_gradients(self, trainer: Trainer, pl_module: LightningModule) -> None:
        instead = "which would miss the penalty: use method='gradient'"
        if trainer.gradient_clip_val:
            raise self.refuse(
                f"gradient_clip_val={trainer.gradient_clip_val!r} clips the gradients, {instead}"
            )
        for hook in (
            "configure_gradient_clipping",
            "on_before_optimizer_step",
            "on_after_backward",
        ):
            if is_overridden(hook, pl_module):
                raise self.refuse(f"{hook} of the module may read the gradients, {instead}")
        for other in techniques_of(trainer):
            works_on_gradients = any(
                getattr(type(other), hook) is not getattr(Callback, hook)
                for hook in ("on_before_optimizer_step", "on_after_backward")
            )
            if works_on_gradients and not isinstance(other, Penalty):
                raise ConflictError(f"{self!r}: {other!r} works on the gradients, {instead}")
