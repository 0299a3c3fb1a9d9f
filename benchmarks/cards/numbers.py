"""Numbers as they stand in the cards."""

from dataclasses import dataclass

from lightning_dlopt.evidence.analysis import ArmResult
from lightning_dlopt.evidence.runs import Study

NOTHING = "-"


@dataclass(frozen=True)
class Unit:
    """How differences of an outcome are shown.

    Attributes:
        name: of the unit.
        scale: what the outcome's numbers are multiplied by.
        digits: behind the point.
    """

    name: str
    scale: float
    digits: int

    @classmethod
    def of(cls, study: Study) -> "Unit":
        """Return points (hundredths) for accuracies, else the outcome's own unit."""
        if study.outcome.endswith("accuracy"):
            return cls("points", 100.0, 2)
        return cls(f"of {study.outcome}", 1.0, 4)

    def signed(self, value: float | None) -> str:
        """Return a difference with its sign.

        Example:
            >>> Unit("points", 100.0, 2).signed(0.0123), Unit("points", 100.0, 2).signed(-0.00001)
            ('+1.23', '0.00')
        """
        if value is None:
            return NOTHING
        shown = f"{self.scale * value:+.{self.digits}f}"
        return shown[1:] if not float(shown) else shown

    def plain(self, value: float | None) -> str:
        """Return an outcome."""
        return NOTHING if value is None else f"{self.scale * value:.{self.digits}f}"

    def interval(self, result: ArmResult) -> str:
        """Return an arm's difference, with its interval if there is one."""
        effect = self.signed(result.effect)
        if result.low is None or result.high is None:
            return effect
        return f"{effect} ({self.signed(result.low)} to {self.signed(result.high)})"


def times(ratio: float | None) -> str:
    """Return a ratio to the baseline.

    Example:
        >>> times(1.984), times(None)
        ('1.98x', '-')
    """
    return NOTHING if ratio is None else f"{ratio:.2f}x"


def probability(p: float | None) -> str:
    """Return a p value.

    Example:
        >>> probability(0.03125), probability(0.0001), probability(None), probability(1.0)
        ('0.031', '< 0.001', '-', '1')
    """
    if p is None:
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def verdict(result: ArmResult) -> str:
    """Return the verdict, and how many seeds more it would take if it isn't one."""
    if result.verdict != "can't tell":
        return f"**{result.verdict}**"
    needed = f" (needs about {result.seeds_needed:,} seeds)" if result.seeds_needed else ""
    return f"can't tell{needed}"


def failures(result: ArmResult) -> str:
    """Return how many of an arm's runs failed, and how."""
    if not result.failures:
        return "0"
    ways = ", ".join(f"{count} {way}" for way, count in result.failures.items())
    return f"**{ways}**"


def rate(result: ArmResult, study: Study) -> str:
    """Return by what an arm's learning rate was multiplied, and whether that was tuned."""
    if len(study.tune) < 2:
        return "not tuned"
    edge = ", at the edge" if result.rate_at_edge else ""
    return f"tuned: {result.rate_factor:g}x{edge}"
