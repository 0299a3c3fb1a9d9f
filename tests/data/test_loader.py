import copy
import itertools
import pickle
import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from lightning_dlopt.core.errors import (
    ArgumentError,
    ArgumentTypeError,
    CheckpointError,
    DataError,
)
from lightning_dlopt.data import DecodingLoader, ResumableLoader, TensorLoader, epoch_batches


def tensor_loader(**arguments: Any) -> TensorLoader:
    targets = torch.arange(arguments.pop("size", 23))
    inputs = torch.stack([targets, targets * 2], 1)
    return TensorLoader(inputs, targets, **{"batch_size": 4, "shuffle": True, **arguments})


def decoding_loader(**arguments: Any) -> DecodingLoader:
    samples = [(torch.tensor([i, i * 2]), i) for i in range(arguments.pop("size", 23))]
    return DecodingLoader(samples, **{"batch_size": 4, "shuffle": True, **arguments})


def forked_loader(**arguments: Any) -> DecodingLoader:
    return decoding_loader(num_workers=2, **arguments)


MakeLoader = Callable[..., ResumableLoader[Any]]
KINDS = [tensor_loader, decoding_loader, forked_loader]


def indices(loader: ResumableLoader[Any]) -> list[list[int]]:
    return [targets.tolist() for _, targets in loader]


@pytest.mark.parametrize("make", KINDS)
def test_batches_are_the_samples_at_the_orders_indices(make: MakeLoader) -> None:
    loader = make(seed=5)
    for epoch in range(2):
        batches = list(loader)
        expected = epoch_batches(23, 4, shuffle=True, seed=5, epoch=epoch)
        assert len(batches) == len(loader) == len(expected) == 6
        for (inputs, targets), order in zip(batches, expected, strict=True):
            assert targets.tolist() == order.tolist()
            assert inputs.tolist() == [[i, 2 * i] for i in order.tolist()]


@pytest.mark.parametrize("make", KINDS)
def test_unshuffled_is_what_torchs_dataloader_gives(make: MakeLoader) -> None:
    expected = [batch.tolist() for batch in DataLoader(range(23), batch_size=4)]  # type: ignore[arg-type]
    assert indices(make(shuffle=False)) == expected
    assert len(make(shuffle=False, drop_last=True)) == 5


@pytest.mark.parametrize("make", KINDS)
def test_global_randomness_is_neither_moved_nor_read(
    make: MakeLoader, unchanged_global_randomness: Callable[[], AbstractContextManager[None]]
) -> None:
    with unchanged_global_randomness():
        loader = make()
        first = indices(loader), indices(loader)
    torch.rand(1)
    random.random()
    np.random.rand()  # noqa: NPY002
    loader = make()
    again = indices(loader), indices(loader)
    assert again == first


@pytest.mark.parametrize("position", range(7))
@pytest.mark.parametrize("make", KINDS[:2])
def test_resume_continues_with_the_next_batch(make: MakeLoader, position: int) -> None:
    through = make(seed=1)
    expected = [*indices(through), *indices(through), *indices(through)]
    stopped = make(seed=1)
    indices(stopped)
    seen = [targets.tolist() for _, targets in itertools.islice(stopped, position)]
    state = stopped.state_dict()
    assert all(type(value) is int for value in state.values())
    resumed = make(seed=1)
    resumed.load_state_dict(pickle.loads(pickle.dumps(state)))
    assert seen == expected[6 : 6 + position]
    # At position 6 the epoch is over, so the next one comes whole.
    assert indices(resumed) == (expected[12:] if position == 6 else expected[6 + position : 12])


def test_position_at_an_epochs_end_is_the_next_ones_start() -> None:
    loader = tensor_loader()
    iterator = iter(loader)
    for _ in range(len(loader)):
        next(iterator)
    # Lightning doesn't ask for more, so the iterator never ends.
    resumed = tensor_loader()
    resumed.load_state_dict(loader.state_dict())
    assert resumed.state_dict()["epoch"] == 1
    assert resumed.state_dict()["position"] == 0
    assert indices(resumed) == indices(loader)


