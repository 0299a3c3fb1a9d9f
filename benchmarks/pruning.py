"""Pruned networks beside the same narrow networks trained from scratch.

``python -m benchmarks.pruning`` trains on real Fashion-MNIST, for each seed and from one recipe:

- ``dense``: the whole network, all epochs;
- ``pruned N``: the same, with channels removed by ``ChannelPruning(speed_up=N)`` half-way;
- ``narrow N``: a new network of the shape that the pruned one of this seed ended in, all epochs;
- ``masked``: ``MagnitudePruning`` of three quarters of the weights;
- ``low rank``: ``LowRank`` at about a quarter of the multiply-adds.

Each finished run is a line of ``benchmarks/results/pruning.jsonl``, and is not trained again; its
checkpoint goes to ``runs/pruning``. ``--table`` prints accuracies and paired differences.
"""

import argparse
import json
import logging
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything
from scipy import stats
from torch import nn

from benchmarks.measuring import machine
from lightning_dlopt import (
    ChannelPruning,
    ChannelsLast,
    ConvNet,
    CosineLR,
    FashionMNIST,
    ImageClassifier,
    LowRank,
    MagnitudePruning,
    Technique,
)
from lightning_dlopt.structure import count_multiply_adds
from lightning_dlopt.structure.plan import PLAN_KEY, plan_of
from lightning_dlopt.structure.surgery import restore_structure

RESULTS = Path(__file__).parent / "results" / "pruning.jsonl"
CHECKPOINTS = Path("runs") / "pruning"
CHANNELS = [1, 32, 64, 128, 128]
EXAMPLE = torch.zeros(1, 1, 28, 28)

TECHNIQUES: dict[str, Callable[[], list[Technique]]] = {
    "dense": list,
    "pruned 4": lambda: [ChannelPruning(4.0, at="50%")],
    "narrow 4": list,
    "pruned 10": lambda: [ChannelPruning(10.0, at="50%")],
    "narrow 10": list,
    "masked": lambda: [MagnitudePruning(0.75, begin="10%", end="70%")],
    "low rank": lambda: [LowRank(0.19)],
}


def build() -> ImageClassifier:
    return ImageClassifier(ConvNet(CHANNELS), schedule=CosineLR(warmup="5%"))


def checkpoint(arm: str, seed: int) -> Path:
    return CHECKPOINTS / f"{arm.replace(' ', '-')}-{seed}.ckpt"


def narrow(arm: str, seed: int) -> ImageClassifier:
    """Return a new network of the shape that the pruned one of this seed has."""
    module = build()
    saved = torch.load(checkpoint(arm.replace("narrow", "pruned"), seed), weights_only=True)
    restore_structure(module, {PLAN_KEY: saved[PLAN_KEY]})
    for part in module.network.modules():
        if isinstance(part, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            part.reset_parameters()
    return module


def train(arm: str, seed: int, epochs: int) -> dict[str, Any]:
    """Train one arm and return its line."""
    seed_everything(seed, verbose=False)
    module = narrow(arm, seed) if arm.startswith("narrow") else build()
    trainer = Trainer(
        accelerator="cpu",
        precision="bf16-mixed",
        max_epochs=epochs,
        callbacks=[ChannelsLast(), *TECHNIQUES[arm]()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    data = FashionMNIST(batch_size=128)
    begin = time.perf_counter()
    trainer.fit(module, data)
    seconds = time.perf_counter() - begin
    (result,) = trainer.test(module, data, verbose=False)
    trainer.save_checkpoint(checkpoint(arm, seed), weights_only=True)
    return {
        "arm": arm,
        "seed": seed,
        "epochs": epochs,
        "accuracy": 100 * result["test_accuracy"],
        "multiply_adds": count_multiply_adds(module.network, EXAMPLE),
        "parameters": sum(p.numel() for p in module.parameters()),
        "widths": [p.out_channels for p in module.modules() if isinstance(p, nn.Conv2d)],
        "changes": [entry["key"] for entry in plan_of(module)],
        "seconds": round(seconds, 1),
        "machine": machine(),
    }


def finished() -> dict[tuple[str, int], dict[str, Any]]:
    """Return the lines that are there, by arm and seed."""
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    return {(line["arm"], line["seed"]): line for line in map(json.loads, lines)}


def table() -> str:
    """Return a Markdown table of all finished runs, with paired differences from scratch."""
    rows = [
        "| network | parameters | multiply-adds | test accuracy, % | against narrow, points |",
        "| --- | --- | --- | --- | --- |",
    ]
    done = finished()
    for arm in TECHNIQUES:
        lines = [line for (name, _), line in done.items() if name == arm]
        if not lines:
            continue
        accuracies = [line["accuracy"] for line in lines]
        bar = f"narrow {arm.split()[-1]}"
        pairs = [
            line["accuracy"] - done[bar, line["seed"]]["accuracy"]
            for line in lines
            if arm.startswith("pruned") and (bar, line["seed"]) in done
        ]
        against = ""
        if len(pairs) > 1:
            half = stats.t.ppf(0.975, len(pairs) - 1) * stats.sem(pairs)
            against = f"{statistics.mean(pairs):+.2f} ± {half:.2f} (n={len(pairs)})"
        rows.append(
            f"| {arm} | {statistics.median(line['parameters'] for line in lines):,.0f} "
            f"| {statistics.median(line['multiply_adds'] for line in lines) / 1e6:.2f} M "
            f"| {statistics.mean(accuracies):.2f} ({min(accuracies):.2f} - {max(accuracies):.2f}) "
            f"| {against} |"
        )
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5, 6])
    parser.add_argument("--arms", nargs="+", default=list(TECHNIQUES), choices=list(TECHNIQUES))
    parser.add_argument("--table", action="store_true", help="only print what is finished")
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    for folder in (CHECKPOINTS, RESULTS.parent):
        folder.mkdir(parents=True, exist_ok=True)
    for seed in [] if options.table else options.seeds:
        for arm in options.arms:
            if (arm, seed) not in finished():
                line = train(arm, seed, options.epochs)
                with RESULTS.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                print(line["arm"], seed, f"{line['accuracy']:.2f} %", line["widths"], flush=True)
    print("\n" + table())


if __name__ == "__main__":
    main()
