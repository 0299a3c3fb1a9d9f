"""What an edit of the tokens would leave wrong, and edits that can do nothing."""

import warnings
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_dlopt import NoEffectWarning
from lightning_dlopt import augmentation as a
from lightning_dlopt.core import ArgumentError, TechniqueError, keyed_generator
from tests.augmentation.test_token_technique import LABELS, LENGTHS, MASK, TOKENS, change
from tests.quiet import QUIET


class Counts(LightningModule):
    """Has a weight to train, and looks at no batch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.weight.sum()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(batches: list[Any], *techniques: Any) -> None:
    loader: Any = DataLoader(batches, batch_size=None)  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("error", NoEffectWarning)
        Trainer(**QUIET, max_epochs=1, callbacks=list(techniques)).fit(Counts(), loader)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((TOKENS, LENGTHS, LABELS), r"at 1 the numbers of tokens: say lengths_key=1"),
        ({"tokens": TOKENS, "seq_lengths": LENGTHS}, r"at 'seq_lengths' the numbers of tokens"),
        ({"tokens": TOKENS, "seq": LENGTHS.tolist()}, r"at 'seq' the numbers of tokens"),
        (
            {"tokens": TOKENS, "lengths": LENGTHS.tolist()},
            r"lengths_key='lengths' must be a tensor",
        ),
        ({"tokens": TOKENS, "mask": MASK.tolist()}, r"mask_key='mask' must be a tensor of shape"),
        ({"tokens": TOKENS, "seen": MASK[:, None, None]}, r"\(48, 1, 1, 9\), one entry for each"),
        ({"tokens": TOKENS, "padding": ~MASK.t()}, r"at 'padding' the mask, turned"),
        ({"tokens": TOKENS, "start_positions": LABELS}, r"at 'start_positions' positions"),
    ],
)
def test_fields_that_would_be_wrong_are_refused(batch: Any, message: str) -> None:
    with pytest.raises(
        TechniqueError, match=r"^DeleteTokens\(rate=0.5\): (?!DeleteTokens).*" + message
    ):
        change(a.DeleteTokens(0.5), batch)
    assert change(a.ReplaceTokens(0.5, vocab_size=20), batch) is not batch
    ignored = [1] if isinstance(batch, tuple) else [name for name in batch if name != "tokens"]
    change(a.DeleteTokens(0.5, ignore=ignored), batch)


def test_targets_that_agree_by_accident_are_not_refused() -> None:
    tokens = torch.tensor([[3, 4, 0], [5, 0, 0], [3, 3, 3]])
    technique = a.DeleteTokens(0.5)
    change(technique, (tokens, torch.tensor([2, 1, 3])))  # too few to tell
    change(technique, (tokens, torch.tensor([2, 1, 0])))
    change(technique, (tokens.repeat(4, 1), torch.tensor([2, 1, 3] * 4)))  # was a target before


def test_numbers_of_batches_of_one_length_add_up() -> None:
    technique = a.DeleteTokens(0.5)
    change(technique, (torch.full((3, 4), 5), torch.full((3,), 4)))
    with pytest.raises(TechniqueError, match="numbers of tokens"):
        change(technique, (torch.full((3, 5), 5), torch.full((3,), 5)))


def test_targets_as_wide_as_a_batch_is_long_do_not_end_the_run() -> None:
    lengths = (7, 5, 6)
    for kind in (torch.float32, torch.int64):
        targets = torch.ones(4, 5, dtype=kind)
        fit([(torch.full((4, one), 3), targets) for one in lengths], a.DeleteTokens(0.5))
    fit([(torch.full((4, 5), 3), torch.ones(4, 5))], a.DeleteTokens(0.5))
    with pytest.raises(TechniqueError, match="one entry for each token"):
        fit([(torch.full((4, 5), 3), torch.ones(4, 5).long())], a.DeleteTokens(0.5))


@pytest.mark.parametrize(
    ("technique", "message"),
    [
        (a.InsertTokens(0.5, vocab_size=9), r"no sequence has padding.*group_by_length=False"),
        (a.DeleteTokens(0.5, protected_ids=[3]), r"no token may be edited"),
        (a.SwapTokens(0.5, protected_ids=[3]), r"no sequence has two tokens"),
        (a.ReplaceTokens(0.5, synonyms={4: [5]}), r"no token that occurs has synonyms"),
    ],
)
def test_what_can_do_nothing_says_so(technique: Any, message: str) -> None:
    with pytest.raises(NoEffectWarning, match=message):
        fit([(torch.full((4, 6), 3), torch.zeros(4))] * 2, technique)


def test_deletions_make_room() -> None:
    batch = (torch.full((4, 6), 3), torch.zeros(4))
    fit([batch] * 2, a.DeleteTokens(0.5), a.InsertTokens(0.5, vocab_size=9))


def test_of_a_group_the_one_at_fault_is_named() -> None:
    insert = a.InsertTokens(0.5, vocab_size=9)
    with pytest.raises(TechniqueError, match=r"^InsertTokens\([^)]*\): tokens hold the id 202"):
        fit([(torch.full((4, 6), 202), torch.zeros(4))], a.DeleteTokens(0.5), insert)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        (torch.tensor([9]), r"\[9\] must be in \[0, 8\]"),
        (torch.tensor([-1]), r"\[-1\] must be in"),
        (torch.tensor([3.5]), r"int64 or int32, not torch.float32"),
        ([6], "not list"),
        (torch.tensor([3]), "leave out tokens that aren't pad_id=0"),
        (torch.tensor([6, 6]), r"shape \(2,\) must be \(1,\)"),
    ],
)
def test_lengths_are_checked(lengths: Any, message: str) -> None:
    tokens = torch.tensor([[3, 4, 5, 3, 4, 5, 0, 0]])
    with pytest.raises((ValueError, TypeError), match=message):
        a.delete_tokens(tokens, 0.5, generator=keyed_generator(0), lengths=lengths)


def test_rates_below_the_step_of_the_draws_are_refused() -> None:
    with pytest.raises(ArgumentError, match=r"rate=1e-06 is below 1/32768"):
        a.DeleteTokens(1e-6)
    with pytest.raises(ArgumentError, match=r"swap_tokens: rate=1e-06 is below"):
        a.swap_tokens(TOKENS, 1e-6, generator=keyed_generator(0))


def test_tables_of_synonyms() -> None:
    technique = a.ReplaceTokens(1.0, synonyms={5: [6]})
    again = a.ReplaceTokens(**{"rate": 1.0, "synonyms": technique.arguments()["synonyms"]})
    assert repr(again) == repr(technique)
    tokens = torch.tensor([[5, 4]])
    assert change(again, (tokens, LABELS[:1]))[0].tolist() == [[6, 4]]
    for synonyms, message in (
        ({0: [5], 2: [6]}, r"padding or protected, \[0, 2\]"),
        ({5: [5]}, "only itself"),
        ({5: [6], "5": [7]}, "has 5 twice"),
    ):
        with pytest.raises(ArgumentError, match=message):
            a.ReplaceTokens(synonyms=synonyms, protected_ids=[2])  # type: ignore[arg-type]
