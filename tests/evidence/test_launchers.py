"""Processes and Ray make the same runs, and survive the death of a process."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightning_dlopt.core.errors import UserError
from lightning_dlopt.evidence.jobs import Job
from lightning_dlopt.evidence.launchers import Launcher
from lightning_dlopt.evidence.launchers.processes import Processes
from lightning_dlopt.evidence.launchers.ray import RayCluster
from tests.evidence.work import job, work


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    # by default its workers make way for everything else
    os.environ.update({"RAY_worker_niceness": "0"})
    started = RayCluster(places=2)
    yield started
    started.close()


def ignore(_: Job) -> None:
    """Hear that a run has begun."""


@pytest.fixture(params=["processes", "ray"])
def launcher(request: pytest.FixtureRequest) -> Launcher:
    if request.param == "processes":
        return Processes(2, ["tests.evidence.work"])
    found: RayCluster = request.getfixturevalue("cluster")
    return found


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_runs_have_processes_and_logs_of_their_own(launcher: Launcher, tmp_path: Path) -> None:
    begun: list[int] = []
    logs = {number: tmp_path / f"{number}.txt" for number in (1, 2, 3)}
    jobs = [job(number, log=str(log)) for number, log in logs.items()]
    made = dict(launcher.launch(jobs, work, lambda one: begun.append(one.seed)))
    assert begun == [1, 2, 3]
    assert {one.seed: run.seed for one, run in made.items()} == {1: 1, 2: 2, 3: 3}
    assert len({run.metrics["acc"] for run in made.values()} | {float(os.getpid())}) == 4
    assert {number: log.read_text() for number, log in logs.items()} == {
        number: f"run {number}\n" for number in logs
    }


def test_a_run_whose_process_dies_is_made_once_more(launcher: Launcher, tmp_path: Path) -> None:
    once, twice = (f"die{times} {tmp_path / str(times)}" for times in (1, 2))
    made = {
        one.seed: run for one, run in launcher.launch([job(1, once), job(2, twice)], work, ignore)
    }
    assert made[1].status == "finished"
    assert made[2].status == "killed"
    assert made[2].why.startswith("its process died 2 times: ")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"1": "x", "2": "xx"}


def test_a_refusal_ends_the_study_and_the_other_runs(launcher: Launcher, tmp_path: Path) -> None:
    other = tmp_path / "process"
    jobs = [job(1, f"wait {other}"), job(2, "refuse")]
    started = iter(jobs)
    with pytest.raises(UserError, match=r"^this arm makes no sense$"):
        list(launcher.launch(jobs, work, lambda _: _wait_for(other, next(started))))
    process = int(other.read_text())
    for _ in range(100):
        if not alive(process):
            return
        time.sleep(0.1)
    pytest.fail("the other run goes on")


def _wait_for(path: Path, begun: Job) -> None:
    """Begin the second run when the first one is under way."""
    for _ in range(600):
        if begun.seed == 2 or (path.exists() and path.read_text()):
            return
        time.sleep(0.1)


def test_a_cluster_that_cannot_be_reached_is_told() -> None:
    code = (
        "from lightning_dlopt.evidence.launchers.ray import RayCluster, RayError\n"
        "try:\n    RayCluster('127.0.0.1:9')\nexcept RayError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "the Ray cluster at '127.0.0.1:9' can't be reached" in done.stdout, done.stderr


def test_a_run_that_leaves_a_thread_behind_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_dlopt.evidence.launchers.processes._LEAVING", 0.5)
    jobs = [job(1, "linger"), job(2)]
    made = list(Processes(1, ["tests.evidence.work"]).launch(jobs, work, ignore))
    assert [run.status for _, run in made] == ["finished", "finished"]


def test_runs_end_with_a_command_that_was_killed(tmp_path: Path) -> None:
    started = tmp_path / "started"
    code = (
        "from tests.evidence.work import job, work\n"
        "from lightning_dlopt.evidence.launchers.processes import Processes\n"
        f"list(Processes(1).launch([job(1, 'wait {started}')], work, lambda _: None))\n"
    )
    script = tmp_path / "command.py"
    script.write_text(
        f"if __name__ == '__main__':\n    {code.replace(chr(10), chr(10) + '    ')}\n"
    )
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    command = subprocess.Popen([sys.executable, script], env=environment)
    while not (started.exists() and started.read_text()):
        assert command.poll() is None
        time.sleep(0.1)
    command.kill()
    command.wait()
    child = int(started.read_text())
    for _ in range(300):
        if not alive(child):
            break
        time.sleep(0.1)
    assert not alive(child)
