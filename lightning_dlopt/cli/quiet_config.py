"""A configuration for one of many runs: it writes nothing outside its own folder."""

import math
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Checkpoint, ModelSummary, ProgressBar
from lightning.pytorch.loggers.logger import DummyLogger

from lightning_dlopt.cli.mistakes import UsageError
from lightning_dlopt.evidence.jobs import Job

_LOCAL_LOGGERS = ("CSVLogger", "TensorBoardLogger")
#: The callbacks that write or print, and have no part in what is learned.
OUTPUT = (Checkpoint, ModelSummary, ProgressBar)


class SilentLogger(DummyLogger):
    """Stands in for a logger of any kind.

    Args:
        save_dir: where a module may write what it would have written beside the logs.
    """

    def __init__(self, save_dir: str) -> None:
        super().__init__()
        self._save_dir = save_dir

    @property
    def save_dir(self) -> str:
        """The folder of the run."""
        return self._save_dir


def quiet_config(config: dict[str, Any], job: Job, folder: Path) -> dict[str, Any]:
    """Return the configuration of a run of ``job`` that writes to ``folder`` only.

    Its checkpoints, progress bars, summaries and profiler are left out, and loggers that write
    elsewhere are replaced by one that takes whatever the module gives it and keeps nothing.
    """
    trainer = dict(config.get("trainer") or {})
    callbacks = [one for one in listed(trainer.get("callbacks")) if not _is_output(one)]
    if job.select == "best":
        mode = "max" if job.larger_is_better else "min"
        best = {"monitor": job.metric, "mode": mode, "dirpath": str(folder), "filename": "best"}
        callbacks.append({"class_path": "ModelCheckpoint", "init_args": best})
    trainer |= {
        "callbacks": callbacks,
        "logger": _local(trainer.get("logger"), folder),
        "default_root_dir": str(folder),
        "enable_checkpointing": job.select == "best",
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "profiler": None,
    }
    if job.kind == "trial":
        trainer |= {"fast_dev_run": True}
    if job.steps is not None:
        trainer |= {"max_steps": job.steps, "max_epochs": -1}
    if job.max_seconds is not None:
        days, seconds = divmod(math.ceil(job.max_seconds), 24 * 3600)
        clock = f"{days:02}:{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        trainer |= {"max_time": clock, "max_steps": -1, "max_epochs": 10**6}
    return {**config, "seed_everything": job.seed, "trainer": trainer}


def check_comparable(config: Mapping[str, Any]) -> None:
    """Raise a UsageError if runs of a configuration couldn't be made side by side."""
    trainer = config.get("trainer") or {}
    if config.get("ckpt_path"):
        raise UsageError("ckpt_path: a comparison begins with new weights: leave it out")
    if trainer.get("devices", "auto") not in ("auto", 1, "1") or trainer.get("num_nodes", 1) != 1:
        raise UsageError(
            f"trainer.devices={trainer.get('devices')!r}: each run is on one device, and several "
            "runs are made at once: say --trainer.devices=1"
        )
    if trainer.get("limit_val_batches") == 0:
        raise UsageError("trainer.limit_val_batches=0: nothing is validated, so nothing compared")
    if trainer.get("fast_dev_run") or trainer.get("barebones"):
        raise UsageError("trainer.fast_dev_run and barebones: such runs log nothing to compare")


def listed(value: Any) -> list[Any]:
    """Return a list of what may be one, none or several."""
    return value if isinstance(value, list) else [] if value is None else [value]


def _is_output(callback: Any) -> bool:
    path = callback.get("class_path") if isinstance(callback, Mapping) else callback
    module, _, name = str(path).rpartition(".")
    found = getattr(import_module(module), name, None) if module else None
    return isinstance(found, type) and issubclass(found, OUTPUT)


def _local(logger: Any, folder: Path) -> Any:
    if isinstance(logger, bool) or logger is None:
        return logger
    return [_local_logger(one, folder) for one in listed(logger)]


def _local_logger(logger: Any, folder: Path) -> Any:
    path = str(logger.get("class_path") if isinstance(logger, Mapping) else logger)
    if path.rpartition(".")[2] not in _LOCAL_LOGGERS:
        path, arguments = "lightning_dlopt.cli.quiet_config.SilentLogger", {}
    else:
        arguments = dict(logger.get("init_args") or {}) if isinstance(logger, Mapping) else {}
    return {"class_path": path, "init_args": {**arguments, "save_dir": str(folder)}}
