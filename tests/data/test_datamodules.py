"""What every DataModule does, shown on Digits."""

import copy
import pickle
import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule
from sklearn.datasets import load_digits
from torchvision.transforms import v2

import lightning_dlopt.data
from lightning_dlopt.core.errors import ArgumentError, ArgumentTypeError, DataError
from lightning_dlopt.data import CIFAR10, MNIST, Digits, FashionMNIST, ImageFolder, epoch_batches


def targets_of(loader: Any) -> list[list[int]]:
    return [targets.tolist() for _, targets in loader]


def flat(batches: list[list[int]]) -> list[int]:
    return [target for batch in batches for target in batch]


def images_of(samples: Any) -> list[list[int]]:
    return samples.inputs.flatten(1).tolist()


def test_digits_are_scikit_learns() -> None:
    digits = Digits(validation=100, test=200)
    digits.setup()
    assert (len(digits.train_set), len(digits.validation_set), len(digits.test_set)) == (
        1497,
        100,
        200,
    )
    images, targets = load_digits(return_X_y=True)
    expected = sorted([*image, target] for image, target in zip(images, targets, strict=True))
    sets = (digits.train_set, digits.validation_set, digits.test_set)
    ours = sorted(
        [*image, target]
        for part in sets
        for image, target in zip(images_of(part), part.targets.tolist(), strict=True)
    )
    assert np.array_equal(np.array(ours), np.array(expected))
    assert digits.num_classes == 10
    assert digits.classes[3] == "3"
    assert digits.input_shape == (1, 8, 8)


def test_digits_batches_are_normalized_floats() -> None:
    digits = Digits(validation=0, batch_size=10_000)
    inputs, targets = next(iter(digits.train_dataloader()))
    assert inputs.shape == (1438, 1, 8, 8)
    assert inputs.dtype == torch.float32
    assert targets.dtype == torch.int64
    assert inputs.mean().item() == pytest.approx(0, abs=1e-5)
    assert inputs.std(correction=0).item() == pytest.approx(1, abs=1e-5)
    raw, _ = next(iter(Digits(normalize=False, batch_size=10_000).train_dataloader()))
    assert (raw.min().item(), raw.max().item()) == (0, 1)


def test_splits_follow_split_seed_alone() -> None:
    def held_out(**arguments: Any) -> tuple[list[list[int]], list[list[int]]]:
        digits = Digits(**arguments)
        digits.setup()
        return images_of(digits.validation_set), images_of(digits.test_set)

    first = held_out()
    torch.rand(3)
    assert held_out(seed=5) == first
    second = held_out(split_seed=1)
    assert second[0] != first[0]
    assert second[1] != first[1]


def test_share_and_number_of_validation_samples() -> None:
    shares = Digits(validation=0.5, test=0)
    shares.setup()
    assert len(shares.validation_set) == round(1797 / 2)
    none = Digits(validation=0, test=0)
    assert none.val_dataloader() == []
    assert none.validation_set is None
    for loader in (none.test_dataloader, none.predict_dataloader):
        with pytest.raises(DataError, match="Digits: there is no test set"):
            loader()
    with pytest.raises(DataError, match="holding out 1797 of 1797 samples leaves none"):
        Digits(validation=1797, test=0).setup()


def test_setup_is_idempotent() -> None:
    digits = Digits()
    digits.setup("fit")
    before = digits.train_set
    digits.setup("test")
    assert digits.train_set is before


def test_training_order_is_seed_and_epoch() -> None:
    digits = Digits(seed=4, batch_size=100, validation=0)
    loader = digits.train_dataloader()
    for epoch in range(2):
        order = epoch_batches(1438, 100, shuffle=True, seed=4, epoch=epoch)
        expected = [digits.train_set.targets[batch].tolist() for batch in order]
        assert targets_of(loader) == expected


def test_seed_of_the_run_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    orders = []
    for seed in ("0", "11", "11"):
        monkeypatch.setenv("PL_GLOBAL_SEED", seed)
        orders.append(targets_of(Digits().train_dataloader()))
    assert orders[0] != orders[1]
    assert orders[1] == orders[2]
    assert orders[1] == targets_of(Digits(seed=11).train_dataloader())


