import math
import random

import pytest
import torch
from torch.utils.data import DistributedSampler

from lightning_dlopt.core.errors import ArgumentError, ArgumentTypeError, DataError
from lightning_dlopt.data.order import count_batches, epoch_batches, split_indices


def as_lists(batches: list[torch.Tensor]) -> list[list[int]]:
    return [batch.tolist() for batch in batches]


SHAPES = [
    (size, batch_size, world_size)
    for size in (1, 2, 7, 16, 31)
    for batch_size in (1, 3, 8)
    for world_size in (1, 2, 3)
]


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(("size", "batch_size"), [(1, 1), (10, 3), (12, 4), (7, 100)])
def test_one_process_is_the_hand_written_loop(size: int, batch_size: int, drop_last: bool) -> None:
    if drop_last and size < batch_size:
        with pytest.raises(DataError, match=r"7 samples are too few .*100 .*drop_last"):
            epoch_batches(size, batch_size, drop_last=drop_last)
        return
    expected = [list(range(size))[i : i + batch_size] for i in range(0, size, batch_size)]
    if drop_last and len(expected[-1]) < batch_size:
        expected.pop()
    assert as_lists(epoch_batches(size, batch_size, drop_last=drop_last)) == expected


@pytest.mark.parametrize(("size", "batch_size", "world_size"), SHAPES)
def test_ranks_share_the_global_batches_of_one_process(
    size: int, batch_size: int, world_size: int
) -> None:
    whole = epoch_batches(size, batch_size * world_size, shuffle=True, seed=3, epoch=2)
    parts = [
        epoch_batches(
            size, batch_size, shuffle=True, seed=3, epoch=2, rank=rank, world_size=world_size
        )
        for rank in range(world_size)
    ]
    order = torch.cat(whole).tolist()
    assert sorted(order) == list(range(size))
    assert {len(part) for part in parts} == {len(whole)}
    for i, global_batch in enumerate(as_lists(whole)):
        padding = -len(global_batch) % world_size
        padded = global_batch + (order * math.ceil((padding + 1) / size))[:padding]
        assert [index for part in parts for index in part[i].tolist()] == padded
        assert len({len(part[i]) for part in parts}) == 1


@pytest.mark.parametrize(("size", "batch_size", "world_size"), SHAPES)
def test_as_many_training_samples_for_each_rank_as_torchs_distributed_sampler(
    size: int, batch_size: int, world_size: int
) -> None:
    sampler = DistributedSampler(range(size), num_replicas=world_size, rank=0)  # type: ignore[arg-type]
    batches = epoch_batches(size, batch_size, shuffle=True, world_size=world_size)
    assert sum(map(len, batches)) == len(sampler)


@pytest.mark.parametrize(("size", "batch_size", "world_size"), SHAPES)
def test_evaluation_sees_every_sample_exactly_once(
    size: int, batch_size: int, world_size: int
) -> None:
    if size < world_size:
        with pytest.raises(DataError, match=rf"{size} samples are too few .* {world_size} rank"):
            epoch_batches(size, batch_size, world_size=world_size)
        return
    parts = [
        epoch_batches(size, batch_size, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    assert sorted(torch.cat([torch.cat(part) for part in parts]).tolist()) == list(range(size))
    assert len({len(part) for part in parts}) == 1
    sizes = [len(batch) for part in parts for batch in part]
    assert min(sizes) >= 1
    assert max(sizes) <= (max(batch_size, 2) if world_size > 1 else batch_size)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("size", "batch_size", "world_size"), SHAPES)
def test_count_is_the_number_of_batches(
    size: int, batch_size: int, world_size: int, shuffle: bool, drop_last: bool
) -> None:
    arguments = {"shuffle": shuffle, "world_size": world_size, "drop_last": drop_last}
    try:
        count = count_batches(size, batch_size, **arguments)
    except DataError:
        with pytest.raises(DataError, match="too few"):
            epoch_batches(size, batch_size, **arguments)
    else:
        batches = epoch_batches(size, batch_size, **arguments)
        assert len(batches) == count
        assert all(len(batch) == batch_size for batch in batches) or not drop_last


def test_order_depends_on_seed_and_epoch_and_on_nothing_else() -> None:
    def order(seed: int, epoch: int) -> list[list[int]]:
        return as_lists(epoch_batches(40, 8, shuffle=True, seed=seed, epoch=epoch))

    first = order(1, 0)
    torch.rand(5)
    random.random()
    assert order(1, 0) == first
    assert first != order(2, 0)
    assert first != order(1, 1)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"batch_size": 0}, ArgumentError, r"batch_size=0 is not in \[1, inf\)"),
        ({"batch_size": 2.0}, ArgumentTypeError, r"batch_size=2.0 must be an integer"),
        ({"rank": 2, "world_size": 2}, ArgumentError, r"rank=2 is not in \[0, 2\)"),
        ({"epoch": -1}, ArgumentError, r"epoch=-1"),
        ({"shuffle": 1}, ArgumentTypeError, r"shuffle=1 must be True or False"),
        ({"size": 0}, DataError, r"there are no samples"),
    ],
)
def test_bad_arguments(arguments: dict[str, int], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        epoch_batches(**{"size": 10, "batch_size": 2, **arguments})


@pytest.mark.parametrize(
    ("held_out", "count"), [(0, 0), (0.0, 0), (3, 3), (0.25, 5), (0.001, 1), (19, 19)]
)
def test_split_counts(held_out: float, count: int) -> None:
    stay, held = split_indices(20, held_out, seed=0)
    assert len(held) == count
    assert sorted([*stay.tolist(), *held.tolist()]) == list(range(20))
    assert stay.tolist() == sorted(stay.tolist())


def test_split_depends_on_its_seed() -> None:
    assert split_indices(50, 10, 0)[1].tolist() == split_indices(50, 10, 0)[1].tolist()
    assert split_indices(50, 10, 0)[1].tolist() != split_indices(50, 10, 1)[1].tolist()


def test_split_that_leaves_nothing() -> None:
    with pytest.raises(DataError, match="holding out 20 of 20 samples leaves none"):
        split_indices(20, 20, 0)
