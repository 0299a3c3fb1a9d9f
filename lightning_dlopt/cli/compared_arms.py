"""The arms of a comparison: what each lays over the base, and what comes of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import Namespace

from lightning_dlopt.cli.mistakes import UsageError
from lightning_dlopt.cli.quiet_config import check_comparable
from lightning_dlopt.cli.train import DloptCLI, run_cli
from lightning_dlopt.core.errors import one_line
from lightning_dlopt.core.global_generators import kept_generators
from lightning_dlopt.evidence.runs import A_A, BASELINE

#: What the parser writes for an object.
_NO_TEXT = "Unable to serialize instance"


class _PlanCLI(DloptCLI):
    """Parses a configuration and builds nothing."""

    resolved: str

    def instantiate_classes(self) -> None:
        """Write down what would be built."""
        config = self.config[self.subcommand]
        dumped = yaml.safe_load(self._parser(self.subcommand).dump(config, skip_none=False))
        self.resolved = yaml.safe_dump(_without_objects(dumped, config.as_dict()), sort_keys=False)
        self.model, self.trainer = None, self  # type: ignore[assignment]
        self.datamodule, self.config_init = None, self.config

    def fit(self, **arguments: Any) -> None:
        """Train nothing."""


def read_arms(given: list[str]) -> dict[str, list[str]]:
    """Return what each arm lays over the base, by name.

    Args:
        given: ``NAME=FILE`` or ``NAME=KEY=VALUE``; several with one name add up. A file alone is
            called by its own name.

    Raises:
        UsageError: if one has another form, a name of the study's own, or no such file.

    Example:
        >>> read_arms(["wide=model.init_args.width=8", "wide=trainer.max_epochs=2"])
        {'wide': ['model.init_args.width=8', 'trainer.max_epochs=2']}
    """
    arms: dict[str, list[str]] = {}
    for text in given:
        if "=" in text:
            name, _, change = text.partition("=")
        else:
            name, change = Path(text).stem, text
        name = name.strip()
        if not name or not change or name in (BASELINE, A_A) or not name.isprintable():
            raise UsageError(
                f"--arm {text!r} must be NAME=OVERLAY.yaml or NAME=KEY=VALUE, with another name "
                f"than {BASELINE!r} and {A_A!r}"
            )
        if "=" not in change and not Path(change).is_file():
            raise UsageError(f"--arm {text!r}: there is no file {change}")
        arms.setdefault(name, []).append(change)
    if not arms:
        raise UsageError("--arm is missing: it says what is compared with the base")
    return arms


def _without_objects(dumped: Any, config: Any) -> Any:
    """Return a dumped configuration without what the parser could only write a complaint for.

    That is a default that has no text, such as a device: left out, it is the same. A text that it
    took for an object is put back.
    """
    if isinstance(dumped, list):
        parts = config if isinstance(config, list) else [None] * len(dumped)
        return [_without_objects(one, part) for one, part in zip(dumped, parts, strict=True)]
    if not isinstance(dumped, dict):
        return dumped
    kept = {}
    for key, value in dumped.items():
        given = config.get(key) if isinstance(config, Mapping | Namespace) else None
        if not str(value).startswith(_NO_TEXT):
            kept[key] = _without_objects(value, given)
        elif isinstance(given, str):
            kept[key] = given
    return kept


def resolve(base: list[str], changes: list[str]) -> str:
    """Return the whole configuration, as YAML, of arguments for ``dlopt fit`` and an arm.

    Raises:
        UsageError: if it can't be used.
    """
    files = [f"--config={change}" for change in changes if "=" not in change]
    options = [f"--{change}" for change in changes if "=" in change]
    with kept_generators(torch.device("cpu")):
        arguments = ["fit", *base, *files, *options, "--seed_everything=false"]
        cli: Any = run_cli(_PlanCLI, arguments, save_config_callback=None)
    config = yaml.safe_load(cli.resolved)
    config.pop("seed_everything", None)
    check_comparable(config)
    return yaml.safe_dump(config, sort_keys=False)


def resolve_all(base: list[str], arms: dict[str, list[str]]) -> dict[str, str]:
    """Return the configuration of the baseline and of every arm.

    Raises:
        UsageError: if an arm can't be used, changes nothing, is the same as another one, or has
            other data than the baseline.
    """
    configs = {BASELINE: resolve(base, [])}
    for name, changes in arms.items():
        try:
            config = resolve(base, changes)
        except UsageError as error:
            raise UsageError(f"--arm {name}: {one_line(error)}") from error
        for other, there in configs.items():
            if config == there:
                raise UsageError(
                    f"--arm {name}: {' '.join(changes)} changes nothing"
                    if other == BASELINE
                    else f"--arm {name} and --arm {other} are the same"
                )
        here, there = (_data_class(yaml.safe_load(one)) for one in (config, configs[BASELINE]))
        if here != there:
            raise UsageError(
                f"--arm {name} has other data ({here}) than the base ({there}): what the two reach "
                "can't be compared"
            )
        configs[name] = config
    return configs


def _data_class(config: dict[str, Any]) -> Any:
    data = config.get("data")
    return data.get("class_path") if isinstance(data, dict) else data
