"""The files of advice: report, data, overlays, and the commands that test them."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lightning_dlopt.core.errors import ArgumentError, DataError, one_line
from lightning_dlopt.evidence.advise.advise import Advice
from lightning_dlopt.evidence.advise.finding import Finding
from lightning_dlopt.evidence.advise.render import to_markdown

#: The report, the data, the folder of overlays, and what was advised on if no files say it.
REPORT, DATA, OVERLAYS, BASE = "advice.md", "advice.json", "overlays", "base.yaml"

#: Under what the commands keep the one that tests all suggestions.
ALL = "all"


def check_folder(folder: Path, overwrite: bool = False) -> None:
    """Raise an ArgumentError if there is earlier advice in a folder, or if it is a file."""
    if folder.exists() and not folder.is_dir():
        raise ArgumentError(f"--output: {folder} is a file, and must be a folder")
    for name in (REPORT, DATA, OVERLAYS, BASE):
        if (folder / name).exists() and not overwrite:
            raise ArgumentError(
                f"--output: {folder / name} is there already: say --overwrite, or give another "
                "folder"
            )


def compare_command(
    base: Sequence[str], findings: Sequence[Finding], folder: Path, metric: str | None
) -> str:
    """Return the command that tests suggestions, each by an arm of its own.

    Args:
        base: the arguments that say what was advised on, such as ``["--config", "a.yaml"]``.
        findings: those with an overlay, at least one.
        folder: of the advice.
        metric: name of what is compared; a place to fill in if None.

    Example:
        >>> finding = Finding("rate range", "rate", "", "", {}, 0.5, "lower it", {}, "rate")
        >>> compare_command(["--config", "a.yaml"], [finding], Path("advice"), "val_loss")
        'dlopt compare --config a.yaml --arm rate=advice/overlays/rate.yaml --seeds 6 \
--metric val_loss --direction min --output compare/rate'
    """
    command = ["dlopt", "compare", *base]
    for one in findings:
        command += ["--arm", f"{one.arm}={(folder / OVERLAYS / one.arm).as_posix()}.yaml"]
    better = "max" if metric is None or is_larger_better(metric) else "min"
    command += ["--seeds", "6", "--metric", metric or "METRIC", "--direction", better]
    name = findings[0].arm if len(findings) == 1 else ALL
    return shlex.join([*command, "--output", f"compare/{name}"])


def choose_metric(names: Sequence[str]) -> str | None:
    """Return the metric of validation to compare by: an accuracy or score before a loss.

    Example:
        >>> choose_metric(["val_loss", "val_accuracy"]), choose_metric(["val_loss"])
        ('val_accuracy', 'val_loss')
    """
    for words in (("acc",), ("f1", "auroc", "auc", "iou", "score"), ("loss",)):
        for name in names:
            if any(word in name.lower() for word in words):
                return name
    return names[0] if names else None


def is_larger_better(metric: str) -> bool:
    """Return whether a metric of this name grows as a model gets better."""
    worse = ("loss", "error", "err", "mse", "mae", "rmse", "perplexity", "ppl", "nll")
    return not any(word in metric.lower() for word in worse)


def commands_of(
    advice: Advice, base: Sequence[str], folder: Path, metric: str | None
) -> dict[str, str]:
    """Return the command of each suggestion with an overlay, by its arm.

    If there are several, there is one more, :data:`ALL`, that compares them all, which takes less
    time since they share the baseline's runs.
    """
    found = [one for one in advice.suggestions if one.overlay is not None]
    commands = {one.arm: compare_command(base, [one], folder, metric) for one in found}
    if len(found) > 1:
        commands[ALL] = compare_command(base, found, folder, metric)
    return commands


def save(
    advice: Advice,
    commands: Mapping[str, str],
    folder: Path,
    overwrite: bool = False,
    base: str | None = None,
) -> list[Path]:
    """Write the report, the data and an overlay for each suggestion, and return the paths.

    Overlays of the earlier advice in the folder are removed if it may be overwritten.

    Args:
        advice: what was found.
        commands: as :func:`commands_of` gives them.
        folder: for the files; it is made if it isn't there.
        overwrite: whether earlier advice there is replaced.
        base: a configuration to be kept beside the overlays, as YAML, or None for none.

    Raises:
        ArgumentError: as :func:`check_folder`.
        DataError: if a file can't be written.
    """
    check_folder(folder, overwrite)
    overlays = [one for one in advice.suggestions if one.overlay is not None]
    data: dict[str, Any] = {**advice.to_json(), "commands": dict(commands)}
    texts = {folder / DATA: json.dumps(data, indent=1, allow_nan=False) + "\n"}
    texts[folder / REPORT] = to_markdown(advice, commands)
    for one in overlays:
        head = "".join(f"# {line}\n" for line in (one.suggestion, one.reason) if line)
        body = yaml.safe_dump(one.overlay, sort_keys=False)
        texts[folder / OVERLAYS / f"{one.arm}.yaml"] = head + body
    if base is not None:
        texts[folder / BASE] = base
    try:
        for stale in _earlier_overlays(folder) if overwrite else []:
            stale.unlink(missing_ok=True)
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(f"--output: {folder} can't be written: {one_line(error)}") from error
    return list(texts)


def _earlier_overlays(folder: Path) -> list[Path]:
    try:
        commands = json.loads((folder / DATA).read_text(encoding="utf-8"))["commands"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [folder / OVERLAYS / f"{arm}.yaml" for arm in commands if "/" not in arm]
