"""The order in which an epoch visits the samples, and who gets which: pure functions.

No state and no global random number generator: the order of epoch 7 is computed from
(seed, 7) alone, so a resumed run, another rank or another process finds the same one.
"""

import torch
from torch import Tensor

from lightning_dlopt.core.checks import check_flag, check_integer
from lightning_dlopt.core.errors import DataError
from lightning_dlopt.core.randomness import keyed_generator

#: Batches among which samples are sorted by length: enough for little padding, few enough that
#: the batches of an epoch differ from those of the next.
POOL = 50


def count_batches(
    size: int,
    batch_size: int,
    *,
    shuffle: bool = False,
    world_size: int = 1,
    drop_last: bool = False,
) -> int:
    """Return how many batches each rank gets in an epoch; arguments as :func:`epoch_batches`.

    Example:
        >>> count_batches(10, 4), count_batches(10, 4, drop_last=True)
        (3, 2)

    Raises:
        DataError: if there are too few samples for one batch on every rank.
    """
    full, rest = divmod(size, batch_size * world_size)
    if drop_last:
        count = full
    elif shuffle or rest >= world_size:
        count = full + (rest > 0)
    else:
        # Fewer samples are left than there are ranks. Batches of one sample can't lend any, so
        # the last batches take them; larger ones share with an additional batch.
        count = full + (rest > 0 and full > 0 and batch_size > 1)
    if count < 1:
        raise DataError(
            f"{size} samples are too few for batches of {batch_size} on {world_size} rank(s)"
            + (" with drop_last=True" if drop_last else "")
            + ": use fewer ranks"
            + (", smaller batches or drop_last=False" if drop_last else " or more samples")
        )
    return count


