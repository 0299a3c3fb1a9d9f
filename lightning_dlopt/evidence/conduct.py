"""A study from its first missing run to its last."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lightning_dlopt.core.errors import DataError
from lightning_dlopt.evidence.jobs import (
    TUNING_SEEDS,
    Job,
    RefusedError,
    all_arms,
    best_factor,
    seed_of,
    turns,
)
from lightning_dlopt.evidence.launchers import Launcher, Work
from lightning_dlopt.evidence.results import Results
from lightning_dlopt.evidence.runs import A_A, BASELINE, Kind, Run, Study

#: The share of a budget in seconds that is spent on finding out how many steps it holds.
_CALIBRATION = 0.1


class Observer(Protocol):
    """Is told how a study goes on."""

    def planned(self, stage: str, jobs: list[Job]) -> None:
        """Hear which runs are missing."""
        ...

    def started(self, job: Job) -> None:
        """Hear that a run has begun."""
        ...

    def ended(self, job: Job, run: Run) -> None:
        """Hear that it has come to an end."""
        ...


@dataclass(frozen=True)
class Conductor:
    """Makes the missing runs of a study.

    Args:
        results: where finished runs are kept.
        launcher: what makes them.
        work: how one is made.
        observer: is told how it goes on.
        seconds: of training for each run, if that is the budget.
        tune_seeds: how many runs each learning rate is tried with.
        folder: the current folder of the command.
        logs: where what failed runs print is kept.
    """

    results: Results
    launcher: Launcher
    work: Work
    observer: Observer
    seconds: float | None = None
    tune_seeds: int = 2
    folder: str = "."
    logs: Path = field(default_factory=lambda: Path("logs"))

    def run(self) -> Study:
        """Make all missing runs and return the study.

        Raises:
            UserError: if a run was refused, an arm is validated on other data than the baseline,
                or results can't be written.
        """
        check_same_data(self.results.study)
        self._try()
        self._make("calibrate", self._calibrations())
        self._make("tune", self._tuning_runs())
        self._make("compare", self._reported_runs())
        return self.results.study

    def _make(self, stage: str, jobs: list[Job]) -> None:
        for job, run in self._launched(stage, jobs):
            self.results.add(run)
            if not run.why:
                Path(job.log).unlink(missing_ok=True)
            self.observer.ended(job, run)
            check_same_data(self.results.study)

    def _launched(self, stage: str, jobs: list[Job]) -> Iterator[tuple[Job, Run]]:
        if jobs:
            self.observer.planned(stage, jobs)
            self.logs.mkdir(parents=True, exist_ok=True)
            yield from self.launcher.launch(jobs, self.work, self.observer.started)

    def _try(self) -> None:
        """Let each arm that has no results yet make one step, so that a mistake is found now."""
        study = self.results.study
        known = {run.arm for run in study.runs}
        arms = [arm for arm in [BASELINE, *study.arms] if arm not in known]
        jobs = [self._job(arm, "trial", 0, TUNING_SEEDS) for arm in arms]
        for job, run in self._launched("trial", jobs):
            self.observer.ended(job, run)
            if run.status != "finished":
                raise RefusedError(f"{job.name}: {run.why}; see {job.log}")
            Path(job.log).unlink(missing_ok=True)

    def _calibrations(self) -> list[Job]:
        if self.seconds is None:
            return []
        study = self.results.study
        done = {run.arm for run in study.runs if run.kind == "calibrate"}
        seconds = max(2.0, _CALIBRATION * self.seconds)
        return [
            self._job(arm, "calibrate", 0, TUNING_SEEDS, max_seconds=seconds)
            for arm in [BASELINE, *study.arms]
            if arm not in done
        ]

    def _tuning_runs(self) -> list[Job]:
        study = self.results.study
        done = {(run.arm, run.seed, run.rate_factor) for run in study.runs if run.kind == "tune"}
        return [
            self._job(arm, "tune", pair, seed, rate_factor=factor)
            for pair, arm in turns([BASELINE, *study.arms], self.tune_seeds)
            for seed in [TUNING_SEEDS + 1 + pair]
            for factor in study.tune
            if (arm, seed, factor) not in done
        ]

    def _reported_runs(self) -> list[Job]:
        study = self.results.study
        done = {arm: study.reported(arm) for arm in all_arms(study)}
        return [
            self._job(
                arm, "report", pair, seed_of(study, arm, pair), rate_factor=best_factor(study, arm)
            )
            for pair, arm in turns(all_arms(study), len(study.seeds))
            if pair not in done[arm]
        ]

    def _job(self, arm: str, kind: Kind, pair: int, seed: int, **options: float) -> Job:
        study = self.results.study
        config = study.configs[BASELINE if arm == A_A else arm]
        name = f"{all_arms(study).index(arm)}-{kind}-{seed}-{options.get('rate_factor', 1.0):g}"
        job = Job(
            arm=arm,
            kind=kind,
            pair=pair,
            seed=seed,
            config=config,
            metric=study.metric,
            larger_is_better=study.larger_is_better,
            select=study.select,
            folder=self.folder,
            threads=self.launcher.threads,
            log=str(self.logs / f"{name}.txt"),
            steps=None if kind in ("trial", "calibrate") else self._steps(arm),
            **options,
        )
        return job

    def _steps(self, arm: str) -> int | None:
        """Return how many steps a budget of seconds holds, as the calibration has shown."""
        if self.seconds is None:
            return None
        runs = [run for run in self.results.study.runs if run.kind == "calibrate"]
        own = [run for run in runs if run.arm == (BASELINE if arm == A_A else arm)]
        for run in [*own, *runs]:
            if run.status == "finished" and run.steps and run.seconds:
                return max(1, round(self.seconds * run.steps / run.seconds))
        raise DataError(
            f"no calibration run has finished, so nobody knows how many steps {self.seconds:g}s "
            "hold: give the budget in steps or epochs"
        )


def check_same_data(study: Study) -> None:
    """Raise a DataError if an arm was validated on other data than the baseline with its seed."""
    held_out = {run.seed: run.held_out for run in study.runs if run.arm == BASELINE}
    for run in study.runs:
        expected = held_out.get(run.seed)
        if expected and run.held_out and run.held_out != expected and run.kind != "calibrate":
            raise DataError(
                f"arm {run.arm!r} is validated on other data than the baseline (seed {run.seed}: "
                f"{_samples(run.held_out)} against {_samples(expected)}): what the two reach can't "
                "be compared"
            )


def _samples(held_out: str) -> str:
    checksum, _, number = held_out.partition("-")
    return f"{number} samples that begin with {checksum}"
