"""The row of ProgressiveResize."""

from typing import Any

from torch import Tensor
from torchvision.transforms.v2 import functional as tv  # type: ignore[import-untyped]

from lightning_dlopt import augmentation as a
from lightning_dlopt.core.batch import find_key, get_field, replace_fields
from tests.contract.augmented import MIXIN
from tests.contract.input_kinds import HEIGHT, WIDTH, as_images
from tests.contract.replay import assert_gradients
from tests.contract.row import Row
from tests.contract.run import Outcome
from tests.contract.tasks import PLAIN, Task

#: 12 of the 18 steps, from images of 3 x 2 pixels to 7 x 6.
ARGUMENTS: dict[str, Any] = {"start": 0.4, "span": "66.6666%"}
GROWING = 12


def resized(module: Any, batch: Any, step: int, rank: int, number: int, call: int) -> Tensor:
    scale = min(1.0, 0.4 + 0.6 * step / GROWING)
    size = [int(side * scale + 0.5) for side in (HEIGHT, WIDTH)]
    key = find_key(batch, "input")
    images = tv.resize(get_field(batch, key), size, antialias=True)
    return module.loss(replace_fields(batch, {key: images}))  # type: ignore[no-any-return]


def effect(outcome: Outcome, task: Task) -> None:
    assert_gradients(outcome, task, resized)


RESIZE_ROWS = [
    Row(
        technique=a.ProgressiveResize,
        make=lambda: a.ProgressiveResize(**ARGUMENTS),
        neutral=lambda: a.ProgressiveResize(start=1.0),
        effect=effect,
        useless=lambda: a.ProgressiveResize(multiple=7),  # both sides are full then
        useless_task=as_images(PLAIN),
        rivals=[],
        bad=[
            ("start", {"start": 0.0}),
            ("start", {"start": 1.5}),
            ("start", {"start": "half"}),
            ("span", {"span": "soon"}),
            ("span", {"span": 0}),
            ("multiple", {"multiple": 0}),
            ("multiple", {"multiple": 2.5}),
            ("input_key", {"input_key": 1.5}),
            ("mask_key", {"mask_key": 1.5}),
        ],
        mixin=MIXIN,
        task=as_images(PLAIN),
        adapt=as_images,
    ),
]
