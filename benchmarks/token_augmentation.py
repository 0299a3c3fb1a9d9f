"""What it costs to edit the tokens of a batch.

``python -m benchmarks.token_augmentation`` measures, for 256 sequences of 64 to 128 tokens between
a [CLS] and a [SEP], padded to 128, a tenth of the tokens edited:

* a loop over sequences as Python lists, written by hand (``benchmarks/token_lists.py``);
* nlpaug's ``RandomWordAug`` on the same sequences as strings of words, without any tokenizing,
  for the edits that it has (with the ``bench`` extra);
* ours, as the callback does it: fields found, values checked, tokens edited, a new batch made;
* the five edits together: in the loop, with one of our callbacks after the other, and in one pass.
"""

import argparse
import random
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks import token_lists as lists
from benchmarks.measuring import interleaved, machine, repeated, table
from lightning_dlopt import augmentation as a
from lightning_dlopt import keyed_generator
from lightning_dlopt.augmentation.token_technique import TokenTechnique

COUNT, LENGTH, SIZE, RATE, KEEP = 256, 128, 30_000, 0.1, 0.9
SPARED: dict[str, Any] = {"protected_ids": (1, 2)}
DRAWN: dict[str, Any] = {**SPARED, "vocab_size": SIZE}


def make_tokens() -> Tensor:
    """Return sequences that begin with 1, end with 2 and are padded with 0."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, SIZE, (COUNT, LENGTH), generator=generator)
    lengths = torch.randint(LENGTH // 2, LENGTH + 1, (COUNT, 1), generator=generator)
    place = torch.arange(LENGTH)
    tokens[:, 0] = 1
    tokens = torch.where(place == lengths - 1, 2, tokens)
    return torch.where(place < lengths, tokens, 0)


def nlpaug(tokens: Tensor, action: str) -> Callable[[], object] | None:
    """Return nlpaug's edit of the same sequences as strings, if it is there and has one."""
    try:
        from nlpaug.augmenter.word import RandomWordAug
    except ImportError:
        return None
    texts = [" ".join(f"w{t}" for t in row if t) for row in tokens.tolist()]
    words = [f"w{token}" for token in range(3, SIZE)]
    editor = RandomWordAug(
        action=action,
        aug_p=RATE,
        aug_max=None,
        stopwords=["w1", "w2"],
        target_words=words if action == "substitute" else None,
    )
    return lambda: editor.augment(texts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    tokens, rng, generator = make_tokens(), random.Random(0), keyed_generator(0)
    batch = (tokens, torch.zeros(COUNT, dtype=torch.long))
    edits: dict[str, tuple[TokenTechnique, lists.Edit, str | None]] = {
        "delete": (a.DeleteTokens(RATE, **SPARED), lists.delete(RATE), "delete"),
        "swap": (a.SwapTokens(RATE, **SPARED), lists.swap(RATE), "swap"),
        "replace": (a.ReplaceTokens(RATE, **DRAWN), lists.replace(RATE, SIZE), "substitute"),
        "insert": (a.InsertTokens(RATE, **DRAWN), lists.insert(RATE, SIZE, LENGTH), None),
        "crop": (a.CropTokens(KEEP, **SPARED), lists.crop(KEEP), "crop"),
    }
    print(f"\n{machine()}; {options.rounds} rounds; median (least - most)")
    for name, (technique, by_hand, action) in edits.items():
        sides: dict[str, Callable[[], float]] = {
            "Python lists": repeated(partial(lists.edited, tokens, [by_hand], rng), 1),
            "ours": repeated(partial(technique.change, batch, generator), 5),
        }
        if action is not None and (rival := nlpaug(tokens, action)) is not None:
            sides["nlpaug, on words"] = repeated(rival, 1)
        print(f"\n{name}\n")
        print(table(interleaved(sides, options.rounds), "Python lists", "ms", 1e3))

    techniques = [technique for technique, _, _ in edits.values()]

    def one_by_one() -> None:
        changed: Any = batch
        for technique in techniques:
            changed = technique.change(changed, generator)

    one_pass = partial(techniques[0].change_together, batch, [(t, generator) for t in techniques])
    by_hand_all = partial(lists.edited, tokens, [by_hand for _, by_hand, _ in edits.values()], rng)
    print("\nfive together\n")
    sides = {
        "Python lists": repeated(by_hand_all, 1),
        "ours, one by one": repeated(one_by_one, 5),
        "ours, in one pass": repeated(one_pass, 5),
    }
    print(table(interleaved(sides, options.rounds), "Python lists", "ms", 1e3))


if __name__ == "__main__":
    main()
