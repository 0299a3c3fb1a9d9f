"""What the networks reached at an equal number of parameters, from another benchmark's results."""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.cards.effects import UP, table
from benchmarks.cards.techniques import ROOT, Entry, recipes

RESULTS = ROOT / "benchmarks" / "results" / "networks.jsonl"

Runs = list[dict[str, Any]]


def read(results: Path = RESULTS) -> Runs:
    """Return the runs in the file."""
    return [json.loads(line) for line in results.read_text().splitlines()]


def _class_of(network: str) -> str:
    """Return the class that a recipe trains."""
    (name,) = next(r.named for r in recipes() if r.path == f"recipes/structure/{network}.yaml")
    return name


def _spread(values: Sequence[float], digits: int) -> str:
    mean, least, most = (
        f"{value:.{digits}f}" for value in (statistics.mean(values), min(values), max(values))
    )
    return f"{mean} ({least} - {most})"


def networks_table(runs: Runs, link: str = "", bold: str = "") -> str:
    """Return the runs as a table, one row for each recipe, those of one class in bold.

    Args:
        runs: as in the file.
        link: where the cards lie, such as ``docs/techniques/``.
        bold: name of a class.
    """
    head = ["network", "recipe", "parameters", "million multiply-adds", "seconds of training"]
    rows = [[*head, "test accuracy, %", "runs"]]
    for network in dict.fromkeys(run["network"] for run in runs):
        own = [run for run in runs if run["network"] == network]
        name = _class_of(network)
        file = Entry(name, "structure", "network", None).file
        shown = f"[`{name}`]({link}{file})"
        rows.append(
            [
                f"**{shown}**" if name == bold else shown,
                f"`{network}.yaml`",
                f"{own[0]['parameters']:,}",
                f"{own[0]['multiply_adds'] / 1e6:.2f}",
                _spread([run["seconds"] for run in own], 0),
                _spread([100 * run["test_accuracy"] for run in own], 2),
                str(len(own)),
            ]
        )
    return table(rows)


def networks_section(entry: Entry, runs: Runs) -> str:
    """Return the section of a network's card on what it reached."""
    machines = "; ".join(sorted({run["machine"] for run in runs}))
    options = sorted({" ".join(run["options"]) for run in runs})
    commands = "\n".join(f"python -m benchmarks.networks --nouns nouns.tsv {o}" for o in options)
    text = (
        "The networks of the recipes in `recipes/structure` at an equal number of parameters "
        "(texts: besides the same embedding), trained on Fashion-MNIST or, as `text_...`, on which "
        f"of 26 fields a noun is from by its definition ([`text_recurrent.yaml`]({UP}recipes/"
        "text_recurrent.yaml) says how to get these). Means with the least and the most of all "
        "runs. Learning rates were not tuned, and so few runs of whole networks are no paired "
        "comparison: differences as small as the spreads say nothing."
    )
    notes = (
        f"- machine: {machines}\n- times are of training with its validations, on a machine that "
        "had other work besides: the least is nearest to what a run takes"
    )
    return "\n\n".join(
        [
            text,
            networks_table(runs, bold=entry.name),
            notes,
            f"Made by\n\n```bash\n{commands}\n```",
        ]
    )
