"""Configuration files, looked at before the parser merges them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lightning_dlopt.cli.mistakes import UsageError
from lightning_dlopt.core.errors import one_line


def read_config(path: Path) -> Mapping[str, Any]:
    """Return a configuration file's content.

    Raises:
        UsageError: if it can't be read, is no YAML, or isn't a mapping; the message names it.
    """
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} can't be read: {one_line(error)}") from error
    if not isinstance(config, Mapping):
        raise UsageError(f"{path} is no configuration: it must hold keys such as trainer and model")
    return config


def trainer_section(path: Path) -> Mapping[str, Any]:
    """Return the ``trainer`` part of a configuration file, empty if there is none."""
    section = read_config(path).get("trainer") or {}
    if not isinstance(section, Mapping):
        raise UsageError(f"{path}: trainer={section!r} must hold keys such as callbacks")
    return section


def listed_callbacks(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return the class path and arguments of each callback that a file sets or adds."""
    section, found = trainer_section(path), []
    for key in ("callbacks", "callbacks+"):
        entries = section.get(key) or []
        for entry in entries if isinstance(entries, list) else [entries]:
            named = {"class_path": entry} if isinstance(entry, str) else entry
            class_path = named.get("class_path") if isinstance(named, Mapping) else None
            arguments = (named.get("init_args") or {}) if isinstance(named, Mapping) else {}
            if not isinstance(class_path, str) or not isinstance(arguments, Mapping):
                raise UsageError(f"{path}: {key}: {entry!r} must have a class_path and init_args")
            found.append((class_path, dict(arguments)))
    return found


def check_order(paths: Sequence[Path]) -> None:
    """Raise a UsageError if a file replaces the callbacks that an earlier one adds."""
    adding: Path | None = None
    for path in paths:
        section = trainer_section(path)
        if adding is not None and "callbacks" in section:
            raise UsageError(
                f"{path} sets trainer.callbacks and would drop what {adding} adds by callbacks+: "
                f"give {path} first"
            )
        if section.get("callbacks+"):
            adding = path
