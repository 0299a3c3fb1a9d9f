"""``dlopt compare``: does a technique help on this module and this data?"""

import re
import shlex
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from lightning_dlopt.cli.compare_progress import Progress
from lightning_dlopt.cli.compared_arms import read_arms, resolve_all
from lightning_dlopt.cli.mistakes import Parser, UsageError
from lightning_dlopt.cli.one_run import run_job
from lightning_dlopt.cli.quiet_config import listed
from lightning_dlopt.evidence.conduct import Conductor
from lightning_dlopt.evidence.launchers import Launcher
from lightning_dlopt.evidence.launchers.processes import Processes
from lightning_dlopt.evidence.report import write_report
from lightning_dlopt.evidence.results import FILE, Results
from lightning_dlopt.evidence.runs import BASELINE, Study

_PRELOAD = ["lightning_dlopt.cli.one_run", "torchvision", "torchmetrics"]
_SMALLER = re.compile("loss|error|err|mse|mae|rmse|mape|smape|perplexity|nll|brier|wer|cer")
_LARGER = re.compile("acc|accuracy|f1|auc|auroc|precision|recall|iou|dice|r2|psnr|ssim|map")


def parse_budget(text: str) -> tuple[list[str], float | None]:
    """Return the options of ``dlopt fit`` that a budget means, and its seconds if it is in these.

    Example:
        >>> parse_budget("500")
        (['--trainer.max_epochs=-1', '--trainer.max_steps=500'], None)
        >>> parse_budget("2min")
        ([], 120.0)
    """
    seconds = re.fullmatch(r"(\d+(?:\.\d+)?) *(s|min|h)", text)
    if seconds and float(seconds[1]) > 0:
        return [], float(seconds[1]) * {"s": 1, "min": 60, "h": 3600}[seconds[2]]
    if re.fullmatch(r"[1-9]\d*( *ep)?", text):
        epochs, steps = (text[:-2].strip(), "-1") if text.endswith("ep") else ("-1", text)
        return [f"--trainer.max_epochs={epochs}", f"--trainer.max_steps={steps}"], None
    raise UsageError(
        f"--budget {text!r} must be epochs (3ep), optimizer steps (500) or a time of training "
        "(90s, 10min, 2h)"
    )


def parse_seeds(text: str) -> list[int]:
    """Return the seeds of ``6`` (the first six) or of a list such as ``3,5,8``.

    Example:
        >>> parse_seeds("3"), parse_seeds("7,9")
        ([1, 2, 3], [7, 9])
    """
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(f"--seeds {text!r} must be a number, or numbers with commas") from error
    seeds = list(range(1, numbers[0] + 1)) if len(numbers) == 1 else numbers
    if len(seeds) < 2:
        raise UsageError(
            f"--seeds {text}: at least two are needed to tell an effect from noise, and six before "
            "one can be significant"
        )
    if len(set(seeds)) < len(seeds) or not all(0 <= seed < 1_000_000 for seed in seeds):
        raise UsageError(f"--seeds {text}: each must be from 0 to 999999, and be there once")
    return seeds


def parse_factors(text: str | None) -> list[float]:
    """Return the factors of the learning rate to be tried.

    Example:
        >>> parse_factors("3,0.3,1"), parse_factors(None)
        ([0.3, 1.0, 3.0], [])
    """
    if text is None:
        return []
    try:
        factors = sorted({float(part) for part in text.split(",")})
    except ValueError:
        factors = []
    if len(factors) < 2 or not all(0 < factor < float("inf") for factor in factors):
        raise UsageError(
            f"--tune {text!r} must be factors of the learning rate, two or more, such as 0.3,1,3"
        )
    return factors


def direction(metric: str, given: str | None) -> bool:
    """Return whether more of a metric is better: as it is said, or by the words of its name.

    Example:
        >>> direction("val/OverallAccuracy", None), direction("valRMSE", None)
        (True, False)
    """
    if given is not None:
        return given == "max"
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+\d*|[A-Z]+\d*", metric)]
    smaller, larger = (any(map(one.fullmatch, words)) for one in (_SMALLER, _LARGER))
    if smaller == larger or "neg" in words:
        raise UsageError(f"--metric {metric}: say --direction max or --direction min")
    return larger


def default_metric(config: dict[str, Any]) -> str:
    """Return what the first callback with a ``monitor`` looks at."""
    for callback in listed((config.get("trainer") or {}).get("callbacks")):
        arguments = callback.get("init_args") if isinstance(callback, dict) else None
        if isinstance(arguments, dict) and arguments.get("monitor"):
            return str(arguments["monitor"])
    raise UsageError("--metric is missing: name what validation logs, such as val_accuracy")


def budget_of(config: dict[str, Any]) -> str:
    """Return the budget that a configuration brings."""
    trainer = config.get("trainer") or {}
    epochs, steps = trainer.get("max_epochs"), trainer.get("max_steps", -1)
    if steps and steps > 0:
        return str(steps)
    if epochs and epochs > 0:
        return f"{epochs}ep"
    raise UsageError("--budget is missing: the configuration says no trainer.max_epochs either")


