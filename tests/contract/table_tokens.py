"""The rows of the techniques that edit tokens."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_dlopt import augmentation as a
from lightning_dlopt.core import Technique
from lightning_dlopt.core.batch import find_key, get_field, replace_fields
from tests.augmentation import token_lists as slow
from tests.contract.augmented import BY_BATCH, MIXIN, gradients_follow
from tests.contract.input_kinds import PROTECTED, VOCABULARY, as_tokens
from tests.contract.row import Row
from tests.contract.tasks import PLAIN

SPARED = {"protected_ids": PROTECTED}
DRAWN = {**SPARED, "vocab_size": VOCABULARY}

BAD = [
    ("pad_id", {"pad_id": 0.5}),
    ("protected_ids", {"protected_ids": 3}),
    ("protected_ids", {"protected_ids": [-1]}),
    ("padding_side", {"padding_side": "middle"}),
    ("input_key", {"input_key": 1.5}),
    ("mask_key", {"mask_key": 1.5}),
    ("lengths_key", {"lengths_key": True}),
    ("ignore", {"ignore": "labels"}),
]
BAD_RATES = [("rate", {"rate": -0.1}), ("rate", {"rate": 1.5}), ("rate", {"rate": "some"})]
BAD_TABLES = [
    ("vocab_size", {"vocab_size": None}),
    ("vocab_size", {"vocab_size": 0}),
    ("vocab_size", {"vocab_size": 1}),
    ("frequencies", {"frequencies": "many"}),
    ("frequencies", {"frequencies": [0, 1, -2]}),
    ("frequencies", {"frequencies": [[1.0]]}),
    ("frequencies", {"frequencies": [2.0, 0.0]}),
]
BAD_SYNONYMS = [
    ("synonyms", {"synonyms": 7}),
    ("synonyms", {"synonyms": {}}),
    ("synonyms", {"synonyms": {3: [0]}}),
    ("synonyms", {"synonyms": {3: 4}}),
]


def even(count: int, generator: torch.Generator) -> Tensor:
    """Draw from the ids that are neither padding nor protected."""
    return torch.randint(VOCABULARY - 3, (count,), generator=generator) + 3


def row(
    technique: type[Technique],
    arguments: Mapping[str, Any],
    neutral: Mapping[str, Any],
    by_hand: Callable[[Tensor, torch.Generator], Tensor],
    bad: Sequence[tuple[str, Mapping[str, Any]]],
) -> Row:
    def changed(module: Any, batch: Any, generator: torch.Generator) -> Tensor:
        key = find_key(batch, "input")
        edited = by_hand(get_field(batch, key), generator)
        return module.loss(replace_fields(batch, {key: edited}))  # type: ignore[no-any-return]

    return Row(
        technique=technique,
        make=lambda: technique(**arguments),
        neutral=lambda: technique(**{**arguments, **neutral}),
        effect=gradients_follow(technique(**arguments), changed),
        useless=lambda: technique(**{**arguments, **neutral}),
        useless_task=as_tokens(PLAIN),
        rivals=[],
        bad=[*bad, *BAD],
        mixin=MIXIN,
        task=as_tokens(PLAIN),
        adapt=as_tokens,
        differs=BY_BATCH,
    )


TOKEN_ROWS = [
    row(
        a.DeleteTokens,
        {"rate": 0.4, **SPARED},
        {"rate": 0},
        lambda tokens, generator: slow.delete(tokens, 0.4, generator),
        BAD_RATES,
    ),
    row(
        a.SwapTokens,
        {"rate": 0.8, **SPARED},
        {"rate": 0},
        lambda tokens, generator: slow.swap(tokens, 0.8, generator),
        BAD_RATES,
    ),
    row(
        a.CropTokens,
        {"keep": 0.6, **SPARED},
        {"keep": 1},
        lambda tokens, generator: slow.crop(tokens, (0.6, 0.6), generator),
        [
            ("keep", {"keep": 0}),
            ("keep", {"keep": 1.5}),
            ("keep", {"keep": "all"}),
            ("keep", {"keep": [0.9, 0.5]}),
        ],
    ),
    row(
        a.ReplaceTokens,
        {"rate": 0.4, **DRAWN},
        {"rate": 0},
        lambda tokens, generator: slow.replace(tokens, 0.4, even, generator),
        [*BAD_RATES, *BAD_TABLES, *BAD_SYNONYMS],
    ),
    row(
        a.InsertTokens,
        {"rate": 0.4, **DRAWN},
        {"rate": 0},
        lambda tokens, generator: slow.insert(tokens, 0.4, even, generator),
        [*BAD_RATES, *BAD_TABLES],
    ),
]
