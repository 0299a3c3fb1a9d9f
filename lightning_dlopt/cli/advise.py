"""``dlopt advise``: what to try on a run, from cheap probes of its module and data."""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from rich.console import Console

from lightning_dlopt.cli.mistakes import Parser, UsageError
from lightning_dlopt.cli.train import DloptCLI, run_cli
from lightning_dlopt.core.global_generators import kept_generators
from lightning_dlopt.core.plain import plain
from lightning_dlopt.core.randomness import run_seed
from lightning_dlopt.evidence.advise.advise import Advice, advise
from lightning_dlopt.evidence.advise.files import (
    BASE,
    check_folder,
    choose_metric,
    commands_of,
    save,
)
from lightning_dlopt.evidence.advise.render import to_table
from lightning_dlopt.evidence.advise.subject import Subject
from lightning_dlopt.evidence.advise.training import quiet_lightning


class AdviseCLI(DloptCLI):
    """Builds the module, the data and the Trainer of a configuration, and runs nothing."""

    def instantiate_classes(self) -> None:
        """Build them without loggers, which may write or reach out when they are made."""
        config = self.config["fit"]
        self.plain_config = plain(config.as_dict())
        self.resolved = self._parser("fit").dump(config, skip_none=False)
        config.trainer["logger"] = False
        super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build one for this process alone, on the device of the run."""
        here = {"devices": 1, "num_nodes": 1, "strategy": "auto", "logger": False}
        return super().instantiate_trainer(**{**kwargs, **here})

    def fit(self, **arguments: Any) -> None:
        """Train nothing."""


def parse_budget(text: str) -> float:
    """Return a budget of time in seconds.

    Raises:
        UsageError: if it is none.

    Example:
        >>> parse_budget("60s"), parse_budget("1.5min"), parse_budget("20")
        (60.0, 90.0, 20.0)
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min)?", text.strip())
    if match is None or float(match[1]) == 0:
        raise UsageError(f"--budget {text}: must be seconds (60s) or minutes (2min), above 0")
    return float(match[1]) * (60 if match[2] == "min" else 1)


def subject_of(cli: Any) -> Subject:
    """Return what the probes see of the module and data that a CLI has built."""
    return Subject(cli.model, cli.datamodule, cli.trainer, config=cli.plain_config, seed=run_seed())


def metric_of(subject: Subject) -> str | None:
    """Return the metric to compare by, or None if validation logs nothing or can't run.

    It is what a callback monitors, if validation logs it.
    """
    try:
        logged = subject.validation_metrics()
    except Exception:  # whatever a user's module does; the probes say what
        return None
    callbacks = (subject.config.get("trainer") or {}).get("callbacks") or []
    monitored = [(one.get("init_args") or {}).get("monitor") for one in callbacks]
    return next((name for name in monitored if name in logged), None) or choose_metric(logged)


def budget_options(config: Mapping[str, Any]) -> list[str]:
    """Return the budget of a comparison's runs, for a configuration that says none."""
    trainer = config.get("trainer") or {}
    given = [trainer.get("max_epochs"), trainer.get("max_steps")]
    return [] if any(number and number > 0 for number in given) else ["--budget", "10ep"]


def only_files(arguments: Sequence[str]) -> bool:
    """Return whether arguments name configuration files and nothing else.

    Example:
        >>> only_files(["--config", "a.yaml", "--config=b.yaml"]), only_files(["--data", "Digits"])
        (True, False)
    """
    rest = iter(arguments)
    for argument in rest:
        if argument in ("--config", "-c"):
            next(rest, None)
        elif not argument.startswith("--config="):
            return False
    return True


def run(arguments: list[str]) -> None:
    """Probe a module and its data, print the advice and write it."""
    parser = Parser(
        prog="dlopt advise",
        usage="%(prog)s --config FILE [--config OVERLAY ...] [options] [options of dlopt fit]",
        description="Probe a module and its data with short runs of copies, and say which "
        "optimizer, learning rate, regularizer and augmentation to try, and how to generalize "
        "better, the most pressing first. Module and data stay as they are. Each suggestion has "
        "its figure, its reason, an overlay file that applies it, and the dlopt compare command "
        "that tests it: advice is a prior, not a result.",
        allow_abbrev=False,
    )
    parser.add_argument("--budget", default="60s", help="time for all probes: 60s, 2min (60s)")
    parser.add_argument(
        "--output", type=Path, default=Path("advice"), help="folder of the files (advice)"
    )
    parser.add_argument(
        "--metric", help="what the commands compare by; of what validation logs if not given"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace earlier advice in the folder"
    )
    options, others = parser.parse_known_args(arguments)
    budget = parse_budget(options.budget)
    if not others:
        raise UsageError("--config is missing: it says how the run is built")
    check_folder(options.output, options.overwrite)
    with kept_generators(torch.device("cpu")):
        with quiet_lightning():
            cli = run_cli(AdviseCLI, ["fit", *others], save_config_callback=None)
        subject = subject_of(cli)
        metric = options.metric or metric_of(subject)
        advice: Advice = advise(subject, budget, tell=lambda name: print(f"{name} …"))
    # an option on the command line would win over every overlay: it becomes part of a file
    kept = None if only_files(others) else cli.resolved  # type: ignore[attr-defined]
    base = others if kept is None else ["--config", (options.output / BASE).as_posix()]
    base = [*base, *budget_options(subject.config)]
    commands = commands_of(advice, base, options.output, metric)
    written = save(advice, commands, options.output, options.overwrite, kept)
    # a command must come out whole to be copied, whatever the terminal's width
    console = Console(file=sys.stdout, soft_wrap=not sys.stdout.isatty())
    console.print(to_table(advice, commands))
    print("wrote", ", ".join(map(str, written)))
