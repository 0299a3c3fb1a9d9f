"""Tensors are found in whatever a batch is made of."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_dlopt.core.tensors import tensors_in


@dataclass(slots=True)
class Slotted:
    first: Tensor
    second: Any


class Named(NamedTuple):
    first: Tensor
    second: Any


class Opaque:
    def __init__(self, *tensors: Tensor) -> None:
        self.inner = tensors


ONE, TWO, THREE = (torch.tensor(number) for number in (1, 2, 3))


def numbers(value: Any, **options: bool) -> list[int]:
    return [int(tensor) for tensor in tensors_in(value, **options)]


def test_containers_are_gone_through_in_order() -> None:
    assert numbers([ONE, {"a": (TWO, None), "b": "text"}, THREE]) == [1, 2, 3]
    assert numbers(Named(ONE, [TWO])) == numbers(Slotted(ONE, [TWO])) == [1, 2]
    assert numbers(Slotted) == []


def test_other_objects_are_looked_into_if_that_is_said() -> None:
    assert numbers([Opaque(ONE), TWO]) == [2]
    assert numbers([Opaque(ONE), TWO], objects=True) == [1, 2]
    assert numbers([nn.Linear(1, 1), Opaque, THREE], objects=True) == [3]