def test_seed_in_a_checkpoint_gives_way_to_the_constructors() -> None:
    saved = Digits(seed=3).state_dict()
    for own, expected in ((None, 3), (8, 8)):
        digits = Digits(seed=own)
        digits.load_state_dict(saved)
        assert digits.train_dataloader().seed == expected


def test_evaluation_is_in_order_with_its_own_batch_size() -> None:
    digits = Digits(eval_batch_size=50, drop_last=True)
    assert torch.tensor(flat(targets_of(digits.val_dataloader()))).equal(
        digits.validation_set.targets
    )
    for loader in (digits.test_dataloader(), digits.predict_dataloader()):
        batches = targets_of(loader)
        assert len(batches[0]) == 50
        assert flat(batches) == digits.test_set.targets.tolist()


def test_drop_last_is_for_training() -> None:
    assert [len(batch) for batch in targets_of(Digits(validation=0).train_dataloader())][-1] == 30
    dropped = targets_of(Digits(validation=0, drop_last=True).train_dataloader())
    assert {len(batch) for batch in dropped} == {32}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_single_image_transform_is_for_training_and_keyed(
    num_workers: int, unchanged_global_randomness: Callable[[], AbstractContextManager[None]]
) -> None:
    arguments = {"seed": 1, "batch_size": 300, "normalize": False}
    plain = list(Digits(**arguments).train_dataloader())
    policy = v2.RandomHorizontalFlip(0.5)
    digits = Digits(train_transform=policy, num_workers=num_workers, **arguments)
    with unchanged_global_randomness():
        loader = digits.train_dataloader()
        first, second = list(loader), list(loader)
    flipped = 0
    for (image, target), (expected, label) in zip(first, plain, strict=True):
        assert torch.equal(target, label)
        assert image.dtype == torch.float32
        expected = (expected * 255).round() * torch.tensor(1 / 255)  # the transform gets integers
        same = (image == expected).flatten(1).all(1)
        mirrored = (image == expected.flip(-1)).flatten(1).all(1)
        assert bool((same | mirrored).all())
        flipped += int((~same).sum())
    assert 500 < flipped < 800
    again = Digits(train_transform=policy, **arguments).train_dataloader()
    assert all(torch.equal(a[0], b[0]) for a, b in zip(again, first, strict=True))
    assert not torch.equal(first[0][0], second[0][0])
    assert torch.equal(
        next(iter(digits.val_dataloader()))[0], next(iter(Digits(**arguments).val_dataloader()))[0]
    )


def test_a_transform_gets_the_full_range_of_intensities() -> None:
    arguments = {"seed": 1, "batch_size": 300, "normalize": False}
    plain, _ = next(iter(Digits(**arguments).train_dataloader()))
    inverse = Digits(train_transform=v2.RandomInvert(1.0), **arguments)
    inverted, _ = next(iter(inverse.train_dataloader()))
    # the stored values run to 16 only, of which torchvision doesn't know
    torch.testing.assert_close(inverted, 1 - plain, rtol=0, atol=0.5 / 255 + 1e-6)


def on_rank(rank: int, world_size: int, **arguments: Any) -> Digits:
    digits = Digits(**arguments)
    ranks = {"rank": rank, "num_replicas": world_size}
    digits.trainer = SimpleNamespace(
        distributed_sampler_kwargs=ranks, overfit_batches=0.0, callbacks=[]
    )
    return digits


def test_two_ranks_see_the_global_batches_of_one_process() -> None:
    whole = targets_of(Digits(batch_size=64, validation=0).train_dataloader())
    ranks = [on_rank(rank, 2, batch_size=32, validation=0) for rank in range(2)]
    parts = [targets_of(digits.train_dataloader()) for digits in ranks]
    assert [left + right for left, right in zip(*parts, strict=True)] == whole
    tested = [flat(targets_of(digits.test_dataloader())) for digits in ranks]
    assert sorted(tested[0] + tested[1]) == sorted(ranks[0].test_set.targets.tolist())


