"""Any task with images or with text for its inputs."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.contract.tasks import FEATURES, RATE, SAMPLES, Task, TupleModule

CHANNELS, HEIGHT, WIDTH = 2, 7, 6
LENGTH, VOCABULARY, PAD = 9, 20, 0
#: Tokens that no technique may touch, besides the padding.
PROTECTED = (1, 2)


def images(generator: torch.Generator) -> Tensor:
    return torch.rand(SAMPLES, CHANNELS, HEIGHT, WIDTH, generator=generator)


def tokens(generator: torch.Generator) -> Tensor:
    """Sequences of 4 to 9 tokens that begin with 1, end with 2 and are padded with 0."""
    inputs = torch.randint(3, VOCABULARY, (SAMPLES, LENGTH), generator=generator)
    lengths = torch.randint(4, LENGTH + 1, (SAMPLES, 1), generator=generator)
    place = torch.arange(LENGTH)
    inputs[:, 0] = 1
    inputs = torch.where(place == lengths - 1, 2, inputs)
    return torch.where(place < lengths, inputs, PAD)


def random_matrix(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(11))


def features_of_images(x: Tensor) -> Tensor:
    """Project images of any size on few numbers; every pixel matters, each in its own way."""
    if x.shape[2:] != (HEIGHT, WIDTH):
        x = functional.interpolate(x, (HEIGHT, WIDTH), mode="bilinear")
    return x.flatten(1) @ random_matrix(CHANNELS * HEIGHT * WIDTH, FEATURES).to(x) / 2


def features_of_tokens(x: Tensor) -> Tensor:
    """Sum up vectors of the tokens; each place counts in its own way, and padding doesn't."""
    table, places = random_matrix(VOCABULARY, FEATURES), random_matrix(64, 1)[: x.shape[1]]
    table[PAD] = 0
    return (table[x] * (1 + places)).sum(1) / 3


def as_images(task: Task) -> Task:
    """Return the same task with inputs ``(B, 2, 7, 6)`` in [0, 1]."""
    return replace(task, module=looking(task.module, features_of_images), inputs=images)


def as_tokens(task: Task) -> Task:
    """Return the same task with inputs ``(B, 9)`` of integers."""
    return replace(task, module=looking(task.module, features_of_tokens), inputs=tokens)


def with_convolutions(task: Task) -> Task:
    """Return the same task with inputs ``(B, 2, 7, 6)`` and convolutions before its network."""
    return replace(task, module=convolutional(task.module), inputs=images)


@cache
def convolutional(module: type[TupleModule]) -> type[TupleModule]:
    """Return the module with two convolutions, BatchNorm and a pooling before its network."""

    class Convolutional(module):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(
                nn.Conv2d(CHANNELS, 4, 3, padding=1, bias=False),
                nn.BatchNorm2d(4),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Conv2d(4, FEATURES, 3, stride=2, padding=1),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                *self.net,
            )
            if hasattr(self, "kept"):
                self.kept = torch.optim.SGD(self.parameters(), lr=RATE)

    return named_here(Convolutional, f"{module.__name__}_with_convolutions")


def named_here(cls: type[TupleModule], name: str) -> type[TupleModule]:
    """Give a class a name of this file, where pickle finds it."""
    cls.__name__ = cls.__qualname__ = name
    globals()[name] = cls
    return cls


@cache
def looking(module: type[TupleModule], features: Callable[[Tensor], Tensor]) -> type[TupleModule]:
    """Return the module with a fixed view of its inputs before its network."""

    class Looking(module):  # type: ignore[misc, valid-type]
        def unpack(self, batch: Any) -> tuple[Tensor, Tensor]:
            x, y = super().unpack(batch)
            return features(x), y

    return named_here(Looking, f"{module.__name__}_{features.__name__}")
