"""Runs whose process has died."""

from lightning_dlopt.evidence.jobs import Job, config_fingerprint
from lightning_dlopt.evidence.machine import machine, versions
from lightning_dlopt.evidence.runs import Run

#: How often a run is made at most.
ATTEMPTS = 2


def killed_run(job: Job, why: str) -> Run:
    """Return the run of a job whose process has died as often as it was started."""
    return Run(
        arm=job.arm,
        kind=job.kind,
        pair=job.pair,
        seed=job.seed,
        status="killed",
        why=f"its process died {ATTEMPTS} times: {why}",
        config=config_fingerprint(job.config),
        rate_factor=job.rate_factor,
        versions=versions(),
        machine=machine(),
        threads=job.threads,
    )
