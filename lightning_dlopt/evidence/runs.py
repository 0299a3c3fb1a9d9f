"""What a comparison keeps of its runs: plain data, one line of JSON each."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

#: The arm without anything, and the same again with other seeds.
BASELINE, A_A = "baseline", "A/A"

Kind = Literal["report", "tune", "calibrate", "trial"]
Status = Literal["finished", "diverged", "crashed", "killed"]


@dataclass(frozen=True)
class Point:
    """One validation in the course of a run.

    Attributes:
        step: optimizer steps so far.
        epoch: epochs begun so far, as the Trainer counts them.
        seconds: of training so far, validations left out.
        value: of the study's metric.
    """

    step: int
    epoch: int
    seconds: float
    value: float


@dataclass(frozen=True)
class Run:
    """One run that has come to an end, well or badly.

    Attributes:
        arm: name of the arm; ``"baseline"`` and ``"A/A"`` are the study's own.
        kind: ``"report"`` counts; ``"tune"`` chose a learning rate; ``"calibrate"`` a length;
            ``"trial"`` whether it can be made at all.
        pair: which pair the run belongs to, from 0: runs of the same pair are compared.
        seed: of ``seed_everything``; the same in every arm of a pair, but for A/A.
        status: ``"finished"``, ``"diverged"`` (the metric isn't finite), ``"crashed"`` (an
            exception) or ``"killed"`` (the process died, twice).
        why: of a failure, in one line; of a finished run, that its test failed or a technique had
            no effect.
        config: fingerprint of the arm's resolved configuration.
        rate_factor: by which the arm's learning rates were multiplied.
        metrics: what the module had logged at the end, of validation and of the test.
        curve: the validations, in order.
        steps: optimizer steps made.
        seconds: of training, without validation and test.
        step_ms: median milliseconds of a training step, after the warm-up; None if too few.
        warm_up_seconds: what the first steps took longer than so many later ones.
        memory_mb: the largest resident memory of the process (CUDA: of the device).
        weights: fingerprint of the weights before training.
        batches: fingerprint of the first training batches of each epoch.
        held_out: fingerprint of the data that is validated on.
        versions: of Python and the packages.
        machine: where it ran.
        threads: of torch.
        finished_at: when, in UTC.
    """

    arm: str
    kind: Kind
    pair: int
    seed: int
    status: Status
    why: str = ""
    config: str = ""
    rate_factor: float = 1.0
    metrics: dict[str, float] = field(default_factory=dict)
    curve: list[Point] = field(default_factory=list)
    steps: int = 0
    seconds: float = 0.0
    step_ms: float | None = None
    warm_up_seconds: float = 0.0
    memory_mb: float | None = None
    weights: str = ""
    batches: str = ""
    held_out: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    machine: str = ""
    threads: int = 1
    finished_at: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain data; a curve is a list of ``[step, epoch, seconds, value]``."""
        plain = asdict(self)
        plain["curve"] = [list(asdict(point).values()) for point in self.curve]
        return plain

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> "Run":
        """Return the run of plain data.

        Example:
            >>> run = Run("baseline", "report", 0, 1, "finished", curve=[Point(5, 0, 0.1, 0.9)])
            >>> Run.from_json(run.to_json()) == run
            True
        """
        return cls(**{**plain, "curve": [Point(*values) for values in plain["curve"]]})


@dataclass(frozen=True)
class Study:
    """A comparison: what was to be run, and what has been.

    Attributes:
        metric: name of what validation logs; it chooses (rates, weights).
        outcome: name of what is compared: the test's counterpart of the metric, or itself.
        larger_is_better: the metric's direction.
        budget: of each run, such as ``"3ep"``, ``"500"`` (steps) or ``"60s"``.
        select: whose weights are tested: the ``"last"`` or the ``"best"`` by the metric.
        seeds: one for each pair.
        arms: names of the arms besides the baseline and A/A, in order.
        configs: each arm's resolved configuration as YAML, the baseline's included.
        changes: what each arm lays over the base, as it was given.
        tune: factors of the learning rate that were tried in every arm; empty if none.
        command: that made it.
        runs: those that have come to an end.
    """

    metric: str
    outcome: str
    larger_is_better: bool
    budget: str
    select: Literal["last", "best"]
    seeds: list[int]
    arms: list[str]
    configs: dict[str, str]
    changes: dict[str, list[str]]
    tune: list[float] = field(default_factory=list)
    command: str = ""
    runs: list[Run] = field(default_factory=list)

    def reported(self, arm: str) -> dict[int, Run]:
        """Return an arm's runs that count, by pair."""
        return {run.pair: run for run in self.runs if run.arm == arm and run.kind == "report"}

    def value(self, run: Run) -> float | None:
        """Return what is compared of a run, or None if it failed."""
        return run.metrics.get(self.outcome) if run.status == "finished" else None
