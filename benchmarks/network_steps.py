"""How long a training step and a prediction of each network of ``benchmarks.networks`` take.

``python -m benchmarks.network_steps`` builds the networks that the recipes name and takes turns:
a step of Adam on a batch of 64, and a prediction for a batch of 256; images of 1 x 28 x 28, or
texts of 64 tokens. It prints a Markdown table.
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional

import lightning_dlopt
from benchmarks.measuring import interleaved, machine, repeated, spread
from benchmarks.networks import IMAGES, ROOT, TEXTS


def build(name: str) -> nn.Module:
    recipe = yaml.safe_load((ROOT / "recipes" / "structure" / f"{name}.yaml").read_text())
    network = recipe["model"]["init_args"]["network"]
    made: nn.Module = getattr(lightning_dlopt, network["class_path"].split(".")[-1])(
        **network["init_args"]
    )
    return made


def inputs(name: str, batch: int) -> Tensor:
    if name in IMAGES:
        return torch.randn(batch, 1, 28, 28)
    return torch.randint(1, 20000, (batch, 64))


def stepping(name: str) -> Callable[[], object]:
    network, images = build(name).train(), inputs(name, 64)
    targets = torch.randint(10, (64,))
    optimizer: Any = torch.optim.Adam(network.parameters(), fused=True)

    def step() -> None:
        optimizer.zero_grad()
        functional.cross_entropy(network(images), targets).backward()
        optimizer.step()

    return step


def predicting(name: str) -> Callable[[], object]:
    network, images = build(name).eval(), inputs(name, 256)
    return torch.inference_mode()(lambda: network(images))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    print(f"\n{machine()}; median (least - most)\n")
    print("| network | ms of a step, batch of 64 | ms of a prediction, batch of 256 |")
    print("| --- | --- | --- |")
    for names in (IMAGES, TEXTS):
        steps = interleaved({name: repeated(stepping(name), 5) for name in names}, rounds)
        calls = interleaved({name: repeated(predicting(name), 5) for name in names}, rounds)
        for name in names:
            row = [name, *(spread([1e3 * v for v in t[name]], 1) for t in (steps, calls))]
            print("|", " | ".join(row), "|", flush=True)


if __name__ == "__main__":
    main()
