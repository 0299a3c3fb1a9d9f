"""Absolute values and squares of the weights together as a penalty."""

from typing import ClassVar

from lightning_dlopt.core.checks import check_number
from lightning_dlopt.core.parameters import Selection
from lightning_dlopt.regularization.penalty_base import Penalty


class ElasticNet(Penalty):
    """Penalize ``l1 * sum |w| + l2 * sum w**2``: sparse weights that are also small.

    How and when it acts: see :class:`Penalty`; for adaptive optimizers, see :class:`L1`. The
    proximal form takes the exact proximal step of both terms,
    ``soft(w, lr * l1) / (1 + 2 * lr * l2)``, with ``lr`` the rate alone.

    Source: H. Zou, T. Hastie, Regularization and Variable Selection via the Elastic Net, 2005,
    Journal of the Royal Statistical Society B 67(2); this is what they call the naive Elastic Net,
    without their rescaling of the result.

    Logged: ``elastic_net_penalty``, and ``elastic_net_zero_share`` (proximal).

    When:
        Sparse weights among inputs that go together, of which lasso alone keeps one by chance.

    When not:
        One of the two will do: L1 and L2 have one strength to tune, not two.

    Args:
        l1: strength of the absolute values, at least 0 and finite.
        l2: strength of the squares, at least 0 and finite. Without factor one half: torch's
            ``weight_decay`` of the same effect is ``2 * l2``.
        parameters: see :class:`L1`.
        method: ``"subgradient"`` or ``"proximal"``.
        compile: see :class:`L1`.

    Raises:
        ArgumentError: if a pattern matches no parameter (when training starts).
        TechniqueError: for what :class:`L1` refuses.
        ConflictError: beside another proximal penalty of the same parameters.

    The checkpoint keeps the arguments.

    Example:
        >>> ElasticNet(l1=1e-4, l2=1e-4, method="proximal")
        ElasticNet(l1=0.0001, l2=0.0001, method='proximal')
    """

    log_name: ClassVar[str] = "elastic_net"
    methods: ClassVar[tuple[str, ...]] = ("subgradient", "proximal")

    def __init__(
        self,
        l1: float,
        l2: float,
        parameters: Selection = "weights",
        method: str = "subgradient",
        compile: bool = False,  # noqa: A002
    ) -> None:
        self.l1 = check_number(self, "l1", l1, "[0, inf)")
        self.l2 = check_number(self, "l2", l2, "[0, inf)")
        super().__init__(parameters, method, compile)

    @property
    def strengths(self) -> tuple[float, float]:
        """The strengths (l1, l2)."""
        return self.l1, self.l2
