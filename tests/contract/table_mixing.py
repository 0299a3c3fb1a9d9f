"""The rows of the techniques that mix samples."""

import zlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lightning_dlopt import augmentation as a
from lightning_dlopt.core import keyed_generator
from lightning_dlopt.core.batch import find_key, get_field, replace_fields
from tests.contract.augmented import BY_BATCH, MIXIN
from tests.contract.input_kinds import HEIGHT, WIDTH, as_images
from tests.contract.replay import SEED, assert_gradients
from tests.contract.row import Row
from tests.contract.run import Outcome
from tests.contract.tasks import PLAIN, ManualModule, Task

#: Mixes inputs sample by sample, in Python; gives the partners and what is left of each sample.
Mix = Callable[[Tensor, torch.Generator, bool], tuple[Tensor, list[int], list[float]]]


def mixed_up(x: Tensor, generator: torch.Generator, one: bool) -> Any:
    count = len(x)
    shares = a.draw_shares(1 if one else count, 2.0, generator).tolist()
    shares = [max(share, 1 - share) for share in (shares * count if one else shares)]
    shift = a.draw_shift(count, generator)
    partners = [(i + shift) % count for i in range(count)]
    rows = [shares[i] * x[i] + (1 - shares[i]) * x[partners[i]] for i in range(count)]
    return torch.stack(rows), partners, shares


def cut(x: Tensor, generator: torch.Generator, one: bool) -> Any:
    count, mixed = len(x), x.clone()
    drawn = a.draw_shares(1 if one else count, 1.0, generator)
    boxes = a.draw_cuts(drawn, HEIGHT, WIDTH, generator).expand(count, 4).tolist()
    shift = a.draw_shift(count, generator)
    partners, shares = [(i + shift) % count for i in range(count)], []
    for i, (top, left, bottom, right) in enumerate(boxes):
        mixed[i, :, top:bottom, left:right] = x[partners[i], :, top:bottom, left:right]
        shares.append(1 - (bottom - top) * (right - left) / (HEIGHT * WIDTH))
    return mixed, partners, shares


def either(x: Tensor, generator: torch.Generator, one: bool) -> Any:
    drawn = float(torch.rand((), generator=generator, dtype=torch.float64))
    if drawn < 0.5:
        return mixed_up(x, generator, one)
    if drawn < 0.9:
        return cut(x, generator, one)
    return x, list(range(len(x))), [1.0] * len(x)


def gradients_follow(technique: a.BatchMixer, mix: Mix) -> Callable[[Outcome, Task], None]:
    """Every step's gradients are those of a batch mixed by hand, with a loss for each label.

    The first batch that has a loss has one share, and so has each that is trained in two passes;
    where a run has those (a compiled module), it has them throughout.
    """
    key = zlib.crc32(repr(technique).encode())

    def effect(outcome: Outcome, task: Task) -> None:
        manual = issubclass(task.module, ManualModule)

        def replay(always: bool) -> None:
            # "auto" has its answer from the first batch that it mixes
            answered: set[int] = set()

            def loss(
                module: Any, batch: Any, step: int, rank: int, number: int, call: int
            ) -> Tensor:
                generator = keyed_generator(SEED, key, rank, number)
                where, target = (
                    find_key(batch, "input"),
                    get_field(batch, find_key(batch, "target")),
                )
                one = always or (rank not in answered and not manual)
                mixed, partners, shares = mix(get_field(batch, where), generator, one)
                if shares != [1.0] * len(target) or partners != list(range(len(target))):
                    answered.add(rank)
                x, _ = module.unpack(replace_fields(batch, {where: mixed}))
                logits, share = module.net(x), torch.tensor(shares)
                own, other = (
                    functional.cross_entropy(logits, labels, reduction="none")
                    for labels in (target, target[partners])
                )
                return (share * own + (1 - share) * other).mean()

            assert_gradients(outcome, task, loss)

        if any("twice" in str(warning.message) for warning in outcome.told):
            replay(always=True)
        else:
            replay(always=False)

    return effect


BAD = [
    ("alpha", {"alpha": -0.1}),
    ("alpha", {"alpha": float("inf")}),
    ("alpha", {"alpha": "much"}),
    ("labels", {"labels": "hard"}),
    ("num_classes", {"num_classes": 0}),
    ("num_classes", {"num_classes": 2.5}),
    ("input_key", {"input_key": 1.5}),
    ("target_key", {"target_key": 1.5}),
]


def make_random_mix() -> a.RandomMix:
    return a.RandomMix([a.MixUp(2.0), a.CutMix()], [0.5, 0.4])


MIXING_ROWS = [
    Row(
        technique=a.MixUp,
        make=lambda: a.MixUp(2.0),
        neutral=lambda: a.MixUp(0.0),
        effect=gradients_follow(a.MixUp(2.0), mixed_up),
        useless=lambda: a.MixUp(0),
        useless_task=PLAIN,
        rivals=[lambda: a.MixUp(0.25), lambda: a.CutMix()],
        bad=BAD,
        mixin=MIXIN,
        differs=BY_BATCH,
    ),
    Row(
        technique=a.CutMix,
        make=lambda: a.CutMix(),
        neutral=lambda: a.CutMix(0.0),
        effect=gradients_follow(a.CutMix(), cut),
        useless=lambda: a.CutMix(0),
        useless_task=PLAIN,
        rivals=[lambda: a.CutMix(0.25), lambda: a.MixUp()],
        bad=BAD,
        mixin=MIXIN,
        task=as_images(PLAIN),
        adapt=as_images,
        differs=BY_BATCH,
    ),
    Row(
        technique=a.RandomMix,
        make=make_random_mix,
        neutral=lambda: a.RandomMix([a.MixUp(0.0)]),
        effect=gradients_follow(make_random_mix(), either),
        useless=lambda: a.RandomMix([a.MixUp(), a.CutMix()], [0, 0]),
        useless_task=PLAIN,
        rivals=[lambda: a.RandomMix([a.MixUp()]), lambda: a.MixUp()],
        bad=[
            ("mixers", {"mixers": []}),
            ("mixers", {"mixers": "MixUp"}),
            ("mixers", {"mixers": [3]}),
            ("mixers", {"mixers": [make_random_mix()]}),
            ("mixers", {"mixers": [a.MixUp(labels="twice")]}),
            ("probabilities", {"mixers": [a.MixUp()], "probabilities": [1.5]}),
            ("probabilities", {"mixers": [a.MixUp()], "probabilities": [0.5, 0.5]}),
            ("probabilities", {"mixers": [a.MixUp(), a.CutMix()], "probabilities": [0.75, 0.5]}),
            ("probabilities", {"mixers": [a.MixUp()], "probabilities": 0.5}),
            *[(name, {"mixers": [a.MixUp()], **bad}) for name, bad in BAD if name != "alpha"],
        ],
        mixin=MIXIN,
        task=as_images(PLAIN),
        adapt=as_images,
        differs=BY_BATCH,
    ),
]
