"""Runs whose process has died."""

from lightning_dlopt.evidence.jobs import Job, unfinished_run
from lightning_dlopt.evidence.runs import Run

#: How often a run is made at most.
ATTEMPTS = 2


def killed_run(job: Job, why: str) -> Run:
    """Return the run of a job whose process has died as often as it was started."""
    return unfinished_run(job, "killed", f"its process died {ATTEMPTS} times: {why}")