def epoch_batches(
    size: int,
    batch_size: int,
    *,
    shuffle: bool = False,
    seed: int = 0,
    epoch: int = 0,
    rank: int = 0,
    world_size: int = 1,
    drop_last: bool = False,
    lengths: Tensor | None = None,
) -> list[Tensor]:
    """Return the sample indices of each of this rank's batches in one epoch.

    With ``W = world_size`` and ``b = batch_size``, global batch ``i`` is
    ``order[i * b * W : (i + 1) * b * W]``, of which each rank takes one contiguous part of ``b``:
    W ranks with batches of b see the same global batches as one process with batches of b·W.
    Only the ragged end differs between the two uses:

    - ``shuffle=True`` (training): what is left over is filled up to a multiple of W by samples
      from the start of the epoch's order, as torch's ``DistributedSampler`` does.
    - ``shuffle=False`` (evaluation): every sample comes exactly once over all ranks, every rank
      gets the same number of batches and none is empty; the last one or two batches of each rank
      are made smaller for that. Only where ``b = 1`` can't give every rank the same number does
      a last batch hold two samples.

    Args:
        size: Number of samples, at least 1.
        batch_size: Samples in a batch of one rank, at least 1.
        shuffle: Whether the order is a random permutation, the same on all ranks.
        seed: Any integer; with ``epoch`` the key of the permutation.
        epoch: The epoch's number, from 0.
        rank: This process's number, in ``[0, world_size)``.
        world_size: Number of processes that share the samples.
        drop_last: Whether an incomplete last global batch is left out.
        lengths: The length of each sample, ``(size,)``. With ``shuffle`` every full global batch
            then holds samples of similar length, see :func:`group_by_length`.

    Returns:
        One int64 tensor of shape ``(samples in the batch,)`` for each batch.

    Raises:
        DataError: if there are too few samples for one batch on every rank.
        ArgumentError: if a number is outside its range.

    Example:
        >>> [batch.tolist() for batch in epoch_batches(5, 2)]
        [[0, 1], [2, 3], [4]]
        >>> [batch.tolist() for batch in epoch_batches(6, 2, rank=1, world_size=2)]
        [[2, 3], [5]]
    """
    check_order("epoch_batches", batch_size, shuffle, rank, world_size, drop_last)
    if size < 1:
        raise DataError("there are no samples: a data set needs at least one")
    check_integer("epoch_batches", "epoch", epoch, "[0, inf)")
    count = count_batches(
        size, batch_size, shuffle=shuffle, world_size=world_size, drop_last=drop_last
    )
    if shuffle:
        generator = keyed_generator(seed, epoch)
        order = torch.randperm(size, generator=generator)
        if lengths is not None:
            order = group_by_length(order, lengths, batch_size * world_size, generator)
    else:
        order = torch.arange(size)
    full, rest = divmod(size, batch_size * world_size)
    if not drop_last and not shuffle and 0 < rest < world_size:
        # Too few for the ranks: the last full global batch is shared out anew together with them.
        full -= 1
    whole = full * batch_size * world_size
    batches = list(order[:whole].view(full, world_size, batch_size)[:, rank])
    missing = count - full
    if missing:
        tail = order[whole:]
        if shuffle:
            padding = -len(tail) % world_size
            tail = torch.cat([tail, order.repeat(-(-padding // size))[:padding]])
        batches += tail.tensor_split(missing * world_size)[rank::world_size]
    return batches


def group_by_length(
    order: Tensor, lengths: Tensor, group: int, generator: torch.Generator
) -> Tensor:
    """Reorder a random order so that each full group holds samples of similar length.

    The order is cut into pools of ``POOL`` groups, each pool sorted by length and cut into groups;
    then the groups of all pools, and the samples in each group, are shuffled. So groups stay
    random, the lengths within one are close, and short and long groups come in random order.
    What is left over after the last full group stays at the end as it was.

    Args:
        order: Sample indices, int64, ``(size,)``.
        lengths: The length of each sample, ``(size,)``.
        group: Samples in a group, at least 1.
        generator: Draws the order of groups and within them.

    Returns:
        The same indices in the new order.

    Example:
        >>> lengths = torch.tensor([9, 1, 8, 2])
        >>> grouped = group_by_length(torch.arange(4), lengths, 2, torch.Generator())
        >>> sorted(sorted(lengths[pair].tolist()) for pair in grouped.view(2, 2))
        [[1, 2], [8, 9]]
    """
    whole = len(order) // group * group
    head = order[:whole]
    # sorting twice, stably, sorts by pool and within a pool by length
    by_length = lengths[head].argsort(stable=True)
    pool = torch.arange(whole) // (group * POOL)
    head = head[by_length[pool[by_length].argsort(stable=True)]].view(-1, group)
    head = head[torch.randperm(len(head), generator=generator)]
    within = torch.rand(head.shape, generator=generator, dtype=torch.float64).argsort(1)
    return torch.cat([head.gather(1, within).flatten(), order[whole:]])


def check_order(
    owner: object, batch_size: int, shuffle: bool, rank: int, world_size: int, drop_last: bool
) -> None:
    """Raise an ArgumentError or ArgumentTypeError for the first argument that is out of range."""
    check_integer(owner, "batch_size", batch_size, "[1, inf)")
    check_integer(owner, "world_size", world_size, "[1, inf)")
    check_integer(owner, "rank", rank, f"[0, {world_size})")
    check_flag(owner, "shuffle", shuffle)
    check_flag(owner, "drop_last", drop_last)


def split_indices(size: int, held_out: int | float, seed: int) -> tuple[Tensor, Tensor]:
    """Split ``range(size)`` at random into what stays and what is held out.

    Args:
        size: Number of samples.
        held_out: An integer is a number of samples, a float a share (at least one sample if the
            share isn't 0).
        seed: Key of the draw; the global random number generator isn't used.

    Returns:
        Two int64 tensors of indices in ascending order: those that stay, those held out.

    Raises:
        DataError: if nothing would stay.

    Example:
        >>> stay, held = split_indices(10, 0.3, seed=0)
        >>> len(stay), len(held), sorted([*stay.tolist(), *held.tolist()]) == list(range(10))
        (7, 3, True)
    """
    count = held_out
    if isinstance(count, float):
        count = max(1, round(size * count)) if count > 0 else 0
    if count >= size:
        raise DataError(
            f"holding out {count} of {size} samples leaves none to train on: hold out fewer"
        )
    order = torch.randperm(size, generator=keyed_generator(seed))
    return order[count:].sort().values, order[:count].sort().values
