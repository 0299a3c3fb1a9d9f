"""Loader against step: how much of the time training waits for data."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_dlopt.evidence.advise.finding import Finding, NoTimeError
from lightning_dlopt.evidence.advise.overlays import set_key
from lightning_dlopt.evidence.advise.probe import Probe
from lightning_dlopt.evidence.advise.subject import Subject

_STEPS, _LEAST, _WARM_UP = 40, 8, 3
#: Waits that are enough if even the shortest is far longer than usual.
_FEW = 3
#: The share of waiting, and the milliseconds of it for each step, from which it is worth a word.
_SHARE, _MILLISECONDS = 0.3, 2.0


class StepClock(Callback):
    """Notes when each training step begins and ends."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock, self.begins, self.ends = clock, list[float](), list[float]()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note the beginning."""
        self.begins.append(self.clock())

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the end."""
        self.ends.append(self.clock())


def waiting(begins: Sequence[float], ends: Sequence[float]) -> tuple[float, float]:
    """Return the mean seconds between two steps, and of a step; the longest tenth is left out.

    Args:
        begins: when each step began, in seconds, at least two.
        ends: when each ended; what lies between an end and the next beginning is waiting.

    Example:
        >>> waiting([0.0, 4.0, 8.0], [1.0, 5.0, 9.0])
        (3.0, 1.0)
    """
    waits = [begin - end for begin, end in zip(begins[1:], ends[:-1], strict=True)]
    steps = [end - begin for begin, end in zip(begins[1:], ends[1:], strict=True)]
    return _mean_of_most(waits), _mean_of_most(steps)


def _mean_of_most(values: Sequence[float]) -> float:
    # what other processes do to a step now and then isn't the loader's
    most = sorted(values)[: math.ceil(0.9 * len(values))]
    return sum(most) / len(most)


class LoaderTime(Probe):
    """Measures the time between training steps, on the module's own loader.

    What the Trainer itself does between two steps is measured on batches that are there already.
    """

    name = "loader time"
    questions = ("augmentation",)
    share = 0.5

    def run(self, subject: Subject) -> list[Finding]:
        """Compare waiting with working."""
        batches = subject.batches(4)
        between, step, done = self._times(subject, None, 0.6)
        itself, _, replayed = self._times(subject, batches, 1.0)
        wait = max(0.0, between - itself)
        share = wait / max(wait + step, 1e-12)
        figure = (
            f"{share:.0%} of the time waiting ({1000 * wait:.1f} ms, step {1000 * step:.1f} ms)"
        )
        data = {"waiting_share": share, "waiting_ms": 1000 * wait, "step_ms": 1000 * step}
        if share < _SHARE or 1000 * wait < _MILLISECONDS:
            reason = "Data come fast enough: time for more augmentation is there."
            return [Finding(self.name, "augmentation", figure, reason, data)]
        if min(done, replayed) < _LEAST and wait < itself + step:
            raise NoTimeError(
                f"{min(done, replayed)} steps are too few to tell waiting from what else the "
                f"machine does; {_LEAST} are needed"
            )
        overlay, suggestion = self._suggest(subject)
        return [
            Finding(
                self.name,
                "augmentation",
                figure,
                "Training waits for its data, and what is done to every sample on its own is paid "
                "here: the same work on whole batches, or in workers, costs less.",
                data,
                min(1.0, share),
                suggestion,
                overlay,
                arm="loader_workers",
            )
        ]

    @staticmethod
    def _times(
        subject: Subject, batches: Sequence[Any] | None, share: float
    ) -> tuple[float, float, int]:
        """Return the seconds of a wait and of a step, and how many steps there were.

        Few waits are told by the shortest, which no chance made long.
        """
        times = StepClock(subject.clock)
        subject.train([times], _STEPS, subject.seconds_left() * share, batches)
        subject.cut_off = None  # a loader that is slow enough shows it in a few steps
        done = len(times.ends)
        if done < 1 + _FEW:
            raise NoTimeError(f"{done} steps are too few to compare; {1 + _FEW} are needed")
        if done < _LEAST:
            waits = [a - b for a, b in zip(times.begins[1:done], times.ends, strict=False)]
            steps = [a - b for a, b in zip(times.ends[1:], times.begins[1:], strict=False)]
            return min(waits), max(steps), done
        skipped = min(_WARM_UP, done - 2)
        return *waiting(times.begins[skipped:done], times.ends[skipped:]), done

    @staticmethod
    def _suggest(subject: Subject) -> tuple[dict[str, Any] | None, str]:
        arguments = (subject.config.get("data") or {}).get("init_args") or {}
        if arguments.get("num_workers") == 0:
            overlay = set_key(("data", "init_args", "num_workers"), 2)
            return overlay, "load in 2 workers (data.init_args.num_workers)"
        return None, (
            "load in (more) workers, keep small data in memory as this package's DataModules do, "
            "or replace transforms of single samples by batched ones"
        )
