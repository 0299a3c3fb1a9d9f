"""Gradient clipping against torch, timm and pytorch-optimizer.

``python -m benchmarks.clipping`` measures one clip of ResNet-50's gradients and of 1,100 small
ones, all sides in one interleaved run, beside the time that memory alone would take.
Needs ``pip install -e '.[bench]'``.
"""

import argparse
from functools import partial

import torch
from pytorch_optimizer import agc
from timm.utils import adaptive_clip_grad
from torch import nn

from benchmarks.measuring import interleaved, machine, table
from benchmarks.tensors import bandwidth, large, small, timed, with_random_gradients
from lightning_dlopt.optimizers import adaptive_clip_, clip_by_norm_


def pytorch_optimizer_agc(parameters: list[nn.Parameter]) -> None:
    """Clip as that package's optimizers do: each gradient is replaced by a clipped copy."""
    with torch.no_grad():
        for parameter in parameters:
            parameter.grad = agc(parameter, parameter.grad)


def norm_tables(parameters: list[nn.Parameter], name: str, rounds: int) -> None:
    count = sum(p.numel() for p in parameters)
    for case, max_norm, passes in (("clips", 1.0, 3), ("need not clip", 1e9, 1)):
        gradients = with_random_gradients(parameters, 1e-2)
        sides = {
            "torch": timed(
                partial(nn.utils.clip_grad_norm_, parameters, max_norm), parameters, gradients
            ),
            "ours": timed(partial(clip_by_norm_, parameters, max_norm), parameters, gradients),
        }
        limit = 4 * count * passes / bandwidth() * 1e3
        print(f"\nclip by norm, {name}, {case} (limit {limit:.2f} ms)\n")
        print(table(interleaved(sides, rounds), "torch", "ms", 1e3))


def agc_tables(parameters: list[nn.Parameter], name: str, rounds: int) -> None:
    count = sum(p.numel() for p in parameters)
    for case, scale, passes in (("clips", 1e-2, 4), ("need not clip", 1e-9, 2)):
        gradients = with_random_gradients(parameters, scale)
        sides = {
            "timm": timed(
                partial(adaptive_clip_grad, parameters, clip_factor=0.01), parameters, gradients
            ),
            "pytorch-optimizer": timed(
                partial(pytorch_optimizer_agc, parameters), parameters, gradients
            ),
            "ours": timed(partial(adaptive_clip_, parameters, 0.01), parameters, gradients),
        }
        limit = 4 * count * passes / bandwidth() * 1e3
        print(f"\nadaptive clip, {name}, {case} (limit {limit:.2f} ms)\n")
        print(table(interleaved(sides, rounds), "timm", "ms", 1e3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    print(machine())
    # the small ones first: what the large ones leave in the allocator slows all sides down
    for name, make in (("1,100 small tensors", small), ("ResNet-50", large)):
        norm_tables(make(), name, rounds)
        agc_tables(make(), name, rounds)


if __name__ == "__main__":
    main()
