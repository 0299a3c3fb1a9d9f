"""Where the tokens are in a batch, what is kept right beside them, and several techniques."""

from collections import UserDict
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from torch import Tensor

from lightning_dlopt import augmentation as a
from lightning_dlopt.augmentation.token_technique import TokenTechnique
from lightning_dlopt.core import TechniqueError, keyed_generator
from tests.contract.input_kinds import LENGTH, PROTECTED, VOCABULARY, as_tokens, tokens
from tests.contract.tasks import PLAIN
from tests.quiet import QUIET

SPARED: dict[str, Any] = {"protected_ids": PROTECTED}
DRAWN: dict[str, Any] = {**SPARED, "vocab_size": VOCABULARY}
TOKENS = tokens(keyed_generator(0))
MASK, LENGTHS, LABELS = TOKENS != 0, (TOKENS != 0).sum(1), torch.arange(len(TOKENS))


def five(**more: Any) -> list[TokenTechnique]:
    return [
        a.CropTokens(0.8, **SPARED, **more),
        a.DeleteTokens(0.3, **SPARED, **more),
        a.InsertTokens(0.3, **DRAWN, **more),
        a.SwapTokens(0.5, **SPARED, **more),
        a.ReplaceTokens(0.3, **DRAWN, **more),
    ]


EVERY = pytest.mark.parametrize("technique", five(), ids=lambda one: type(one).__name__)


def change(technique: TokenTechnique, batch: Any, seed: int = 3) -> Any:
    return technique.changed(batch, keyed_generator(seed))


@EVERY
@pytest.mark.parametrize("kind", [torch.bool, torch.int64, torch.float32])
def test_mask_and_lengths_are_kept_right(technique: TokenTechnique, kind: torch.dtype) -> None:
    batch = {
        "input_ids": TOKENS,
        "attention_mask": MASK.to(kind),
        "lengths": LENGTHS.int(),
        "labels": LABELS,
        "text": ["a"] * len(TOKENS),
    }
    before = dict(batch)
    changed = change(technique, batch)
    real = changed["input_ids"] != 0
    assert torch.equal(changed["input_ids"], change(technique, (TOKENS, LABELS))[0])
    assert torch.equal(changed["attention_mask"], real.to(kind))
    assert changed["attention_mask"].dtype == kind
    assert torch.equal(changed["lengths"], real.sum(1).int())
    assert changed["lengths"].dtype == torch.int32
    assert changed["labels"] is LABELS
    assert all(batch[key] is value for key, value in before.items())
    assert type(change(technique, UserDict(batch))) is UserDict


@EVERY
def test_padding_on_the_left_mirrors(technique: TokenTechnique) -> None:
    arguments = {**vars(technique)}
    names = [name for name in technique.arguments() if name in arguments]
    mirrored = type(technique)(
        **{**{name: arguments[name] for name in names}, "padding_side": "left"}
    )
    batch = {"tokens": TOKENS.flip(1), "mask": MASK.flip(1), "length": LENGTHS}
    right = change(technique, {"tokens": TOKENS, "mask": MASK, "length": LENGTHS})
    left = change(mirrored, batch)
    assert torch.equal(left["tokens"], right["tokens"].flip(1))
    assert torch.equal(left["mask"], right["mask"].flip(1))
    assert torch.equal(left["length"], right["length"])


def test_fields_are_where_the_user_says() -> None:
    technique = a.DeleteTokens(0.5, input_key=-2, mask_key=-1, lengths_key=0, **SPARED)
    lengths, edited, mask = change(technique, (LENGTHS, TOKENS, MASK))
    assert torch.equal(lengths, (edited != 0).sum(1))
    assert torch.equal(mask, edited != 0)
    alone = a.DeleteTokens(0.5, mask_key=None, ignore=["mask"], **SPARED)
    assert change(alone, {"tokens": TOKENS, "mask": MASK})["mask"] is MASK


