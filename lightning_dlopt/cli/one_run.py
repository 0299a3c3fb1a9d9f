"""One run of a comparison, in the process that makes it."""

import os
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
import yaml
from lightning.pytorch import LightningModule, seed_everything
from lightning.pytorch.utilities.model_helpers import is_overridden

from lightning_dlopt.cli.checkpoint_guard import CheckpointGuard
from lightning_dlopt.cli.mistakes import user_mistakes
from lightning_dlopt.cli.optimizer_guard import OptimizerGuard
from lightning_dlopt.cli.quiet_config import OUTPUT, quiet_config
from lightning_dlopt.cli.train import DloptCLI, run_cli
from lightning_dlopt.core.errors import NoEffectWarning, one_line
from lightning_dlopt.evidence.fingerprints import weights_fingerprint
from lightning_dlopt.evidence.jobs import Job, RefusedError, unfinished_run
from lightning_dlopt.evidence.machine import memory_mb
from lightning_dlopt.evidence.pairing import Pairing
from lightning_dlopt.evidence.recorder import MetricError, Recorder
from lightning_dlopt.evidence.results import test_counterpart
from lightning_dlopt.evidence.runs import Point, Run, Status


class _RunCLI(DloptCLI):
    """Trains with a recorder before all callbacks, and what makes pairs after them."""

    job: ClassVar[Job]
    recorder: ClassVar[Recorder]
    weights: ClassVar[str] = ""

    def fit(self, model: LightningModule, **arguments: Any) -> None:
        """Train; what is drawn from here on is drawn alike in every arm."""
        type(self).weights = weights_fingerprint(model)
        callbacks: list[Any] = self.trainer.callbacks  # type: ignore[attr-defined]
        callbacks[:] = [self.recorder, *callbacks]
        # the module's own callbacks come after the Trainer's, and what makes pairs after all
        own: Any = partial(_callbacks_of, model.configure_callbacks, self.job.seed)
        model.configure_callbacks = own  # type: ignore[method-assign]
        draw_alike(self.job)
        self.trainer.fit(model, **arguments)


def _callbacks_of(configured: Callable[[], Any], seed: int) -> list[Any]:
    """Return a module's own callbacks, those that write left out, and what makes pairs."""
    callbacks = configured()
    callbacks = callbacks if isinstance(callbacks, Sequence) else [callbacks]
    return [*(one for one in callbacks if not isinstance(one, OUTPUT)), Pairing(seed)]


@contextmanager
def noted_warnings() -> Iterator[list[str]]:
    """Give the techniques' warnings that they have no effect; they are shown all the same."""
    notes: list[str] = []
    show = warnings.showwarning

    def noted(message: Warning | str, category: type[Warning], *place: Any) -> None:
        if issubclass(category, NoEffectWarning):
            notes.append(one_line(message))
        show(message, category, *place)

    with warnings.catch_warnings():
        warnings.simplefilter("always", NoEffectWarning)
        warnings.showwarning = noted  # type: ignore[assignment]
        yield notes


def draw_alike(job: Job) -> None:
    """Seed what is drawn next: a DataModule may split its data anew for every loop."""
    seed_everything(job.seed, workers=True, verbose=False)


