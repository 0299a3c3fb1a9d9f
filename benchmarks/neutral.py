"""What each technique costs at the setting at which it does nothing.

``python -m benchmarks.neutral`` trains the source example's network (MLP 784-128-128-10, batch 32,
fused Adam, stock Trainer) with one technique at a time and, in turn, without it, and prints how
much longer a step takes.
"""

import argparse
import functools
import logging
import math
import statistics
import warnings
from collections.abc import Callable

import torch
from lightning.pytorch import Callback

import lightning_dlopt as dlopt
from benchmarks.measuring import interleaved, machine
from benchmarks.training_step import SIZES, bare_fit

NEUTRAL: dict[str, Callable[[], dlopt.Technique]] = {
    "CosineLR": lambda: dlopt.CosineLR(floor=1.0),
    "UseOptimizer": lambda: dlopt.UseOptimizer(functools.partial(torch.optim.Adam, fused=True)),
    "ClipGradNorm": lambda: dlopt.ClipGradNorm(math.inf),
    "ClipGradValue": lambda: dlopt.ClipGradValue(math.inf),
    "AdaptiveClip": lambda: dlopt.AdaptiveClip(math.inf),
    "QuantileClip": lambda: dlopt.QuantileClip(1.0),
    "SAM": lambda: dlopt.SAM(0.0),
    "EMA": lambda: dlopt.EMA(0.0),
    "Lookahead": lambda: dlopt.Lookahead(alpha=1.0),
    "FreezeLayers": lambda: dlopt.FreezeLayers("network.1", until=0),
    "L1": lambda: dlopt.L1(0.0),
    "L2": lambda: dlopt.L2(0.0),
    "ElasticNet": lambda: dlopt.ElasticNet(0.0, 0.0),
    "LabelSmoothing": lambda: dlopt.LabelSmoothing(0.0),
    "RDrop": lambda: dlopt.RDrop(0.0),
    "Distillation": lambda: dlopt.Distillation(dlopt.MLP(SIZES), 2.0, weight=0.0),
    "StochasticDepth": lambda: dlopt.StochasticDepth(0.0, target=["network.1"]),
}


def fit(loader: dlopt.TensorLoader, steps: int, *techniques: Callback) -> float:
    """Train and return seconds a step."""
    return bare_fit(dlopt.ImageClassifier(dlopt.MLP(SIZES)), loader, steps, *techniques)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    steps = options.steps
    images, labels = torch.randn(32 * steps, 1, 28, 28), torch.randint(10, (32 * steps,))
    loader = dlopt.TensorLoader(images, labels, batch_size=32)
    torch.set_num_threads(1)  # two threads wait for each other, which is most of the noise
    made: dict[str, Callable[[], Callback]] = {**NEUTRAL, "an empty Callback": Callback}
    print(f"\n{machine()}; {options.rounds} pairs of {steps} steps; median (quartiles)\n")
    print("| technique at its neutral setting | added to a step, % |\n| --- | --- |")
    for name, make in [*made.items(), ("nothing", None)]:
        # each beside a run without it, since the machine's speed drifts
        sides: dict[str, Callable[[], float]] = {
            "without": lambda: fit(loader, steps),
            "with": lambda make=make: fit(loader, steps, *([make()] if make else [])),  # type: ignore[misc]
        }
        times = interleaved(sides, options.rounds)
        pairs = zip(times["without"], times["with"], strict=True)
        low, middle, high = statistics.quantiles(100 * (b / a - 1) for a, b in pairs)
        print(f"| {name} | {middle:.1f} ({low:.1f} - {high:.1f}) |", flush=True)


if __name__ == "__main__":
    main()
