"""The studies behind the method cards.

``python -m benchmarks.cards.run`` makes every study of ``studies.yaml`` with ``dlopt compare``;
what is finished is kept in ``benchmarks/results/cards``, and an interrupted study goes on where it
was. ``--studies NAME ...`` makes only some; ``--quick`` makes a small form of each in minutes, in a
folder of its own. Further arguments are ``dlopt compare``'s, such as ``--workers 2``.
"""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from lightning_dlopt.cli import main as dlopt

ROOT = Path(__file__).parents[2]
STUDIES = Path(__file__).parent / "studies.yaml"
RESULTS = ROOT / "benchmarks" / "results" / "cards"


def read_studies(quick: bool = False) -> dict[str, dict[str, Any]]:
    """Return what each study compares."""
    studies: dict[str, dict[str, Any]] = yaml.safe_load(STUDIES.read_text(encoding="utf-8"))
    smaller = studies.pop("quick")
    return {name: study | smaller if quick else study for name, study in studies.items()}


def arguments_of(study: dict[str, Any], output: Path) -> list[str]:
    """Return the arguments of ``dlopt compare`` that make a study."""
    arguments = [f"--config={path}" for path in study["base"]]
    for name, arm in study["arms"].items():
        arguments += [f"--arm={name}={change}" for change in arm["changes"]]
    arguments += [f"--{key}={study[key]}" for key in ("metric", "budget", "seeds")]
    if len(study.get("tune", [])) > 1:
        arguments.append(f"--tune={','.join(f'{factor:g}' for factor in study['tune'])}")
        arguments.append("--tune_seeds=1")
    return [*arguments, f"--output={output.relative_to(ROOT)}"]


def main() -> int:
    """Make the studies, also if one fails; return the exit code of the first that does."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    studies = read_studies()
    parser.add_argument("--studies", nargs="+", choices=list(studies), default=list(studies))
    parser.add_argument("--quick", action="store_true", help="two seeds and 200 steps")
    options, others = parser.parse_known_args()
    os.chdir(ROOT)
    folder = ROOT / "runs" / "quick_cards" if options.quick else RESULTS
    codes = []
    for name in options.studies:
        begin = time.monotonic()
        study = read_studies(options.quick)[name]
        code = dlopt(["compare", *arguments_of(study, folder / name), *others])
        print(f"{name}: {(time.monotonic() - begin) / 60:.1f} minutes", flush=True)
        codes.append(code)
    return next((code for code in codes if code), 0)


if __name__ == "__main__":
    sys.exit(main())
