"""What each technique costs at the setting at which it does nothing.

``python -m benchmarks.neutral`` trains the source example's network (MLP 784-128-128-10, batch 32,
fused Adam, stock Trainer) without any technique and with one at a time, all in one interleaved
run, and prints how much longer a step takes.
"""

import argparse
import functools
import logging
import math
import statistics
import warnings
from collections.abc import Callable

import torch
from lightning.pytorch import Callback, Trainer

import lightning_dlopt as dlopt
from benchmarks.measuring import interleaved, machine
from benchmarks.training_step import SIZES, Clock

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
    clock = Clock(warm_up=steps // 5)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[*techniques, clock],
    )
    trainer.fit(dlopt.ImageClassifier(dlopt.MLP(SIZES)), loader)
    return clock.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    steps = options.steps
    images, labels = torch.randn(32 * steps, 1, 28, 28), torch.randint(10, (32 * steps,))
    loader = dlopt.TensorLoader(images, labels, batch_size=32)
    sides: dict[str, Callable[[], float]] = {"without": lambda: fit(loader, steps)}
    for name, make in NEUTRAL.items():
        sides[name] = functools.partial(lambda made: fit(loader, steps, made()), make)
    sides["an empty Callback"] = lambda: fit(loader, steps, Callback())
    sides["without, again"] = lambda: fit(loader, steps)
    times = interleaved(sides, options.rounds)
    print(f"\n{machine()}; {options.rounds} rounds of {steps} steps; median (least - most)\n")
    print("| technique at its neutral setting | added to a step, % |\n| --- | --- |")
    for name, values in times.items():
        added = [100 * (v / base - 1) for base, v in zip(times["without"], values, strict=True)]
        print(f"| {name} | {statistics.median(added):.1f} ({min(added):.1f} - {max(added):.1f}) |")


if __name__ == "__main__":
    main()