@pytest.mark.parametrize("make", KINDS[:2])
def test_each_pass_is_a_new_epoch_even_after_a_break(make: MakeLoader) -> None:
    loader = make(seed=2)
    next(iter(loader))
    iter(loader)
    assert indices(loader) == [
        order.tolist() for order in epoch_batches(23, 4, shuffle=True, seed=2, epoch=1)
    ]


def test_an_iterator_takes_its_epoch_at_its_first_batch() -> None:
    loader = tensor_loader()
    early = iter(loader)
    loader.set_epoch(3)
    expected = epoch_batches(23, 4, shuffle=True, epoch=3)[0].tolist()
    assert next(early)[1].tolist() == expected


def test_set_epoch_keeps_a_resumed_place_in_that_epoch_only() -> None:
    state = {**tensor_loader().state_dict(), "epoch": 2, "position": 4}
    kept, left = tensor_loader(), tensor_loader()
    kept.load_state_dict(state)
    kept.set_epoch(2)
    left.load_state_dict(state)
    left.set_epoch(3)
    assert len(indices(kept)) == 2
    assert len(indices(left)) == 6


@pytest.mark.parametrize("make", KINDS)
def test_two_ranks_together_are_one_process(make: MakeLoader) -> None:
    whole = indices(make(size=24, batch_size=8))
    parts = [indices(make(size=24, rank=rank, world_size=2)) for rank in range(2)]
    assert [left + right for left, right in zip(*parts, strict=True)] == whole


def test_state_is_the_same_on_every_rank() -> None:
    loaders = [tensor_loader(rank=rank, world_size=2) for rank in range(2)]
    for loader in loaders:
        next(iter(loader))
    assert loaders[0].state_dict() == loaders[1].state_dict()


@pytest.mark.parametrize(
    ("other", "name"),
    [
        ({"seed": 9}, "seed=0, but this loader has seed=9"),
        ({"size": 22}, "size=23"),
        ({"batch_size": 5}, "batches=6|global_batch_size=4"),
        ({"size": 24, "batch_size": 2, "world_size": 2}, "size=23"),
    ],
)
def test_place_inside_another_order_is_refused(other: dict[str, int], name: str) -> None:
    loader = tensor_loader()
    next(iter(loader))
    with pytest.raises(CheckpointError, match=name):
        tensor_loader(**other).load_state_dict(loader.state_dict())


def test_other_number_of_ranks_with_the_same_global_batch_resumes() -> None:
    loader = tensor_loader(size=24, batch_size=8)
    iterator = iter(loader)
    next(iterator)
    parts = [tensor_loader(size=24, rank=rank, world_size=2) for rank in range(2)]
    for part in parts:
        part.load_state_dict(loader.state_dict())
    rest = [left + right for left, right in zip(*map(indices, parts), strict=True)]
    assert rest == [targets.tolist() for _, targets in iterator]


def test_foreign_state_is_refused() -> None:
    with pytest.raises(CheckpointError, match="not a state that this loader saved"):
        tensor_loader().load_state_dict({"samples_seen": 3})


