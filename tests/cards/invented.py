"""Studies whose numbers are invented."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.cards.measured import Plan, PlannedArm
from lightning_dlopt.evidence.runs import A_A, BASELINE, Run, Study

BASE = [0.900, 0.905, 0.898, 0.902, 0.895, 0.901]
#: Of each arm what it adds to the baseline, pair by pair; None crashes, nan diverges.
ADDED: dict[str, Sequence[float | None]] = {
    A_A: [0.001, -0.002, 0.001, 0.002, -0.001, 0.000],
    "good": [0.010, 0.012, 0.009, 0.011, 0.010, 0.013],
    "bad": [-0.020, -0.018, -0.023, -0.019, -0.021, -0.022],
    "null": [0.001, -0.001, 0.002, -0.0005, 0.001, 0.0002],
    "broken": [0.001, None, 0.002, -0.001, None, 0.003],
}
STEP_MS = {BASELINE: 2.0, A_A: 2.0, "good": 3.0, "bad": 4.0, "null": 2.1, "broken": 2.0}
TECHNIQUES = {"good": "EMA", "bad": "SAM", "null": "Lookahead", "broken": "Muon"}
CONFIG = "data:\n  class_path: lightning_dlopt.FashionMNIST\n"


def run_of(arm: str, pair: int, value: float | None, outcome: str) -> Run:
    failed: dict[str, Any] = {"status": "crashed", "why": "RuntimeError"}
    ended = {"status": "finished", "metrics": {outcome: value}} if value is not None else failed
    return Run(
        arm=arm,
        kind="report",
        pair=pair,
        seed=pair + 1,
        **ended,
        steps=100,
        seconds=STEP_MS[arm] / 10,
        step_ms=STEP_MS[arm],
        memory_mb=100.0 if arm == BASELINE else 150.0,
        weights=f"w{pair}",
        batches=f"b{pair}",
        held_out="h",
        versions={"torch": "2.14"},
        machine="a small machine",
        threads=1,
    )


def study(
    added: Mapping[str, Sequence[float | None]] = ADDED,
    outcome: str = "test_accuracy",
    **changes: Any,
) -> Study:
    """Return a study of these differences."""
    runs = [run_of(BASELINE, pair, value, outcome) for pair, value in enumerate(BASE)]
    for arm, differences in added.items():
        for pair, (base, more) in enumerate(zip(BASE, differences, strict=True)):
            runs.append(run_of(arm, pair, None if more is None else base + more, outcome))
    values: dict[str, Any] = {
        "metric": "val_accuracy",
        "outcome": outcome,
        "larger_is_better": True,
        "budget": "3ep",
        "select": "last",
        "seeds": [1, 2, 3, 4, 5, 6],
        "arms": [arm for arm in added if arm != A_A],
        "configs": {BASELINE: CONFIG},
        "changes": {},
        "command": "dlopt compare --seeds 6",
        "runs": runs,
    }
    return Study(**{**values, **changes})


def plan(name: str = "invented", arms: Sequence[str] = ("good", "bad", "null", "broken")) -> Plan:
    """Return the plan of such a study."""
    changes = ("recipes/optimizers/ema.yaml", "trainer.max_epochs=3")
    planned = tuple(PlannedArm(arm, (TECHNIQUES[arm],), changes) for arm in arms)
    return Plan(name, "Invented numbers", ("recipes/quickstart.yaml",), planned)