def make_study(options: Any, base: list[str], arguments: list[str]) -> tuple[Study, float | None]:
    """Return what is to be compared, and the seconds of a run if these are its budget."""
    seeds, tune = parse_seeds(options.seeds), parse_factors(options.tune)
    arms = read_arms(options.arm)
    budget, seconds = parse_budget(options.budget) if options.budget else ([], None)
    configs = resolve_all([*base, *budget], arms)
    baseline = yaml.safe_load(configs[BASELINE])
    metric = options.metric or default_metric(baseline)
    study = Study(
        metric=metric,
        outcome=metric,
        larger_is_better=direction(metric, options.direction),
        budget=(options.budget or budget_of(baseline)).replace(" ", ""),
        select=options.select,
        seeds=seeds,
        arms=list(arms),
        configs=configs,
        changes=arms,
        tune=tune,
        command=shlex.join(["dlopt", "compare", *arguments]),
    )
    return study, seconds


def modules_of(configs: Iterable[str]) -> list[str]:
    """Return the modules that configurations take classes from.

    Example:
        >>> modules_of(["model: {class_path: a.b.Net}", "data: {class_path: c.Data, x: [1]}"])
        ['a.b', 'c']
    """
    paths = re.findall(r"class_path: *['\"]?([\w.]+)\.\w+", "\n".join(configs))
    return sorted(set(paths))


def make_launcher(options: Any, study: Study) -> Launcher:
    """Return what makes the runs.

    Raises:
        UsageError: if an option doesn't fit the launcher.
    """
    if options.workers is not None and options.workers < 1:
        raise UsageError(f"--workers {options.workers} must be at least 1")
    if options.launcher == "ray":
        from lightning_dlopt.evidence.launchers.ray import RayCluster

        return RayCluster(options.ray_address, options.workers)
    if options.ray_address is not None:
        raise UsageError("--ray_address is for --launcher ray")
    return Processes(options.workers, [*_PRELOAD, *modules_of(study.configs.values())])


def _parser() -> Parser:
    parser = Parser(
        prog="dlopt compare",
        usage="%(prog)s --config FILE --arm NAME=OVERLAY [--arm ...] [options] "
        "[options of dlopt fit]",
        description="Train a configuration with and without each of several changes, as pairs of "
        "runs that have their seed, their initial weights and their order of batches in common, "
        "and say which changes help, which hurt, and which can't be told from noise. A further arm "
        "(A/A) is the baseline with other seeds: it shows the noise.",
        epilog="Interrupted and given again, the command goes on where it was. More seeds or arms "
        "can be added to a finished comparison in the same way.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--arm", action="append", default=[], help="NAME=OVERLAY.yaml or NAME=KEY=VALUE; repeated")
    add("--seeds", default="6", help="how many, or a list such as 3,5,8 (6)")
    add("--metric", help="what validation logs (the first callback's monitor)")
    add("--direction", choices=["max", "min"], help="which is better, if the name doesn't say")
    add("--budget", help="of each run: epochs (3ep), steps (500), training time (90s, 10min)")
    add("--select", choices=["last", "best"], default="last", help="weights that count (last)")
    add("--tune", help="try factors of every arm's learning rate first, such as 0.3,1,3")
    add("--tune_seeds", type=int, default=2, help="runs for each factor (2)")
    add("--launcher", choices=["processes", "ray"], default="processes", help="(processes)")
    add("--workers", type=int, help="runs at once (as many as there are cores or devices)")
    add("--ray_address", help="of a running cluster; without it Ray starts here")
    add("--output", type=Path, default=Path("compare"), help="folder for results (compare)")
    return parser


def run(arguments: list[str]) -> None:
    """Compare, and write the report."""
    options, base = _parser().parse_known_args(arguments)
    if not base:
        raise UsageError("--config is missing: it says what is trained")
    if options.tune_seeds < 1:
        raise UsageError(f"--tune_seeds {options.tune_seeds} must be at least 1")
    study, seconds = make_study(options, base, arguments)
    results = Results(options.output / FILE, study)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that runs are stopped
    try:
        launcher = make_launcher(options, study)
        with Progress(lambda: results.study) as progress:
            conductor = Conductor(
                results=results,
                launcher=launcher,
                work=run_job,
                observer=progress,
                seconds=seconds,
                tune_seeds=options.tune_seeds,
                folder=str(Path.cwd()),
                logs=options.output.resolve() / "logs",
            )
            conductor.run()
    except KeyboardInterrupt:
        print("\nstopped; give the same command again to go on")
        sys.exit(130)
    finally:
        results.close()
        signal.signal(signal.SIGTERM, before)
    for path in write_report(results.study, options.output):
        print(f"wrote {path}")
