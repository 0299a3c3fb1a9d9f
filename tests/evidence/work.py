"""Work for launchers: runs that train nothing."""

import os
import threading
import time
from pathlib import Path

from lightning_dlopt.evidence.jobs import Job, RefusedError
from lightning_dlopt.evidence.runs import Run


def job(number: int, config: str = "", log: str = "") -> Job:
    return Job("arm", "report", number, number, config, "acc", True, log=log)


def ended(given: Job, **content: object) -> Run:
    metrics = {"acc": float(os.getpid())}
    return Run(given.arm, given.kind, given.pair, given.seed, "finished", metrics=metrics)


def work(given: Job) -> Run:
    """Do what the configuration says: die so many times, be refused, or come to an end."""
    what, _, where = given.config.partition(" ")
    print("run", given.seed, flush=True)
    if what.startswith("die"):
        deaths = Path(where)
        count = len(deaths.read_text()) if deaths.exists() else 0
        if count < int(what.removeprefix("die")):
            deaths.write_text("x" * (count + 1))
            os.kill(os.getpid(), 9)
    if what == "refuse":
        raise RefusedError("this arm makes no sense")
    if what == "linger":
        threading.Thread(target=threading.Event().wait).start()
    if what == "wait":
        Path(where).write_text(str(os.getpid()))
        time.sleep(600)
    return ended(given)