def test_global_randomness_is_neither_moved_nor_read(
    unchanged_global_randomness: Callable[[], AbstractContextManager[None]],
) -> None:
    def everything() -> list[Any]:
        digits = Digits(seed=1)
        loaders = (digits.train_dataloader(), digits.val_dataloader(), digits.test_dataloader())
        return [targets_of(loader) for loader in loaders]

    with unchanged_global_randomness():
        first = everything()
    torch.manual_seed(99)
    random.random()
    assert everything() == first


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_and_pickles(clone: Callable[[Any], Any]) -> None:
    digits = Digits(seed=2)
    digits.setup()
    assert targets_of(clone(digits).train_dataloader()) == targets_of(digits.train_dataloader())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"batch_size": 0}, ArgumentError, r"Digits: batch_size=0 is not in \[1, inf\)"),
        ({"batch_size": "32"}, ArgumentTypeError, r"batch_size='32' must be an integer"),
        ({"eval_batch_size": -1}, ArgumentError, r"eval_batch_size=-1"),
        ({"validation": 1.0}, ArgumentError, r"validation=1.0 is not in \[0, 1\)"),
        ({"validation": -3}, ArgumentError, r"validation=-3 is not in \[0, inf\)"),
        ({"validation": True}, ArgumentTypeError, r"validation=True must be a number of samples"),
        ({"validation": float("nan")}, ArgumentError, r"validation=nan"),
        ({"test": "0.1"}, ArgumentTypeError, r"test='0.1' must be a number of samples"),
        ({"split_seed": None}, ArgumentTypeError, r"split_seed=None must be an integer"),
        ({"seed": 1.5}, ArgumentTypeError, r"seed=1.5 must be an integer"),
        ({"drop_last": 1}, ArgumentTypeError, r"drop_last=1 must be True or False"),
        ({"normalize": "no"}, ArgumentTypeError, r"normalize='no' must be True or False"),
        ({"train_transform": 3}, ArgumentTypeError, r"train_transform=3 must be callable"),
        ({"num_workers": -1}, ArgumentError, r"num_workers=-1 is not in \[0, inf\)"),
        ({"batchsize": 3}, ArgumentTypeError, r"Digits: unknown argument\(s\) batchsize="),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Digits(**arguments)


@pytest.mark.parametrize("kind", [FashionMNIST, MNIST, CIFAR10, ImageFolder])
def test_bad_folder_arguments(kind: Any) -> None:
    with pytest.raises(ArgumentTypeError, match=r"data_dir=5 must be a string"):
        kind(5)
    with pytest.raises(ArgumentError, match=r"data_dir must not be empty"):
        kind("")
    assert kind(Path("a") / "b").data_dir == "a/b"
    with pytest.raises(ArgumentTypeError, match=r"unknown argument\(s\) 'c'"):
        kind("a", "c")


def test_arguments_are_stored_under_their_names() -> None:
    arguments = {
        "batch_size": 3,
        "eval_batch_size": 4,
        "validation": 0.2,
        "split_seed": 5,
        "seed": 6,
        "drop_last": True,
        "normalize": False,
        "test": 7,
    }
    digits = Digits(**arguments)
    assert {name: getattr(digits, name) for name in arguments} == arguments


def test_constructors_work_with_mixins_on_either_side() -> None:
    class Before:
        def __init__(self, *args: Any, before: int = 0, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.before = before

    class After(LightningDataModule):
        def __init__(self, *args: Any, after: int = 0, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.after = after

    class Both(Before, Digits, After):
        pass

    both = Both(before=1, after=2, batch_size=3)
    assert (both.before, both.after, both.batch_size) == (1, 2, 3)


def test_public_names() -> None:
    names = lightning_dlopt.data.__all__
    assert {"Digits", "FashionMNIST", "MNIST", "CIFAR10", "ImageFolder"} <= set(names)
    assert {"TensorLoader", "DecodingLoader", "ClassificationDataModule"} <= set(names)
    assert all(hasattr(lightning_dlopt.data, name) for name in names)
