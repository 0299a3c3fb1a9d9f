"""Each edit against the same on Python lists, and what must hold of every result."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_dlopt import augmentation as a
from lightning_dlopt.augmentation.tokens import EditedTokens, edit_tokens
from lightning_dlopt.core import keyed_generator
from tests.augmentation import token_lists as slow
from tests.augmentation.token_lists import PROTECTED, rows

SIZE = 30
DRAWN: dict[str, Any] = {"vocab_size": SIZE}


def even(count: int, generator: torch.Generator) -> Tensor:
    return torch.randint(SIZE - 3, (count,), generator=generator) + 3


EDITS: dict[str, tuple[Callable[..., EditedTokens], dict[str, Any], Callable[..., Tensor]]] = {
    "delete": (a.delete_tokens, {}, slow.delete),
    "swap": (a.swap_tokens, {}, slow.swap),
    "replace": (a.replace_tokens, DRAWN, lambda t, r, g: slow.replace(t, r, even, g)),
    "insert": (a.insert_tokens, DRAWN, lambda t, r, g: slow.insert(t, r, even, g)),
    "crop": (a.crop_tokens, {}, lambda t, r, g: slow.crop(t, (r, r), g)),
}
EVERY = pytest.mark.parametrize("name", EDITS)


def batch(seed: int, count: int = 40, length: int = 13, kind: torch.dtype = torch.int64) -> Tensor:
    """Sequences with protected tokens anywhere, of any length, also none."""
    generator = keyed_generator(seed)
    tokens = torch.randint(1, SIZE, (count, length), generator=generator)
    tokens[: count // 4] = tokens[: count // 4].clamp(max=5)  # many are protected
    lengths = torch.randint(length + 1, (count, 1), generator=generator)
    return torch.where(torch.arange(length) < lengths, tokens, 0).to(kind)


def edited(name: str, tokens: Tensor, rate: float, seed: int, **arguments: Any) -> EditedTokens:
    edit, more, _ = EDITS[name]
    options = {"protected_ids": PROTECTED, **more, **arguments}
    return edit(tokens, rate, generator=keyed_generator(seed), **options)


@EVERY
@pytest.mark.parametrize("rate", [0.1, 0.6, 1.0])
@pytest.mark.parametrize("kind", [torch.int32, torch.int64])
@pytest.mark.parametrize("shape", [(40, 13), (1, 7), (3, 1), (0, 5)])
def test_edited_as_lists_are(
    name: str, rate: float, kind: torch.dtype, shape: tuple[int, int]
) -> None:
    for seed in range(8):
        tokens = batch(seed, *shape, kind)
        before = tokens.clone()
        result, lengths = edited(name, tokens, rate, seed)
        expected = EDITS[name][2](tokens, rate, keyed_generator(seed))
        assert result.dtype == kind
        assert result.is_contiguous()
        assert torch.equal(result, expected)
        assert lengths.tolist() == [len(row) for row in rows(expected)]
        assert torch.equal(tokens, before)


@EVERY
def test_what_holds_of_every_result(name: str) -> None:
    for seed in range(60):
        tokens = batch(seed)
        result, lengths = edited(name, tokens, (0.05, 0.3, 0.9)[seed % 3], seed)
        for old, new, full, length in zip(
            rows(tokens), rows(result), result.tolist(), lengths.tolist(), strict=True
        ):
            assert full == new + [0] * (len(full) - length)  # nothing behind the end but padding
            assert len(new) == length
            protected = [token for token in old if token in PROTECTED]
            assert [token for token in new if token in PROTECTED] == protected
            if old and old[0] in PROTECTED:
                assert new[0] == old[0]
            if old and old[-1] in PROTECTED:
                assert new[-1] == old[-1]
            assert (len(old) > len(protected)) == (len(new) > len(protected))
            if name == "swap":
                assert Counter(old) == Counter(new)
            if name in ("swap", "replace"):
                places = [place for place, token in enumerate(old) if token in PROTECTED]
                assert [place for place, t in enumerate(new) if t in PROTECTED] == places
                assert length == len(old)


@EVERY
def test_each_sequence_has_its_own_draws(name: str) -> None:
    tokens = torch.arange(3, 23).expand(200, 20).contiguous()
    result = edited(name, torch.cat([tokens, torch.zeros_like(tokens)], 1), 0.3, 4)[0]
    assert len(result.unique(dim=0)) > (10 if name == "crop" else 190)


def test_several_edits_are_one_after_the_other() -> None:
    order = ["insert", "delete", "swap", "crop", "replace", "insert"]
    options: dict[str, Any] = {"protected_ids": PROTECTED}
    techniques = {
        "delete": a.DeleteTokens(0.7, **options),
        "swap": a.SwapTokens(0.7, **options),
        "crop": a.CropTokens(0.7, **options),
        "insert": a.InsertTokens(0.7, **options, **DRAWN),
        "replace": a.ReplaceTokens(0.7, **options, **DRAWN),
    }
    for seed in range(10):
        one = tokens = batch(seed)
        for place, name in enumerate(order):
            one = edited(name, one, 0.7, place).tokens
        edits = [
            partial(techniques[name].edit, generator=keyed_generator(place))
            for place, name in enumerate(order)
        ]
        result, lengths = edit_tokens(tokens, edits, protected_ids=PROTECTED)
        assert torch.equal(result, one)
        assert torch.equal(lengths, (one != 0).sum(1))


@EVERY
def test_the_layout_in_memory_makes_no_difference(name: str) -> None:
    tokens = batch(3)
    turned = tokens.t().contiguous().t()
    assert torch.equal(edited(name, turned, 0.5, 1)[0], edited(name, tokens, 0.5, 1)[0])


def test_a_token_with_the_id_of_padding_counts_where_lengths_say_so() -> None:
    tokens = torch.tensor([[5, 0, 6, 0, 0]])
    given = {"lengths": torch.tensor([4])}
    result, lengths = edited("delete", tokens, 1.0, 0, **given)
    assert sorted(result[0].tolist()) in ([0, 0, 0, 0, 5], [0, 0, 0, 0, 6])
    assert lengths.tolist() == [3]  # both tokens that look like padding are left alone
    with pytest.raises(ValueError, match=r"between tokens"):
        edited("delete", tokens, 1.0, 0)


@EVERY
@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (torch.zeros(4, 8), "float32 must be int64 or int32"),
        (torch.ones(4, dtype=torch.long), r"shape \(4,\) must be a batch \(B, L\)"),
        (torch.ones(4, 0, dtype=torch.long), "L at least 1"),
        (torch.tensor([[3, -1]]), "the id -1, below 0"),
        (torch.tensor([[0, 3, 4]]), "on the left: say padding_side='left'"),
        (torch.tensor([[4, 0, 3, 0]]), "between tokens"),
    ],
)
def test_other_inputs_are_refused(name: str, tokens: Tensor, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        edited(name, tokens, 0.5, 0)


@pytest.mark.parametrize("edit", [a.insert_tokens, a.replace_tokens])
def test_a_vocabulary_is_needed(edit: Callable[..., Any]) -> None:
    tokens, generator = torch.ones(1, 2, dtype=torch.long), keyed_generator(0)
    with pytest.raises(ValueError, match=r"give one of vocab_size=None and frequencies=None"):
        edit(tokens, 0.5, generator=generator)
    with pytest.raises(ValueError, match=r"leave no token to draw"):
        edit(tokens, 0.5, generator=generator, vocab_size=2, protected_ids=[1])
