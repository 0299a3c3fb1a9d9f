from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional

from lightning_dlopt import CutMix, MixUp, RandomMix, TechniqueError, choose, keyed_generator
from tests.augmentation.mixing import CLASSES, Module, train

IMAGES = torch.rand(6, 1, 5, 4, generator=keyed_generator(0))
LABELS = torch.arange(6) % CLASSES


def test_each_is_taken_as_often_as_is_said() -> None:
    generator = keyed_generator(1)
    drawn = [choose([0.5, 0.2, 0.0], generator) for _ in range(4000)]
    counts = [drawn.count(0), drawn.count(1), drawn.count(None)]
    assert sum(counts) == 4000
    assert stats.chisquare(counts, [2000, 800, 1200]).pvalue > 0.01


def test_a_batch_is_mixed_by_the_one_that_was_drawn() -> None:
    technique = RandomMix([MixUp(1.0), CutMix()], [0.4, 0.4])
    kinds = set()
    for seed in range(30):
        generator, twin = keyed_generator(seed), keyed_generator(seed)
        mixed, hard = technique.change((IMAGES, LABELS), generator)
        index = choose([0.4, 0.4], twin)
        kinds.add(index)
        expected: Any = (IMAGES, LABELS)
        if index is not None:
            expected = [MixUp(1.0), CutMix()][index].change(expected, twin)
        assert torch.equal(mixed, expected[0])
        assert torch.equal(hard, expected[1])
    assert kinds == {0, 1, None}


def test_batches_that_stay_are_soft_like_the_others() -> None:
    technique = RandomMix([MixUp(1.0)], [0.3], labels="soft", num_classes=CLASSES)
    module = train([technique], [(IMAGES, LABELS)] * 8)
    hard = functional.one_hot(LABELS, CLASSES).float()
    same = [torch.equal(y, hard) for _, y in module.seen]
    assert any(same)
    assert not all(same)


def test_the_answer_of_auto_waits_for_a_batch_that_is_mixed() -> None:
    def squared(logits: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(logits, y) ** 2

    never = RandomMix([MixUp(1.0), MixUp(0.0)], [1e-12, 1.0])
    train([never], [(IMAGES, LABELS)] * 3, Module(squared))
    assert never.state_dict()["labels_found"] is None
    sometimes = RandomMix([MixUp(1.0)], [0.5])
    with pytest.warns(UserWarning, match="isn't a sum of cross-entropies"):
        train([sometimes], [(IMAGES, LABELS)] * 8, Module(squared))
    assert sometimes.state_dict()["labels_found"] == "twice"


def test_a_mixer_that_refuses_the_input_does_so_before_its_turn() -> None:
    technique = RandomMix([MixUp(1.0), CutMix()], [0.999999, 0.000001])
    with pytest.raises(TechniqueError, match=r"must be a batch \(B, C, H, W\)"):
        technique.changed((IMAGES.flatten(1), LABELS), keyed_generator(0))
    never = RandomMix([MixUp(1.0), CutMix()], [1.0, 0.0])
    never.changed((IMAGES.flatten(1), LABELS), keyed_generator(0))


@pytest.mark.parametrize("mixer", [MixUp(input_key=0), CutMix(labels="loss")])
def test_the_mixers_leave_labels_and_keys_to_it(mixer: Any) -> None:
    with pytest.raises(ValueError, match="must leave labels, num_classes, input_key and"):
        RandomMix([mixer])


def test_its_arguments_tell_those_of_its_mixers() -> None:
    technique = RandomMix([MixUp(0.5), CutMix()])
    assert technique.state_dict()["arguments"]["mixers"] == ["MixUp(alpha=0.5)", "CutMix()"]
    assert technique.state_key != RandomMix([MixUp(0.25), CutMix()]).state_key
