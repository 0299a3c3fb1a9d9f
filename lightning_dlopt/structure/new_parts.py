"""Initial weights of new layers, without the global generators."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lightning_dlopt.core.global_generators import kept_generators, seed_global


@contextmanager
def drawing_from(generator: torch.Generator | None) -> Iterator[None]:
    """Let torch's layers that are built in the block draw their weights from ``generator``.

    They know only the global ones, which are as before when the block ends. With None they draw
    from those.

    Example:
        >>> from torch import nn
        >>> before = torch.get_rng_state()
        >>> with drawing_from(torch.Generator().manual_seed(1)):
        ...     layer = nn.Linear(2, 2)
        >>> torch.equal(torch.get_rng_state(), before)
        True
    """
    if generator is None:
        yield
        return
    cpu = torch.device("cpu")
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    with kept_generators(cpu), cpu:
        seed_global(seed, cpu)
        yield
