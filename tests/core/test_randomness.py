import itertools
from typing import Any

import pytest
import torch

from lightning_dlopt.core import keyed_generator
from lightning_dlopt.core.randomness import mix_key, run_seed

MASK = (1 << 64) - 1


def split_mix_64(state: int) -> int:
    """One output of SplitMix64 as in Steele, Lea and Flood (2014), with Stafford's variant 13."""
    state = (state + 0x9E3779B97F4A7C15) & MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
    return state ^ (state >> 31)


def test_the_reference_gives_the_published_numbers() -> None:
    # the first output for seed 1234567 in the widely used test vectors of SplitMix64
    assert split_mix_64(1234567) == 6457827717110365317


@pytest.mark.parametrize("parts", [(0,), (1, 2, 3), (2**63, 5), (-1,), (2**64 - 1, 0, 0, 7)])
def test_mix_key_is_split_mix_for_each_part(parts: tuple[int, ...]) -> None:
    state = len(parts)
    for part in parts:
        state = split_mix_64((state + part) & MASK)
    assert mix_key(*parts) == state >> 1


def test_keys_do_not_collide() -> None:
    keys = [mix_key(*parts) for parts in itertools.product(range(12), repeat=4)]
    keys += [mix_key(*parts) for length in range(4) for parts in [(0,) * length]]
    assert len(set(keys)) == len(keys)


def test_keys_that_differ_in_one_bit_differ_in_half_the_bits() -> None:
    flips = [
        bin(mix_key(seed, 3, 9) ^ mix_key(seed ^ (1 << bit), 3, 9)).count("1")
        for seed in range(50)
        for bit in range(32)
    ]
    # 63 bits, mean 31.5; 1600 samples of deviation 4 give a standard error of 0.1
    assert sum(flips) / len(flips) == pytest.approx(31.5, abs=0.5)


def test_generators_repeat_and_touch_no_global_one() -> None:
    before = torch.get_rng_state()
    one, two = keyed_generator(1, 2), keyed_generator(1, 2)
    assert torch.equal(torch.rand(9, generator=one), torch.rand(9, generator=two))
    other = torch.rand(9, generator=keyed_generator(1, 3))
    assert not torch.equal(other, torch.rand(9, generator=keyed_generator(1, 2)))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("value", "seed"), [(None, 0), ("", 0), ("7", 7), (f"{2**32 - 1}", 2**32 - 1)]
)
def test_run_seed(value: str | None, seed: int, monkeypatch: Any) -> None:
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    if value is not None:
        monkeypatch.setenv("PL_GLOBAL_SEED", value)
    assert run_seed() == seed