def run_job(job: Job) -> Run:
    """Make a run and return what came of it; that it fails is a result, too.

    Raises:
        RefusedError: if it failed before its first batch, or the metric isn't logged.
    """
    torch.set_num_threads(job.threads)
    os.chdir(job.folder)
    recorder = Recorder(job.metric, job.rate_factor)
    cls: Any = type("RunCLI", (_RunCLI,), {"job": job, "recorder": recorder})
    run = unfinished_run(job, "crashed")
    with tempfile.TemporaryDirectory(prefix="dlopt-") as folder:
        try:
            with noted_warnings() as notes:
                cli = _trained(cls, job, Path(folder))
            metrics: dict[str, float] = {}
            if job.kind == "trial" and not recorder.curve:
                raise MetricError(
                    "nothing is validated: a comparison needs a validation_step and a loader for it"
                )
            if job.kind != "trial":
                metrics, note = _reached(cli, recorder)
                notes.append(note)
            why = _divergence(cli.model, metrics, job.metric)
            status: Status = "diverged" if why else "finished"
            run = replace(
                run, status=status, why=why or "; ".join(filter(None, notes)), metrics=metrics
            )
        except Exception as error:
            why = f"{type(error).__name__}: {one_line(error)}"[:500]
            if isinstance(error, MetricError) or not recorder.batches_done:
                shown = one_line(error) if isinstance(error, user_mistakes()) else why
                raise RefusedError(f"{job.name}: {shown}") from error
            if job.kind == "trial":
                raise RefusedError(f"{job.name}: {why}") from error
            traceback.print_exc()
            run = replace(run, why=why)
    return replace(
        run,
        curve=recorder.curve,
        steps=recorder.curve[-1].step if recorder.curve else 0,
        seconds=round(recorder.seconds, 3),
        step_ms=recorder.step_ms,
        warm_up_seconds=round(recorder.warm_up_seconds, 3),
        memory_mb=memory_mb(),
        weights=cls.weights,
        batches=recorder.batches,
        held_out=recorder.held_out,
        finished_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def _trained(cls: Any, job: Job, folder: Path) -> Any:
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(quiet_config(yaml.safe_load(job.config), job, folder)))
    return run_cli(
        cls,
        ["fit", f"--config={config}"],
        save_config_callback=None,
        trainer_defaults={"callbacks": [CheckpointGuard(), OptimizerGuard()]},
    )


def _reached(cli: Any, recorder: Recorder) -> tuple[dict[str, float], str]:
    """Return what the selected weights reach in validation and in the one test, and a note."""
    trainer, model, data = cli.trainer, cli.model, cli.datamodule
    best = "best" if cli.job.select == "best" else None
    last = recorder.curve[-1].step if recorder.curve else None
    if best and last is None:
        raise MetricError(
            "--select best: the budget ends before the first validation; give a larger one, or a "
            "trainer.val_check_interval"
        )
    # a callback may have put other weights in place at the end, such as their average
    changed = weights_fingerprint(model) != recorder.validated_weights
    if best or changed or last != trainer.global_step:
        seconds, epoch = round(recorder.seconds, 3), trainer.current_epoch
        recorder.curve_closed = True
        draw_alike(cli.job)
        trainer.validate(model, data, ckpt_path=best, verbose=False)
        value = recorder.value_in(trainer)
        if last != trainer.global_step:
            recorder.curve.append(Point(trainer.global_step, epoch, seconds, value))
        elif not best:
            recorder.curve[-1] = replace(recorder.curve[-1], value=value)
    validated = recorder.validated  # what training has logged since may have the same names
    source = data if data is not None and is_overridden("test_dataloader", data) else model
    if is_overridden("test_dataloader", source) and is_overridden("test_step", model):
        draw_alike(cli.job)
        try:
            trainer.test(model, data, ckpt_path=best, verbose=False)
        except Exception as error:  # training is done, and what it reached in validation is known
            traceback.print_exc()
            return validated, f"the test failed: {type(error).__name__}: {one_line(error)}"[:500]
        tested = {name: float(value) for name, value in trainer.callback_metrics.items()}
        return tested | validated, ""  # of a name that both log, validation's value chooses
    return validated, ""


def _divergence(model: LightningModule, metrics: dict[str, float], metric: str) -> str:
    """Return why a run that came to its end has failed all the same, or nothing."""
    for name in (metric, test_counterpart(metric)):
        if name in metrics and not torch.isfinite(torch.tensor(metrics[name])):
            return f"{name} is {metrics[name]}"
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            return f"the parameter {name} is not finite"
    return ""
