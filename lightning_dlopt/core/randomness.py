"""Generators keyed by counters, so that no technique ever touches a global one.

A generator whose state is carried along can't be resumed on several ranks (a checkpoint holds
rank 0's only). One that is seeded anew from (seed, rank, batch counter, ...) needs no state.
"""

import os

import torch

_MASK = (1 << 64) - 1


def mix_key(*parts: int) -> int:
    """Hash integers to a seed of 63 bits; keys that differ in one bit give unrelated seeds.

    The mixing step is SplitMix64's (Steele, Lea, Flood: Fast Splittable Pseudorandom Number
    Generators, 2014), applied once for each part.

    Example:
        >>> mix_key(0, 1) != mix_key(1, 0)
        True
        >>> 0 <= mix_key(2**64 - 1) < 2**63
        True
    """
    state = len(parts)
    for part in parts:
        state = (state + (part & _MASK) + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


def keyed_generator(*parts: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator on ``device`` seeded by :func:`mix_key` of ``parts``.

    Example:
        >>> a, b = keyed_generator(7, 0), keyed_generator(7, 0)
        >>> bool((torch.rand(3, generator=a) == torch.rand(3, generator=b)).all())
        True
    """
    return torch.Generator(device=device).manual_seed(mix_key(*parts))


def run_seed() -> int:
    """Return the seed given to Lightning's ``seed_everything``, or 0 when it was not called."""
    return int(os.environ.get("PL_GLOBAL_SEED", "0") or 0)
