"""How often tokens are chosen, and which are drawn."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binom, chisquare

from lightning_dlopt import augmentation as a
from lightning_dlopt.core import keyed_generator

COUNT, LENGTH = 4000, 12
#: Each token has another id, the place in its sequence.
TOKENS = torch.arange(20, 20 + LENGTH).expand(COUNT, LENGTH).contiguous()
WIDE = torch.cat([TOKENS, torch.zeros_like(TOKENS)], 1)


def arguments(seed: int = 1, **more: Any) -> dict[str, Any]:
    return {"generator": keyed_generator(seed), **more}


def assert_share(hits: int, trials: int, rate: float) -> None:
    low, high = binom.interval(0.999, trials, rate)
    assert low <= hits <= high


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5])
def test_the_rate_is_each_tokens_probability(rate: float) -> None:
    trials = COUNT * LENGTH
    left = a.delete_tokens(TOKENS, rate, **arguments()).lengths
    assert_share(trials - int(left.sum()), trials, rate)
    grown = a.insert_tokens(WIDE, rate, **arguments(vocab_size=9)).lengths
    assert_share(int(grown.sum()) - trials, trials, rate)
    replaced = a.replace_tokens(TOKENS, rate, **arguments(vocab_size=9)).tokens
    changed = replaced != TOKENS
    assert_share(int(changed.sum()), trials, rate)
    # in each place, and independently of the neighbor
    for column in changed.t():
        assert_share(int(column.sum()), COUNT, rate)
    both = changed[:, 1:] & changed[:, :-1]
    assert_share(int(both.sum()), both.numel(), rate**2)


def test_new_tokens_are_drawn_by_their_frequencies() -> None:
    weights = [7.0, 3.0, 0.0, 1.0, 2.0, 4.0]  # the first is padding, the second protected
    given: dict[str, Any] = {"frequencies": weights, "protected_ids": [1]}
    for drawn in (
        a.replace_tokens(TOKENS, 1.0, **arguments(2, **given)).tokens,
        a.insert_tokens(WIDE, 1.0, **arguments(2, **given)).tokens[:, 1::2],
    ):
        found = np.bincount(drawn.flatten().numpy(), minlength=6)
        assert found[:3].sum() == 0
        expected = np.array(weights[3:]) / 7 * found.sum()
        assert chisquare(found[3:], expected).pvalue > 0.001
    even = a.replace_tokens(TOKENS, 1.0, **arguments(vocab_size=7, protected_ids=[1])).tokens
    assert chisquare(np.bincount(even.flatten().numpy())[2:]).pvalue > 0.001


def test_synonyms_are_drawn_evenly_and_other_tokens_stay() -> None:
    table = {20: [1, 2, 3], 25: [4], 31: [5, 6]}
    result = a.replace_tokens(TOKENS, 0.5, **arguments(synonyms=table)).tokens
    for place in range(LENGTH):
        ids, found = np.unique(result[:, place].numpy(), return_counts=True)
        options = table.get(20 + place, [])
        assert ids.tolist() == [*options, 20 + place]
        if options:
            assert_share(int(found[:-1].sum()), COUNT, 0.5)
            assert_share(int(found[0]), int(found[:-1].sum()), 1 / len(options))


def test_pairs_are_any_two_tokens() -> None:
    result = a.swap_tokens(TOKENS, 1.0, **arguments()).tokens
    assert (result != TOKENS).all()  # an even number: nobody is left over
    partner = result - 20
    assert torch.equal(partner.gather(1, partner), (TOKENS - 20))  # and they come in pairs
    for place in range(LENGTH):
        found = np.bincount(partner[:, place].numpy(), minlength=LENGTH)
        assert chisquare(np.delete(found, place)).pvalue > 0.001
    # whether 0 and 1 form a pair tells of 2 and 3 what a random matching would: 1 in 9
    first = partner[:, 0] == 1
    assert_share(int((partner[first, 2] == 3).sum()), int(first.sum()), 1 / 9)
    some = a.swap_tokens(TOKENS, 0.3, **arguments()).tokens
    drawn = binom.pmf(np.arange(LENGTH + 1), LENGTH, 0.3)
    expected = (drawn * (np.arange(LENGTH + 1) // 2 * 2)).sum() / LENGTH
    assert abs(float((some != TOKENS).double().mean()) - expected) < 0.01


def test_windows_are_contiguous_and_evenly_placed() -> None:
    result, lengths = a.crop_tokens(TOKENS, 0.5, **arguments())
    assert (lengths == 6).all()
    window = result[:, :6]
    assert (window.diff(dim=1) == 1).all()
    assert chisquare(np.bincount((window[:, 0] - 20).numpy(), minlength=7)).pvalue > 0.001
    sizes = a.crop_tokens(TOKENS, [0.25, 1.0], **arguments()).lengths
    found = np.bincount(sizes.numpy(), minlength=LENGTH + 1)[3:]
    shares = np.array([0.5, *[1.0] * 8, 0.5]) / 9  # each to the nearest whole number
    assert chisquare(found, shares * COUNT).pvalue > 0.001


def test_insertions_that_do_not_fit_are_left_out_evenly() -> None:
    tight = torch.cat([TOKENS, torch.zeros_like(TOKENS[:, :5])], 1)
    result, lengths = a.insert_tokens(tight, 1.0, **arguments(vocab_size=9))
    assert (lengths == LENGTH + 5).all()
    follows = torch.zeros(LENGTH)
    for place in range(LENGTH):
        at = (result == 20 + place).int().argmax(1)
        behind = result.gather(1, (at + 1).clamp(max=LENGTH + 4)[:, None])[:, 0]
        follows[place] = float(((behind < 20) & (at < LENGTH + 4)).sum())
    for hits in follows.tolist():
        assert_share(int(hits), COUNT, 5 / LENGTH)
    full = a.insert_tokens(TOKENS, 1.0, **arguments(vocab_size=9)).tokens
    assert torch.equal(full, TOKENS)


def test_the_token_that_is_left_of_all_is_any() -> None:
    result, lengths = a.delete_tokens(TOKENS, 1.0, **arguments())
    assert (lengths == 1).all()
    assert chisquare(np.bincount((result[:, 0] - 20).numpy())).pvalue > 0.001
