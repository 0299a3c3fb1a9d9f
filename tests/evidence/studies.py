"""Studies made of numbers, for tests of what is said about them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lightning_dlopt.evidence.runs import BASELINE, Point, Run, Study

Outcomes = Sequence[float | None]


def run_of(arm: str, pair: int, outcome: float | None, **changes: Any) -> Run:
    """Return a run with an outcome; None makes a crashed one, nan a diverged one."""
    values: dict[str, Any] = {"status": "finished", "metrics": {"test": outcome, "metric": outcome}}
    if outcome is None:
        values = {"status": "crashed", "metrics": {}}
    elif math.isnan(outcome):
        values["status"] = "diverged"
    return Run(**{"arm": arm, "kind": "report", "pair": pair, "seed": pair, **values, **changes})


def study_of(
    outcomes: Mapping[str, Outcomes], seeds: int | None = None, larger: bool = True, **changes: Any
) -> Study:
    """Return a study of arms' outcomes, the baseline's among them, pair by pair."""
    count = len(outcomes[BASELINE]) if seeds is None else seeds
    values: dict[str, Any] = {
        "metric": "metric",
        "outcome": "test",
        "larger_is_better": larger,
        "budget": "10",
        "select": "last",
        "seeds": list(range(count)),
        "arms": [name for name in outcomes if name not in (BASELINE, "A/A")],
        "configs": {},
        "changes": {},
        "runs": [
            run_of(arm, pair, outcome)
            for arm, row in outcomes.items()
            for pair, outcome in enumerate(row)
        ],
    }
    return Study(**{**values, **changes})


def curve_of(*points: tuple[int, float, float]) -> list[Point]:
    """Return a curve of (step, seconds, value)."""
    return [Point(step, 0, seconds, value) for step, seconds, value in points]
