"""Cross-entropy caught where a training step computes it, and computed in another way."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from lightning_dlopt.core.errors import TechniqueError

#: Called as ``replace(logits, target, weight=…, ignore_index=…, reduction=…, label_smoothing=…)``.
CrossEntropy: TypeAlias = Callable[..., Tensor]

#: Losses of other kinds, only to say what was found besides or instead.
_OTHER_LOSSES = {
    getattr(functional, name): name
    for name in (
        "binary_cross_entropy",
        "binary_cross_entropy_with_logits",
        "ctc_loss",
        "gaussian_nll_loss",
        "huber_loss",
        "kl_div",
        "l1_loss",
        "linear_cross_entropy",
        "mse_loss",
        "multi_margin_loss",
        "poisson_nll_loss",
        "smooth_l1_loss",
    )
    if hasattr(functional, name)
}

#: Those of them that are ways of learning classes, as a cross-entropy is.
OF_CLASSES = frozenset(
    {
        "binary_cross_entropy",
        "binary_cross_entropy_with_logits",
        "linear_cross_entropy",
        "multi_margin_loss",
    }
)


class CatchCrossEntropy(TorchFunctionMode):
    """While it is entered, every training cross-entropy is computed by ``replace`` instead.

    Caught are ``torch.nn.functional.cross_entropy`` and ``nll_loss`` (whose input, being
    log-probabilities, are logits of the same distribution), and with them ``nn.CrossEntropyLoss``
    and ``nn.NLLLoss``, wherever in the block they are called; not those whose logits need no
    gradient, which train nothing. Only this thread, and no function of torch is changed.

    What can't be seen: a cross-entropy within what ``torch.compile`` compiled (some backends, such
    as ``"eager"``, still call the function; most don't) or ``torch.jit`` scripted, or written
    out by hand (``log_softmax`` and a gather), or in an activation checkpoint of
    ``torch.utils.checkpoint`` with ``use_reentrant=True``, whose forward pass has no gradient.
    One in a checkpoint with ``use_reentrant=False`` is seen, and refused: the backward pass
    computes it once more, outside of the block. (It is known by the hooks on saved tensors; if
    others come in between, such as ``save_on_cpu`` within the checkpoint, torch is left to find
    the difference.)

    Catchers may be nested: ``replace`` runs outside of its own, so a cross-entropy that it computes
    is seen by the next one around. What the innermost returns is what the caller gets.

    Args:
        replace: gets logits ``(N, C, d1, …)`` or ``(C,)``, the target, and by name what
            ``cross_entropy`` was given: ``weight``, ``ignore_index``, ``reduction`` and
            ``label_smoothing``; returns the loss in the form that ``reduction`` says.

    Attributes:
        caught: how many were replaced since the last :meth:`restart`.
        passed: names of losses of other kinds that went by and have a gradient.

    Raises:
        TechniqueError: if ``nll_loss`` is given what aren't log-probabilities; if the cross-entropy
            is within an activation checkpoint.

    Example:
        >>> def doubled(logits, target, **options):
        ...     return 2 * functional.cross_entropy(logits, target, **options)
        >>> logits, target = torch.zeros(1, 2, requires_grad=True), torch.tensor([0])
        >>> with CatchCrossEntropy(doubled) as catcher:
        ...     loss = torch.nn.CrossEntropyLoss()(logits, target)
        >>> round(loss.item(), 4), catcher.caught
        (1.3863, 1)
    """

    def __init__(self, replace: CrossEntropy) -> None:
        super().__init__()
        self.replace = replace
        self._nll_is_checked = False
        self.restart()

    def restart(self) -> None:
        """Count from nothing again."""
        self.caught = 0
        self.passed: set[str] = set()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        # here comes every function of torch in the block, so this is short
        if torch.compiler.is_compiling():
            pass  # a compiled graph would keep what is decided here for one step
        elif func is functional.cross_entropy or func is functional.nll_loss:
            logits, target, options = read_arguments(*args, **kwargs or {})
            if logits.requires_grad and torch.is_grad_enabled():
                if in_activation_checkpoint():
                    raise TechniqueError(
                        "the training step computes a cross-entropy within torch.utils.checkpoint, "
                        "which computes it again in the backward pass, where it can't be replaced: "
                        "checkpoint the network, and compute the loss outside"
                    )
                if func is functional.nll_loss:
                    self._check_log_probabilities(logits)
                self.caught += 1
                return self.replace(logits, target, **options)
        elif func in _OTHER_LOSSES:
            given = [*args, *(kwargs or {}).values()]
            if any(isinstance(value, Tensor) and value.requires_grad for value in given):
                self.passed.add(_OTHER_LOSSES[func])
        return func(*args, **kwargs) if kwargs else func(*args)

    def _check_log_probabilities(self, logits: Tensor) -> None:
        if self._nll_is_checked or not logits.numel():
            return
        total = logits.detach().float().logsumexp(class_dim(logits))
        # room for bfloat16, and for NaN, which isn't for this check to find
        if bool((total.abs() > 0.1).any()):
            raise TechniqueError(
                "the training step gives nll_loss values that aren't log-probabilities "
                "(log_softmax of logits), so it isn't a cross-entropy"
            )
        self._nll_is_checked = True


def in_activation_checkpoint() -> bool:
    """Return whether ``torch.utils.checkpoint`` is about to drop what is saved for a gradient.

    Example:
        >>> in_activation_checkpoint()
        False
    """
    # there is no public way to ask; where this fails, torch finds other tensors and raises
    ask = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
    try:
        hooks = None if ask is None else ask(True)
    except TypeError:
        return False
    return hooks is not None and getattr(hooks[0], "__module__", "") == "torch.utils.checkpoint"


def read_arguments(
    input: Tensor,  # noqa: A002 - these are the names in torch
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Sort the arguments of ``cross_entropy`` or ``nll_loss``: logits, target, and the rest.

    Example:
        >>> read_arguments(torch.zeros(1, 2), torch.tensor([0]), size_average=False)[2]["reduction"]
        'sum'
    """
    if size_average is not None or reduce is not None:  # how reductions were named once
        reduction = "none" if reduce is False else "sum" if size_average is False else "mean"
    options: dict[str, Any] = {
        "weight": weight,
        "ignore_index": ignore_index,
        "reduction": reduction,
        "label_smoothing": label_smoothing,
    }
    return input, target, options


