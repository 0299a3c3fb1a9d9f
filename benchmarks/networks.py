"""What each network of the structure family reaches on real data, at an equal budget.

``python -m benchmarks.networks`` trains each complete recipe of ``recipes/structure`` with each
seed and adds one line of JSON for each finished run to a file; runs that the file has are skipped,
so a study that was interrupted goes on where it was. ``--table`` prints the file as a Markdown
table and trains nothing. Multiply-adds are those of one image, or of one text of full length;
seconds those of training with its validations; the accuracy is that of the last weights.

The texts' networks need ``--nouns nouns.tsv`` (``recipes/text_recurrent.yaml`` says how to get it).
Further arguments are ``dlopt fit``'s: ``--trainer.max_epochs=1`` trains shorter. They are kept with
the run, and runs with others are other runs.
"""

import argparse
import json
import logging
import statistics
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Timer
from torch import Tensor

from benchmarks.measuring import machine
from lightning_dlopt.cli.train import DloptCLI, run_cli
from lightning_dlopt.structure import count_multiply_adds

ROOT = Path(__file__).parents[1]
IMAGES = ["mlp", "conv_net", "recurrent_net", "attention_net", "res_net9"]
TEXTS = ["text_recurrent_net", "text_attention_net", "text_res_net9"]
RESULTS = ROOT / "benchmarks" / "results" / "networks.jsonl"


def example(data: Any) -> Tensor:
    """Return one image, or one text that is as long as the data allows."""
    inputs: Tensor = next(iter(data.test_dataloader()))[0][:1]
    if inputs.is_floating_point():
        return inputs
    return torch.full((1, data.max_length), data.unknown_id)


def train(name: str, seed: int, nouns: Path | None, options: Sequence[str]) -> dict[str, Any]:
    """Train a recipe, test the weights it ends with, and return what there is to keep of it."""
    arguments = ["fit", "--config", str(ROOT / "recipes" / "structure" / f"{name}.yaml")]
    if name in TEXTS and nouns is not None:
        arguments.append(f"--data.init_args.path={nouns.resolve()}")
    with tempfile.TemporaryDirectory() as folder:
        quiet = {"logger": "false", "enable_progress_bar": "false", "enable_model_summary": "false"}
        arguments += [f"--trainer.{key}={value}" for key, value in quiet.items()]
        arguments += [f"--trainer.default_root_dir={folder}", f"--seed_everything={seed}", *options]
        timer = Timer()
        cli = run_cli(
            DloptCLI,
            arguments,
            save_config_callback=None,
            trainer_defaults={"callbacks": [timer]},
        )
        (result,) = cli.trainer.test(cli.model, cli.datamodule, verbose=False)
    network: Any = cli.model.network.cpu()
    return {
        "network": name,
        "seed": seed,
        "options": list(options),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "multiply_adds": count_multiply_adds(network, example(cli.datamodule)),
        "seconds": round(timer.time_elapsed("train"), 2),
        "test_accuracy": result["test_accuracy"],
        "torch": torch.__version__,
        "machine": machine(),
    }


def read(results: Path, options: Sequence[str]) -> list[dict[str, Any]]:
    """Return the finished runs that had these options."""
    lines = results.read_text().splitlines() if results.exists() else []
    runs: list[dict[str, Any]] = [json.loads(line) for line in lines]
    return [run for run in runs if run["options"] == list(options)]


def ends(values: Sequence[float], digits: int) -> str:
    """Return ``mean (least - most)``."""
    mean, low, high = (
        f"{value:.{digits}f}" for value in (statistics.mean(values), min(values), max(values))
    )
    return f"{mean} ({low} - {high})"


def table(runs: Sequence[dict[str, Any]]) -> str:
    """Return the runs as a Markdown table, one row for each network."""
    head = ["network", "parameters", "million multiply-adds", "seconds", "test accuracy, %", "runs"]
    rows = [head, ["---"] * len(head)]
    for name in [*IMAGES, *TEXTS]:
        own = [run for run in runs if run["network"] == name]
        if own:
            row = [name, f"{own[0]['parameters']:,}", f"{own[0]['multiply_adds'] / 1e6:.2f}"]
            row.append(ends([run["seconds"] for run in own], 0))
            row.append(ends([100 * run["test_accuracy"] for run in own], 2))
            rows.append([*row, str(len(own))])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0] if __doc__ else None, allow_abbrev=False
    )
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 1")
    parser.add_argument("--networks", nargs="+", choices=[*IMAGES, *TEXTS], help="default: all")
    parser.add_argument("--nouns", type=Path, help="the texts; without it only images are trained")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print the results, train nothing")
    arguments, options = parser.parse_known_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    names = arguments.networks or (IMAGES if arguments.nouns is None else [*IMAGES, *TEXTS])
    if arguments.table:
        runs = read(arguments.results, options)
        places = sorted({run["machine"] for run in runs})
        print("\n", "; ".join(places), "; mean (least - most)\n", sep="")
        print(table(runs))
        return
    if arguments.nouns is None and set(names) & set(TEXTS):
        parser.error("the networks for texts need --nouns")
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    # seed by seed, so that every network is there as often whenever it is interrupted
    for seed in range(1, arguments.seeds + 1):
        for name in names:
            done = [(run["network"], run["seed"]) for run in read(arguments.results, options)]
            if (name, seed) in done:
                continue
            line = json.dumps(train(name, seed, arguments.nouns, options))
            with arguments.results.open("a") as file:
                file.write(line + "\n")
            print(line, flush=True)


if __name__ == "__main__":
    main()
