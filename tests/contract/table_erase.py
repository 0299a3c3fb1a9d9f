"""The row of RandomErase."""

from typing import Any

import torch
from torch import Tensor

from lightning_dlopt import augmentation as a
from lightning_dlopt.core.batch import find_key, get_field, replace_fields
from tests.contract.augmented import BY_BATCH, MIXIN, gradients_follow
from tests.contract.input_kinds import HEIGHT, WIDTH, as_images
from tests.contract.row import Row
from tests.contract.tasks import PLAIN

ARGUMENTS = {"probability": 0.75, "area": (0.3, 0.9), "value": 0.5}


def erased(module: Any, batch: Any, generator: torch.Generator) -> Tensor:
    key = find_key(batch, "input")
    images = get_field(batch, key).clone()
    boxes = a.draw_boxes(
        len(images), HEIGHT, WIDTH, area=(0.3, 0.9), ratio=(0.3, 3.3), generator=generator
    )
    spared = torch.rand(len(images), generator=generator) >= 0.75
    for image, box, spare in zip(images, boxes.tolist(), spared.tolist(), strict=True):
        if not spare:
            image[:, box[0] : box[2], box[1] : box[3]] = 0.5
    return module.loss(replace_fields(batch, {key: images}))  # type: ignore[no-any-return]


ERASE_ROWS = [
    Row(
        technique=a.RandomErase,
        make=lambda: a.RandomErase(**ARGUMENTS),
        neutral=lambda: a.RandomErase(0.0),
        effect=gradients_follow(a.RandomErase(**ARGUMENTS), erased),
        useless=lambda: a.RandomErase(0),
        useless_task=PLAIN,
        rivals=[],
        bad=[
            ("probability", {"probability": -0.1}),
            ("probability", {"probability": "often"}),
            ("area", {"area": [0.0, 0.5]}),
            ("area", {"area": [0.5, 0.1]}),
            ("area", {"area": 0.5}),
            ("ratio", {"ratio": [1.0, float("inf")]}),
            ("value", {"value": float("nan")}),
            ("input_key", {"input_key": 1.5}),
        ],
        mixin=MIXIN,
        task=as_images(PLAIN),
        adapt=as_images,
        differs=BY_BATCH,
    ),
]
