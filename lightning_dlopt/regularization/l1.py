"""The sum of the weights' absolute values as a penalty: lasso."""

from typing import ClassVar

from lightning_dlopt.core.checks import check_number
from lightning_dlopt.core.parameters import Selection
from lightning_dlopt.regularization.penalty_base import Penalty


class L1(Penalty):
    """Penalize ``strength * sum |w|``, which drives weights that matter little to 0.

    How and when it acts: see :class:`Penalty`. By the subgradient, weights swing around 0 and
    are rarely exactly 0; by the proximal step, those whose gradient stays within the strength
    become and stay exactly 0.

    With an adaptive optimizer (Adam, RMSprop) the two forms differ: the subgradient is divided by
    the optimizer's denominators as the loss's gradient is, which weakens it where gradients are
    large and makes it strong where they are small; the threshold is the plain rate times the
    strength for every weight. Since such steps are about as long as the rate, a strength of 1
    stops a weight whatever its gradient; useful ones are well below.

    Source: R. Tibshirani, Regression Shrinkage and Selection via the Lasso, 1996, Journal of the
    Royal Statistical Society B 58(1). The proximal step: I. Daubechies, M. Defrise, C. De Mol, An
    iterative thresholding algorithm for linear inverse problems with a sparsity constraint, 2004,
    arXiv:math/0307152; here after steps with minibatch gradients and momentum.

    Logged: ``l1_penalty``, and ``l1_zero_share`` (proximal): the share among the weights that are
    trained. Beside EMA or Lookahead the averages are what remains, and a weight is exactly 0 there
    only if it was so in all that they average. Schedule-free optimizers compute the weights anew
    from their state, and the proximal form is refused for them.

    When:
        Zeros are wanted for themselves: to select inputs, or to see how many weights are needed.

    When not:
        Accuracy is all that counts, for it shrinks the large weights, too; time or memory, for
        zeros in dense tensors save none.

    Args:
        strength: at least 0 and finite; 0 changes nothing.
        parameters: ``"weights"`` (tensors of two or more dimensions: no biases, no norms),
            ``"all"``, or a list of name patterns.
        method: ``"subgradient"`` or ``"proximal"``.
        compile: on the CPU, pass over large tensors with a kernel made by ``torch.compile``, which
            is made before the first step and needs a C++ compiler.

    Raises:
        ArgumentError: if a pattern matches no parameter (when training starts).
        TechniqueError: for sparse gradients (subgradient), schedule-free optimizers (proximal),
            optimizers that maximize, FSDP1 and DeepSpeed, before the first step.
        ConflictError: beside another proximal penalty of the same parameters.

    The checkpoint keeps the arguments.

    Example:
        >>> L1(1e-4, method="proximal")
        L1(strength=0.0001, method='proximal')
    """

    log_name: ClassVar[str] = "l1"
    methods: ClassVar[tuple[str, ...]] = ("subgradient", "proximal")

    def __init__(
        self,
        strength: float,
        parameters: Selection = "weights",
        method: str = "subgradient",
        compile: bool = False,  # noqa: A002
    ) -> None:
        self.strength = check_number(self, "strength", strength, "[0, inf)")
        super().__init__(parameters, method, compile)

    @property
    def strengths(self) -> tuple[float, float]:
        """The strengths (l1, l2)."""
        return self.strength, 0.0