@pytest.mark.parametrize(
    ("batch", "arguments", "message"),
    [
        ({"tokens": TOKENS, "tags": TOKENS}, {}, r"at 'tags'.*say ignore=\['tags'\]"),
        ((TOKENS, TOKENS.clone()), {}, r"at 1 a tensor of shape \(48, 9\)"),
        ({"tokens": TOKENS, "y": torch.zeros(48, 9, 2)}, {}, r"\(48, 9, 2\), one entry for each"),
        ({"tokens": TOKENS, "mask": ~MASK}, {}, r"mask at 'mask' must be true at tokens"),
        ({"tokens": TOKENS, "mask": MASK[:, 1:]}, {}, r"mask_key='mask' must be a tensor of shape"),
        ({"tokens": TOKENS, "lengths": LENGTHS + 9}, {}, r"lengths at 'lengths' aren't the"),
        ({"tokens": TOKENS}, {"mask_key": "seen"}, r"mask_key='seen' isn't among.*'tokens'"),
        ({"tokens": TOKENS, "input_ids": TOKENS}, {}, r"its input isn't clear"),
        ({"tokens": TOKENS.flip(1)}, {}, r"padding_side='left'"),
        ({"tokens": TOKENS.float()}, {}, r"must be int64 or int32"),
    ],
)
def test_what_can_not_be_kept_right_is_refused(
    batch: Any, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(TechniqueError, match=message):
        change(a.DeleteTokens(0.5, **arguments), batch)


def test_labels_of_tokens_stay_in_line_with_replaced_ones() -> None:
    tags = TOKENS.clone()
    changed = change(a.ReplaceTokens(0.5, **DRAWN), {"tokens": TOKENS, "tags": tags})
    assert changed["tags"] is tags
    ignored = a.SwapTokens(0.5, ignore=["tags"], **SPARED)
    assert change(ignored, {"tokens": TOKENS, "tags": tags})["tags"] is tags


@pytest.mark.parametrize("kind", [a.InsertTokens, a.ReplaceTokens])
def test_ids_beyond_the_vocabulary_are_refused(kind: Any) -> None:
    with pytest.raises(TechniqueError, match=r"the id 19, and the vocabulary has 12"):
        change(kind(0.5, vocab_size=12), (TOKENS, LABELS))


def test_long_tables_leave_a_checksum() -> None:
    weights = torch.arange(1000.0)
    techniques = [a.InsertTokens(0.1, frequencies=given) for given in (weights, weights.tolist())]
    assert techniques[0].state_key == techniques[1].state_key
    assert "1000 entries, checksum" in techniques[0].state_key
    assert techniques[0].state_key != a.InsertTokens(0.1, frequencies=weights + 1).state_key
    assert a.ReplaceTokens(synonyms={3: [4]}).arguments()["synonyms"] == {"3": [4]}


class Sees(Callback):
    """Keeps the batches that the module gets, and what the loader gave."""

    def __init__(self) -> None:
        self.given: list[Tensor] = []
        self.seen: list[Tensor] = []

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        unpack = pl_module.unpack
        pl_module.unpack = lambda batch: (self.seen.append(batch[0]), unpack(batch))[1]

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, *_: Any) -> None:
        self.given.append(batch[0])


def fit(techniques: list[Any]) -> tuple[Sees, dict[str, Tensor]]:
    task, sees = as_tokens(PLAIN), Sees()
    seed_everything(1, verbose=False)
    module = task.module()
    trainer = Trainer(**QUIET, max_epochs=2, callbacks=[*techniques, sees])
    trainer.fit(module, task.loader(train=True))
    return sees, module.state_dict()


def test_neighbors_do_in_one_pass_what_they_do_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passes = []
    together = TokenTechnique.change_together

    def counted(self: Any, *arguments: Any) -> Any:
        passes.append(type(self).__name__)
        return together(self, *arguments)

    monkeypatch.setattr(TokenTechnique, "change_together", counted)
    sees, weights = fit([*five()[:2], a.SwapTokens(0.0), *five()[2:]])
    assert set(passes) == {"CropTokens"}
    assert len(passes) == len(sees.seen) == len(sees.given) == 12
    monkeypatch.setattr(TokenTechnique, "_goes_with", lambda *_: False)
    passes.clear()
    apart, same = fit(five())
    assert len(passes) == 5 * 12
    assert all(torch.equal(x, y) for x, y in zip(sees.seen, apart.seen, strict=True))
    assert all(torch.equal(weights[name], same[name]) for name in same)
    assert all(x.shape[1] == LENGTH for x in sees.seen)
    assert not any(torch.equal(x, y) for x, y in zip(sees.seen, sees.given, strict=True))


def test_techniques_that_read_the_batch_in_other_ways_work_one_by_one() -> None:
    other = a.DeleteTokens(0.3, protected_ids=[1, 2, 3])
    first, last = a.SwapTokens(0.5, **SPARED), a.CropTokens(0.8, **SPARED)
    sees, _ = fit([first, other, last])
    for seen in sees.seen:
        assert all((row == 2).sum() == 1 for row in seen)
    assert [len(one._group) for one in (first, other, last)] == [0, 0, 0]  # and they let go