def class_dim(logits: Tensor) -> int:
    """Return which dimension of ``cross_entropy``'s logits holds the classes."""
    return 0 if logits.dim() == 1 else 1


def reduce_like_cross_entropy(
    values: Tensor, target: Tensor, options: Mapping[str, Any] | None = None
) -> Tensor:
    """Reduce one value for each prediction as ``cross_entropy`` reduces its own.

    Args:
        values: ``(N, d1, …)`` or ``()``: the logits' shape without the classes.
        target: class indices of the same shape, of which those of ``ignore_index`` don't count; or
            probabilities in the logits' shape, where all count.
        options: ``reduction`` (``"mean"`` by default) and ``ignore_index`` (-100). ``weight``
            tells how much a label counts; these values have none, and all count alike.

    Example:
        >>> float(reduce_like_cross_entropy(torch.tensor([1.0, 7.0]), torch.tensor([0, -100])))
        1.0
    """
    options = options or {}
    count: Tensor | int = values.numel()
    if target.shape == values.shape and not target.is_floating_point():
        kept = target != options.get("ignore_index", -100)
        values, count = torch.where(kept, values, 0.0), kept.sum()
    reduction = options.get("reduction", "mean")
    if reduction == "none":
        return values
    return values.sum() / count if reduction == "mean" else values.sum()


def log_probabilities(logits: Tensor) -> Tensor:
    """Return the log-softmax over the classes, in float32 at least.

    Example:
        >>> log_probabilities(torch.zeros(1, 2, dtype=torch.bfloat16)).exp()
        tensor([[0.5000, 0.5000]])
    """
    half = logits.dtype in (torch.float16, torch.bfloat16)
    return functional.log_softmax(logits.float() if half else logits, class_dim(logits))


def kl_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return KL(p ‖ q) over the classes, one value for each prediction.

    Example:
        >>> log_p, log_q = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.9, 0.1]).log()
        >>> round(float(kl_divergence(log_p, log_q)), 3)
        0.511
    """
    return (log_p.exp() * (log_p - log_q)).sum(class_dim(log_p))
