"""Studies made up by hand, with analyses whose numbers are chosen and not computed."""

import math
import random
from dataclasses import replace

from lightning_dlopt.evidence.analysis import Analysis, ArmResult, Verdict
from lightning_dlopt.evidence.runs import A_A, BASELINE, Point, Run, Study

#: Effects of four arms, half the widths of their intervals, and what is said of them.
FOUR: dict[str, tuple[float, float, Verdict]] = {
    "LabelSmoothing": (0.0041, 0.0023, "helps"),
    "MixUp(alpha=0.2)": (-0.0008, 0.0035, "can't tell"),
    "L1 too strong": (-0.0094, 0.0031, "hurts"),
    "CosineLR": (0.0019, 0.0029, "can't tell"),
}


def make_result(arm: str, effect: float, half: float, verdict: Verdict, mean: float) -> ArmResult:
    """Return a result whose other numbers follow from the arm's name, different for each."""
    draws = random.Random(arm)
    p = draws.uniform(0.001, 0.03) if verdict != "can't tell" else draws.uniform(0.1, 1)
    return ArmResult(
        arm=arm,
        pairs=6,
        finished=6,
        failures={},
        baseline_failures=0,
        mean=mean + effect,
        effect=effect,
        low=effect - half,
        high=effect + half,
        p_t=p / 2,
        p_t_holm=None if arm == A_A else p,
        p_flip=p * 0.9,
        verdict=verdict,
        seeds_needed=draws.randrange(10, 90) if verdict == "can't tell" else None,
        equal_time=effect - 0.0003,
        step_ratio=draws.uniform(0.9, 1.9),
        time_ratio=draws.uniform(0.9, 1.9),
        memory_ratio=draws.uniform(0.9, 1.2),
        steps_ratio=1.0,
        rate_factor=draws.choice([0.3, 1.0, 3.0]),
        rate_at_edge=False,
        same_weights=True,
        same_batches=True,
    )


def make_runs(arm: str, end: float, seeds: list[int], larger: bool) -> list[Run]:
    """Return the finished runs of an arm, whose outcomes lie around ``end``."""
    draws = random.Random(f"runs of {arm}")
    runs = []
    pace = draws.uniform(0.9, 1.8)
    for pair, seed in enumerate(seeds):
        value = end + draws.gauss(0, 0.002) * (1 if larger else 40)
        start = 0.6 if larger else 2.3
        curve = [
            Point(
                *(100 * k, k - 1, 2.0 * k * pace),
                value + (start - value) * math.exp(-0.7 * k) + draws.gauss(0, 0.002),
            )
            for k in range(1, 11)
        ]
        names = ("val_accuracy", "test_accuracy") if larger else ("val_loss", "test_loss")
        runs.append(
            Run(
                *(arm, "report", pair, seed + (1000 if arm == A_A else 0), "finished"),
                metrics={names[0]: curve[-1].value, names[1]: value},
                curve=curve,
                steps=1000,
                seconds=20.0 * pace + draws.gauss(0, 0.4),
                step_ms=20 * pace,
                memory_mb=812.0,
                versions={"python": "3.11.7", "torch": "2.9.1", "lightning": "2.6.0"},
                machine="x86_64, 2 cores",
                finished_at=f"2026-11-24T2{pair % 4}:00:00Z",
            )
        )
    return runs


def make_study(
    arms: dict[str, tuple[float, float, Verdict]] | None = None, seeds: int = 6, larger: bool = True
) -> tuple[Study, Analysis]:
    """Return a study of these arms and what is said of it."""
    arms = FOUR if arms is None else arms
    base = 0.9123 if larger else 0.2514
    keys = list(range(1, seeds + 1))
    every: dict[str, tuple[float, float, Verdict]] = {A_A: (0.0006, 0.0021, "can't tell"), **arms}
    runs = make_runs(BASELINE, base, keys, larger)
    for name, (effect, _, _) in every.items():
        runs += make_runs(name, base + effect, keys, larger)
    study = Study(
        metric="val_accuracy" if larger else "val_loss",
        outcome="test_accuracy" if larger else "test_loss",
        larger_is_better=larger,
        budget="10ep",
        select="last",
        seeds=keys,
        arms=list(arms),
        configs={BASELINE: "model:\n  class_path: ImageClassifier\ntrainer:\n  max_epochs: 10"},
        changes={name: [f"recipes/{index}.yaml"] for index, name in enumerate(arms)},
        command="dlopt compare --config base.yaml --arm LabelSmoothing=recipes/0.yaml --seeds 6",
        runs=runs,
    )
    results = [
        replace(make_result(name, *numbers, base), pairs=seeds, finished=seeds)
        for name, numbers in every.items()
    ]
    return study, Analysis(results, base, 0.0021, None, [])


def make_large() -> tuple[Study, Analysis]:
    """Return a study of forty arms: one far off, one that failed wholly, others in between."""
    draws = random.Random(0)
    arms: dict[str, tuple[float, float, Verdict]] = {}
    for index in range(38):
        effect, half = draws.gauss(0, 0.004), draws.uniform(0.001, 0.004)
        verdict: Verdict = "can't tell"
        if abs(effect) > 1.2 * half:
            verdict = "helps" if effect > 0 else "hurts"
        arms[f"technique number {index}"] = (effect, half, verdict)
    arms["SAM with a radius that is far too large for this network"] = (-0.61, 0.04, "hurts")
    arms["rate=100"] = (-0.1, 0.1, "can't tell")
    study, analysis = make_study(arms)
    return fail(study, analysis, "rate=100", 6)


def fail(study: Study, analysis: Analysis, arm: str, number: int) -> tuple[Study, Analysis]:
    """Return them with an arm's first runs failed; with all of them, nothing is left to say."""

    def failed(run: Run) -> Run:
        if run.arm != arm or run.pair >= number:
            return run
        curve = [replace(p, value=p.value - 0.05 * k) for k, p in enumerate(run.curve[:4])]
        curve.append(replace(run.curve[4], value=math.nan))
        return replace(
            run, status="diverged", why="val_accuracy was nan at step 500", metrics={}, curve=curve
        )

    def without(result: ArmResult) -> ArmResult:
        if result.arm != arm:
            return result
        left = result.pairs - number
        result = replace(result, finished=left, failures={"diverged": number}, verdict="can't tell")
        if left:
            return result
        gone = ["mean", "effect", "low", "high", "p_t", "p_t_holm", "seeds_needed", "equal_time"]
        gone += ["step_ratio", "time_ratio", "memory_ratio", "steps_ratio"]
        return replace(result, **dict.fromkeys(gone))  # type: ignore[arg-type]

    return (
        replace(study, runs=[failed(run) for run in study.runs]),
        replace(analysis, arms=[without(result) for result in analysis.arms]),
    )
