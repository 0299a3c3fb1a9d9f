"""Which runs a study needs, in which order."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lightning_dlopt.core.errors import UserError
from lightning_dlopt.evidence.machine import machine, versions
from lightning_dlopt.evidence.runs import A_A, BASELINE, Kind, Run, Status, Study

#: What is added to the seeds of a study for runs that mustn't share them.
A_A_SEEDS, TUNING_SEEDS = 1_000_000, 2_000_000


class RefusedError(UserError):
    """A run that failed before its first batch: a mistake in the study, no result of it."""


@dataclass(frozen=True)
class Job:
    """A run to be made: everything that a process on any machine needs to know.

    Attributes:
        arm: name of the arm.
        kind: what the run is for.
        pair: which pair it belongs to.
        seed: of ``seed_everything``.
        config: the arm's whole configuration as YAML.
        metric: what validation must log.
        larger_is_better: its direction.
        select: whose weights are tested.
        rate_factor: by which learning rates are multiplied.
        steps: of the optimizer, at most; None for what the configuration says.
        max_seconds: of training, at most.
        folder: the current folder of the command.
        threads: of torch.
        log: file for what the run prints.
    """

    arm: str
    kind: Kind
    pair: int
    seed: int
    config: str
    metric: str
    larger_is_better: bool
    select: str = "last"
    rate_factor: float = 1.0
    steps: int | None = None
    max_seconds: float | None = None
    folder: str = "."
    threads: int = 1
    log: str = ""

    @property
    def name(self) -> str:
        """A name for messages and files."""
        factor = f" x {self.rate_factor:g}" if self.kind == "tune" else ""
        kind = "" if self.kind == "report" else f" ({self.kind}{factor})"
        return f"{self.arm}, seed {self.seed}{kind}"


def config_fingerprint(config: str) -> str:
    """Return a short name of a configuration's content."""
    return hashlib.sha256(config.encode()).hexdigest()[:12]


def unfinished_run(job: Job, status: Status, why: str = "") -> Run:
    """Return the run of a job as far as it is known without having come to a good end."""
    return Run(
        arm=job.arm,
        kind=job.kind,
        pair=job.pair,
        seed=job.seed,
        status=status,
        why=why,
        config=config_fingerprint(job.config),
        rate_factor=job.rate_factor,
        versions=versions(),
        machine=machine(),
        threads=job.threads,
    )


def all_arms(study: Study) -> list[str]:
    """Return the names of all arms, the study's own first."""
    return [BASELINE, A_A, *study.arms]


def seed_of(study: Study, arm: str, pair: int) -> int:
    """Return the seed of an arm's run in a pair; A/A alone has its own."""
    return study.seeds[pair] + (A_A_SEEDS if arm == A_A else 0)


def turns(arms: Sequence[str], pairs: int) -> Iterator[tuple[int, str]]:
    """Yield (pair, arm), pair by pair, in each another arm first.

    So arms run interleaved, whatever the machine does meanwhile, and an interruption leaves whole
    pairs.

    Example:
        >>> list(turns(["baseline", "a"], 2))
        [(0, 'baseline'), (0, 'a'), (1, 'a'), (1, 'baseline')]
    """
    for pair in range(pairs):
        first = pair % len(arms)
        for arm in [*arms[first:], *arms[:first]]:
            yield pair, arm


def best_factor(study: Study, arm: str) -> float:
    """Return the factor of the learning rate with the best mean metric in an arm's tuning runs.

    A factor with more failures is worse than any with fewer. A/A takes the baseline's.
    """
    if not study.tune:
        return 1.0
    arm = BASELINE if arm == A_A else arm
    tried: dict[float, list[Run]] = {}
    for run in study.runs:
        if run.arm == arm and run.kind == "tune":
            tried.setdefault(run.rate_factor, []).append(run)
    sign = 1 if study.larger_is_better else -1

    def merit(factor: float) -> tuple[int, float]:
        finished = [run for run in tried[factor] if run.status == "finished"]
        failed = len(tried[factor]) - len(finished)
        values = [sign * run.metrics[study.metric] for run in finished]
        return -failed, sum(values) / len(values) if values else float("-inf")

    # of equals the one nearest to what the configuration says
    return max(sorted(tried, key=lambda factor: abs(factor - 1)), key=merit, default=1.0)
