"""What pruning costs in accuracy and saves in arithmetic, from another benchmark's results."""

import json
from collections import Counter

from benchmarks import pruning
from benchmarks.cards.techniques import Entry


def pruned_section(entry: Entry) -> str:
    """Return what the benchmark of pruning says, empty for techniques that aren't in it."""
    arms = [arm for arm in pruning.TECHNIQUES if entry.name in _names(arm)]
    lines = [json.loads(line) for line in pruning.RESULTS.read_text().splitlines()]
    own = [line for line in lines if line["arm"] in arms]
    if not own:
        return ""
    (epochs,) = {line["epochs"] for line in own}
    machines = "; ".join(sorted({line["machine"] for line in own}))
    counts = Counter(line["arm"] for line in lines)
    runs = ", ".join(f"{arm}: {count}" for arm, count in counts.items())
    text = (
        f"What it costs in accuracy and saves in size; its rows are {', '.join(map(repr, arms))}. "
        f"All are of one convolutional network on Fashion-MNIST, {epochs} epochs in all for every "
        "row. *Narrow* is the shape that the pruned network of that seed ended in, trained from "
        "scratch. Means with the least and the most of the seeds; the last column is the mean "
        "paired difference with half the width of its 95 % interval."
    )
    command = f"python -m benchmarks.pruning --epochs {epochs}"
    parts = ["### Accuracy and size, against narrow networks from scratch", text, pruning.table()]
    return "\n\n".join(
        [*parts, f"- runs: {runs}\n- machine: {machines}", f"Made by\n\n```bash\n{command}\n```"]
    )


def _names(arm: str) -> set[str]:
    return {type(technique).__name__ for technique in pruning.TECHNIQUES[arm]()}
