"""The row of RandomGeometry."""

from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from lightning_dlopt import augmentation as a
from lightning_dlopt.core.batch import find_key, get_field, replace_fields
from tests.contract.augmented import BY_BATCH, MIXIN, gradients_follow
from tests.contract.input_kinds import HEIGHT, WIDTH, as_images
from tests.contract.row import Row
from tests.contract.tasks import PLAIN

DRAWN: dict[str, Any] = {
    "flip": 0.5,
    "vertical_flip": 0.25,
    "rotation": 30,
    "scale": (0.8, 1.3),
    "crop": 2,
}
ARGUMENTS = {**DRAWN, "fill": 0.5}
PAD = 20  # so much that no step pushes anything out


def moved(module: Any, batch: Any, generator: torch.Generator) -> Tensor:
    key = find_key(batch, "input")
    images = get_field(batch, key)
    geometry = a.draw_geometry(len(images), generator=generator, **DRAWN)
    results = []
    for i, image in enumerate(images):
        image = tv.affine(
            tv.pad(image, [PAD], fill=0.5),
            angle=-float(geometry.angle[i]),  # type: ignore[index]
            translate=[0, 0],
            scale=float(geometry.scale[i]),  # type: ignore[index]
            shear=[0.0],
            interpolation=tv.InterpolationMode.BILINEAR,
        )
        image = tv.horizontal_flip(image) if geometry.flip[i] else image
        image = tv.vertical_flip(image) if geometry.vertical_flip[i] else image
        top, left = PAD + int(geometry.top[i]), PAD + int(geometry.left[i])
        results.append(tv.crop(image, top, left, HEIGHT, WIDTH))
    return module.loss(replace_fields(batch, {key: torch.stack(results)}))  # type: ignore[no-any-return]


GEOMETRY_ROWS = [
    Row(
        technique=a.RandomGeometry,
        make=lambda: a.RandomGeometry(**ARGUMENTS),
        neutral=lambda: a.RandomGeometry(scale=(1, 1)),
        effect=gradients_follow(a.RandomGeometry(**ARGUMENTS), moved),
        useless=lambda: a.RandomGeometry(),
        useless_task=PLAIN,
        rivals=[],
        bad=[
            ("flip", {"flip": 1.5}),
            ("vertical_flip", {"vertical_flip": "often"}),
            ("rotation", {"rotation": 181}),
            ("scale", {"scale": [0.0, 1.0]}),
            ("scale", {"scale": [1.1, 0.9]}),
            ("scale", {"scale": 1.1}),
            ("crop", {"crop": -1}),
            ("crop", {"crop": 0.5}),
            ("fill", {"fill": float("nan")}),
            ("mask_fill", {"mask_fill": "black"}),
            ("input_key", {"input_key": 1.5}),
            ("mask_key", {"mask_key": 1.5}),
        ],
        mixin=MIXIN,
        task=as_images(PLAIN),
        adapt=as_images,
        differs=BY_BATCH,
    ),
]