@pytest.mark.parametrize("make", KINDS[:2])
@pytest.mark.parametrize("clone", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_and_pickles_go_on_from_the_same_place(
    make: MakeLoader, clone: Callable[[Any], Any]
) -> None:
    loader = make()
    loader.load_state_dict({**loader.state_dict(), "epoch": 1, "position": 2})
    other = clone(loader)
    assert indices(other) == indices(loader)
    assert len(other) == len(loader)


def test_transform_gets_the_batch_of_inputs() -> None:
    loader = tensor_loader(shuffle=False, transform=lambda batch: batch.float() / 2)
    inputs, targets = next(iter(loader))
    assert inputs.dtype == torch.float32
    assert inputs[:, 1].tolist() == targets.tolist()


def test_not_a_torch_dataloader_so_lightning_leaves_it_alone() -> None:
    assert not isinstance(decoding_loader(), DataLoader)
    assert not hasattr(decoding_loader(), "dataset")


@pytest.mark.parametrize("make", KINDS[:2])
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"batch_size": 0}, ArgumentError, r"Loader: batch_size=0 is not in \[1, inf\)"),
        ({"seed": 0.5}, ArgumentTypeError, r"seed=0.5 must be an integer"),
        ({"rank": 1}, ArgumentError, r"rank=1 is not in \[0, 1\)"),
        ({"drop_last": "yes"}, ArgumentTypeError, r"drop_last='yes' must be True or False"),
        ({"size": 1, "world_size": 2, "shuffle": False}, DataError, "1 samples are too few"),
        ({"bach_size": 3}, TypeError, "bach_size"),
    ],
)
def test_bad_arguments(
    make: MakeLoader, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make(**arguments)


def test_bad_tensors() -> None:
    with pytest.raises(DataError, match="3 inputs, but 2 targets"):
        TensorLoader(torch.zeros(3, 1), torch.zeros(2))
    with pytest.raises(ArgumentTypeError, match=r"targets must be a tensor .* not list"):
        TensorLoader(torch.zeros(3, 1), [1, 2, 3])  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no samples"):
        TensorLoader(torch.zeros(0, 1), torch.zeros(0))


class RandomSamples:
    """Each sample holds a draw from every global generator, as a random transform makes."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[list[float], int]:
        draws = [torch.rand(1).item(), random.random(), float(np.random.rand())]  # noqa: NPY002
        return draws, index


def draws_by_index(loader: DecodingLoader) -> dict[int, list[float]]:
    return {
        index: [column[i].item() for column in draws]
        for draws, targets in loader
        for i, index in enumerate(targets.tolist())
    }


def test_random_transforms_depend_on_seed_epoch_and_sample_only(
    unchanged_global_randomness: Callable[[], AbstractContextManager[None]],
) -> None:
    def loader(**arguments: Any) -> DecodingLoader:
        return DecodingLoader(RandomSamples(), batch_size=4, shuffle=True, **arguments)

    with unchanged_global_randomness():
        here = loader()
        first, second = draws_by_index(here), draws_by_index(here)
    assert draws_by_index(loader(num_workers=2)) == first
    assert first != second
    assert len({tuple(draws) for draws in first.values()}) == 12
    resumed = loader()
    resumed.load_state_dict({**resumed.state_dict(), "epoch": 0, "position": 1})
    rest = draws_by_index(resumed)
    assert len(rest) == 8
    assert all(first[index] == draws for index, draws in rest.items())


class DamagedSamples(RandomSamples):
    def __getitem__(self, index: int) -> tuple[list[float], int]:
        if index == 6:
            raise DataError("sample 6: damaged")
        return [0.0], index


@pytest.mark.parametrize("num_workers", [0, 2])
def test_data_error_arrives_as_its_one_line(num_workers: int) -> None:
    loader = DecodingLoader(DamagedSamples(), batch_size=4, num_workers=num_workers)
    iterator = iter(loader)
    next(iterator)
    with pytest.raises(DataError) as raised:
        next(iterator)
    assert str(raised.value) == "sample 6: damaged"


def test_own_collate() -> None:
    loader = DecodingLoader([3, 4, 5], batch_size=2, collate=sum)
    assert list(loader) == [7, 5]


def test_the_first_batch_with_other_draws_leaves_the_place() -> None:
    loader = DecodingLoader(RandomSamples(), batch_size=4, shuffle=True)
    first, again, other = loader.first_batch(), loader.first_batch(), loader.first_batch(1)
    assert loader.state_dict()["position"] == 0
    trained = next(iter(loader))
    assert str(first) == str(again) == str(trained)
    assert str(other[1]) == str(first[1]), "other samples"
    assert str(other[0]) != str(first[0]), "the same draws"
