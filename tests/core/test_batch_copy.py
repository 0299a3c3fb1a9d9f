import threading
from collections import OrderedDict, UserDict, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_dlopt.core.batch_copy import copied

Pair = namedtuple("Pair", ["x", "extra"])


@dataclass(frozen=True)
class Fields:
    x: Tensor
    extra: dict[str, Any]


class Plain:
    def __init__(self, x: Tensor, extra: dict[str, Any]) -> None:
        self.x, self.extra = x, extra


@pytest.mark.parametrize("tensors", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda x, extra: (x, extra),
        lambda x, extra: [x, extra],
        lambda x, extra: {0: x, 1: extra},
        lambda x, extra: OrderedDict({0: x, 1: extra}),
        lambda x, extra: UserDict({0: x, 1: extra}),
        Pair,
        Fields,
    ],
)
def test_containers_are_copied_however_nested(make: Any, tensors: bool) -> None:
    x = torch.zeros(2)
    batch = make(x, {"label": [x, 3]})
    twin = copied(batch, tensors=tensors)
    assert type(twin) is type(batch)
    first, extra = (twin.x, twin.extra) if hasattr(twin, "x") else (twin[0], twin[1])
    assert (first is x) == (not tensors)
    assert extra["label"][0] is first
    assert torch.equal(first, x)
    extra["label"].append(4)
    extra.pop("label")
    _, extra = (batch.x, batch.extra) if hasattr(batch, "x") else (batch[0], batch[1])
    assert len(extra["label"]) == 2


def test_other_objects_get_attributes_of_their_own() -> None:
    batch = Plain(torch.zeros(2), {})
    copied(batch).x = None  # type: ignore[assignment]
    assert batch.x is not None


def test_what_cannot_be_copied_is_shared() -> None:
    things = [nn.Linear(1, 1), threading.Lock(), (i for i in "ab"), "text", 3, None, len]
    twin = copied(things)
    assert twin is not things
    assert all(new is old for new, old in zip(twin, things, strict=True))


def test_gradients_flow_back_through_the_copy() -> None:
    x = torch.ones(2, requires_grad=True)
    copied({"x": x * 2}, tensors=True)["x"].sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [2.0, 2.0]
