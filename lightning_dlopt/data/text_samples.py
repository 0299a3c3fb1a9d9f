"""Texts in memory: words interned to numbers, bad rows left out and reported."""

import warnings
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from lightning_dlopt.core.errors import ArgumentTypeError, DataError
from lightning_dlopt.data.delimited import STRAY_QUOTE
from lightning_dlopt.data.text_files import UNDECODABLE, Row, file_format, read_rows

Tokenizer: TypeAlias = Callable[[str], Sequence[str]]

#: How many bad rows a message names.
_NAMED = 5


class Numbers(dict[str, int]):
    """Gives every string that it is asked for a number, from 0 in the order of asking."""

    def __missing__(self, name: str) -> int:
        number = self[name] = len(self)
        return number


@dataclass(frozen=True)
class TextSamples:
    """Texts as numbers of ``words``, all in a row, and labels as numbers of ``labels``.

    These are the numbers of reading, not the token ids and targets that a network sees: those come
    from the training set's vocabulary, or a checkpoint's, when a loader is made.
    """

    path: Path
    words: Numbers
    labels: Numbers
    text: Tensor
    offsets: Tensor
    label: Tensor
    lines: Tensor

    def __len__(self) -> int:
        return len(self.label)

    def select(self, indices: Tensor) -> "TextSamples":
        """Return the samples at ``indices``, an int64 tensor of shape ``(n,)``."""
        lengths = self.offsets.diff()[indices]
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        shift = (self.offsets[indices] - offsets[:-1]).repeat_interleave(lengths)
        return replace(
            self,
            text=self.text[torch.arange(int(offsets[-1])) + shift],
            offsets=offsets,
            label=self.label[indices],
            lines=self.lines[indices],
        )

    def word_counts(self) -> dict[str, int]:
        """Return how often each word occurs in these samples."""
        counts = torch.bincount(self.text, minlength=len(self.words)).tolist()
        return {word: counts[number] for word, number in self.words.items() if counts[number]}

    def class_names(self) -> set[str]:
        """Return the labels that occur in these samples."""
        there = set(self.label.tolist())
        return {name for name, number in self.labels.items() if number in there}

    def targets(
        self, classes: Sequence[str], owner: str = "training set", hint: str = ""
    ) -> Tensor:
        """Return the labels as positions in ``classes``, int64 of shape ``(N,)``.

        Args:
            classes: names, by target.
            owner: whose classes they are.
            hint: what the error's message ends with.

        Raises:
            DataError: if a label is none of them.
        """
        position = {name: index for index, name in enumerate(classes)}
        table = torch.tensor([position.get(name, -1) for name in self.labels])
        targets = table[self.label]
        unknown = (targets < 0).nonzero().flatten()
        if len(unknown):
            first = int(unknown[0])
            name = list(self.labels)[int(self.label[first])]
            raise DataError(
                f"{self.path}: line {int(self.lines[first])}: the {owner} has no class "
                f"{name!r}{hint}"
            )
        return targets


def read_samples(
    path: Path,
    words: Numbers,
    labels: Numbers,
    *,
    text: int | str,
    target: int | str,
    encoding: str,
    quoted: bool,
    tokenizer: Tokenizer,
    max_length: int,
    max_bad: float,
) -> TextSamples:
    """Read a file; ``words`` and ``labels`` get numbers for what is new to them.

    Raises:
        DataError: if the file can't be read, holds no sample, or more than ``max_bad`` of its rows
            are bad.
    """
    # unlike lists of Python's integers these hold four or eight bytes for each
    numbers, ends, label, lines = array("i"), array("q", [0]), array("q"), array("q")
    bad: list[Row] = []
    for row in read_rows(path, text, target, encoding, quoted):
        if not row.bad:
            tokens = tokenizer(row.text)
            if not isinstance(tokens, list | tuple) or not all(isinstance(t, str) for t in tokens):
                raise ArgumentTypeError(
                    f"tokenizer={tokenizer!r} must make a list of strings of a text, not "
                    f"{tokens!r:.80}"
                )
            if tokens:
                numbers.extend([words[token] for token in tokens[:max_length]])
                ends.append(len(numbers))
                label.append(labels[row.label])
                lines.append(row.line)
                continue
            row = row._replace(bad="the tokenizer finds no token")
        bad.append(row)
    _report(path, bad, len(label), max_bad, encoding)
    if not len(label):
        raise DataError(f"{path}: there are no samples in it")
    return TextSamples(
        path,
        words,
        labels,
        *(torch.from_numpy(np.array(part)) for part in (numbers, ends, label, lines)),
    )


def _report(path: Path, bad: list[Row], good: int, max_bad: float, encoding: str) -> None:
    if not bad:
        return
    named = ", ".join(f"line {row.line} ({row.bad})" for row in bad[:_NAMED])
    more = f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
    found = f"{path}: {len(bad)} of {good + len(bad)} rows are bad: {named}{more}"
    refused = not good or len(bad) > max_bad * (good + len(bad))
    found += f"; at most {max_bad=:g} of them may be" if refused else "; they are left out"
    reasons = {row.bad for row in bad}
    if STRAY_QUOTE in reasons:
        found += "; if quotes enclose nothing in this file, give quoted=False"
    if UNDECODABLE in reasons and file_format(path) != ".parquet":
        found += f"; is {encoding=} right?"
    if refused:
        raise DataError(found)
    warnings.warn(found, UserWarning, stacklevel=2)
