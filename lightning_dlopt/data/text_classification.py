"""Labelled texts from CSV, TSV, JSONL and Parquet files."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_dlopt.core.checks import check_flag, check_integer, check_number, check_text
from lightning_dlopt.core.errors import ArgumentError, ArgumentTypeError
from lightning_dlopt.core.randomness import mix_key
from lightning_dlopt.data.base import ClassificationDataModule, Samples, check_path, check_share
from lightning_dlopt.data.order import split_indices
from lightning_dlopt.data.resumable import ResumableLoader
from lightning_dlopt.data.text_loader import TextLoader
from lightning_dlopt.data.text_samples import Numbers, TextSamples, read_samples
from lightning_dlopt.data.text_sets import set_files
from lightning_dlopt.data.vocabulary import (
    PAD_ID,
    UNKNOWN_ID,
    build_vocabulary,
    sort_names,
    split_words,
)


class TextClassification(ClassificationDataModule):
    """Texts with one label each, from CSV, TSV, JSONL or Parquet files.

    Batches are ``(tokens, targets)``: token ids, int64 ``(B, L)``, filled up on the right with
    ``pad_id`` to the batch's longest text, and int64 ``(B,)``. Words that the vocabulary lacks
    become ``unknown_id``. The vocabulary is that of the training split alone, without what is held
    out, by frequency; classes are the training split's labels, sorted (integers by value). Both
    are kept in checkpoints, and a resumed fit, a test or a prediction from one uses the saved
    ones, whatever the files then hold.

    Training batches hold texts of similar length (``group_by_length``), in random order;
    evaluation goes in the file's order. Rows that can't be used (a wrong number of fields, a
    stray quote, an empty text, no label, invalid JSON, undecodable bytes) are left out, and one
    warning for each file counts them and names the first lines.

    Args:
        path: A file, or a folder with ``train`` and optionally ``val`` (or ``valid``,
            ``validation``, ``dev``) and ``test``, each with the suffix of its format: ``.csv``,
            ``.tsv`` (see ``quoted``), ``.jsonl``, all three also with ``.gz``, or ``.parquet``
            (needs ``pip install 'lightning-dlopt[parquet]'``). A warning names files in it that
            look like a set and aren't used.
        text: The texts' column: its name, or its number from 0 in a CSV or TSV file without a
            header.
        target: The labels' column, likewise. Labels are strings or integers.
        test: How much is held out as the test set if there is no file of it: an integer is a
            number of samples, a float a share in [0, 1).
        vocab_size: Number of token ids at most, those of padding and unknown words included; at
            least 3. A network needs as many.
        min_count: How often a word must occur to have an id, at least 1.
        max_length: Tokens of a text that are used, from its start; at least 1.
        tokenizer: Called with a text, returns a list of strings; None takes lower-case words and
            punctuation marks (:func:`~lightning_dlopt.data.vocabulary.split_words`).
        encoding: The files' encoding.
        quoted: Whether quotes in CSV and TSV files can enclose a field, with ``""`` for a quote
            in it. A row is bad if a quote opens a field and isn't closed where the field ends, or
            if most lines of a field look like rows of their own (as many fields, a known label);
            reading goes on with its second line. With False quotes are characters as any other,
            and every line is a row.
        max_bad: The share of bad rows in a file above which it is refused, in [0, 1].
        group_by_length: Whether training batches hold texts of similar length.
        **kwargs: ``batch_size=32``, ``eval_batch_size=512``, ``validation=0.1``, ``split_seed=0``,
            ``seed=None``, ``drop_last=False``, ``augmentation=()``; see
            :class:`~lightning_dlopt.data.base.ClassificationDataModule`.

    Attributes:
        vocabulary: The words by token id; empty before :meth:`setup`.
        pad_id: The token id of padding, 0.
        unknown_id: The token id of words that the vocabulary lacks, 1.
        test_set: The test samples; a file of them is read when they are first asked for.

    Raises:
        DataError: if a file or column is missing, too many rows are bad, or the validation or test
            set has a label that the training set lacks; one line that names file and lines.
        ArgumentError: if an argument is outside its range, or no word occurs ``min_count`` times.
        CheckpointError: if a checkpoint is of another split, or its place inside an epoch is one
            in another order: that of another file, ``max_length`` or ``tokenizer``.
        ArgumentTypeError: if an argument has the wrong type or isn't known.
    """

    pad_id = PAD_ID
    unknown_id = UNKNOWN_ID

    def __init__(
        self,
        path: str | Path,
        *args: Any,
        text: int | str = "text",
        target: int | str = "label",
        test: int | float = 0.0,
        vocab_size: int = 20_000,
        min_count: int = 1,
        max_length: int = 256,
        tokenizer: Callable[[str], list[str]] | None = None,
        encoding: str = "utf-8",
        quoted: bool = True,
        max_bad: float = 0.1,
        group_by_length: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.path = check_path(self, "path", path)
        self.text = _check_column(self, "text", text)
        self.target = _check_column(self, "target", target)
        if type(self.text) is not type(self.target):
            raise ArgumentError(
                f"TextClassification: text={text!r} and target={target!r} must both be names, or "
                "both numbers of a file without a header"
            )
        if self.text == self.target:
            raise ArgumentError(f"TextClassification: text and target are both {text!r}")
        self.test = check_share(self, "test", test)
        self.vocab_size = check_integer(self, "vocab_size", vocab_size, "[3, inf)")
        self.min_count = check_integer(self, "min_count", min_count, "[1, inf)")
        self.max_length = check_integer(self, "max_length", max_length, "[1, inf)")
        if tokenizer is not None and not callable(tokenizer):
            raise ArgumentTypeError(
                f"TextClassification: tokenizer={tokenizer!r} must be callable with a text"
            )
        self.tokenizer = tokenizer
        self.encoding = check_text(self, "encoding", encoding)
        self.quoted = check_flag(self, "quoted", quoted)
        self.max_bad = check_number(self, "max_bad", max_bad, "[0, 1]")
        self.group_by_length = check_flag(self, "group_by_length", group_by_length)
        self.vocabulary: tuple[str, ...] = ()
        self._words = Numbers()
        self._labels = Numbers()
        self._test_file: Path | None = None

    def read_sets(self) -> dict[str, Samples]:
        """Read the training and validation files, and split off the test set if it has no file."""
        files = set_files(Path(self.path))
        self._test_file = files.pop("test", None)
        read = {name: self._read(path) for name, path in files.items()}
        if self._test_file is None and self.test > 0:
            # Another key than the validation split's, or the two would pick by the same draw.
            key = mix_key(self.split_seed, 1)
            stay, held_out = split_indices(len(read["train"]), self.test, key)
            read["test"] = read["train"].select(held_out)
            read["train"] = read["train"].select(stay)
        return {**read}

    def _read(self, path: Path) -> TextSamples:
        return read_samples(
            path,
            self._words,
            self._labels,
            text=self.text,
            target=self.target,
            encoding=self.encoding,
            quoted=self.quoted,
            tokenizer=self.tokenizer or split_words,
            max_length=self.max_length,
            max_bad=self.max_bad,
        )

    def setup(self, stage: str | None = None) -> None:
        """Read the data, split it, and number the training split's words and classes.

        A test file is read for the stages ``"test"`` and ``"predict"`` only.

        Raises:
            DataError: if the data is missing or damaged, or nothing is left to train on.
            ArgumentError: if no word occurs ``min_count`` times.
        """
        super().setup(stage)
        # a vocabulary that is there was restored before
        if not self.vocabulary:
            self._number()
        if stage in ("test", "predict"):
            self._read_test_file()

    def _number(self) -> None:
        train: Any = self.train_set
        counts = train.word_counts()
        self.vocabulary = build_vocabulary(counts, self.vocab_size, self.min_count)
        if len(self.vocabulary) <= UNKNOWN_ID + 1 and self.min_count > 1:
            raise ArgumentError(
                f"TextClassification: min_count={self.min_count}: no word of the training set "
                f"occurs as often; the most frequent one {max(counts.values())} times"
            )
        self.classes = sort_names(train.class_names())
        if len(self.classes) == 1:
            warnings.warn(
                f"{self.path}: all texts of the training set have the label {self.classes[0]!r}",
                UserWarning,
                stacklevel=2,
            )

    def _read_test_file(self) -> None:
        if self.test_set is None and self._test_file is not None:
            self.test_set = self._read(self._test_file)

    def _set(self, name: str) -> Samples:
        if name == "test":
            self.setup("test")  # reads the file
        return super()._set(name)

    def make_loader(self, samples: Any, training: bool, **order: Any) -> ResumableLoader[Any]:
        """Return a loader of the samples, in token ids of the vocabulary that is in force now."""
        tokens, targets = self._encode(samples)
        return TextLoader(
            tokens, samples.offsets, targets, group_by_length=self.group_by_length, **order
        )

    def _encode(self, samples: Any) -> tuple[Tensor, Tensor]:
        """Return the token ids of all texts, and the targets."""
        train: Any = self.train_set
        owner, hint = "training set", ""
        if not train.class_names() <= set(self.classes):
            owner = "checkpoint"
        elif samples is not train and samples.path == train.path:
            hint = (
                "; the random split left none of its texts to train on: hold out fewer, change "
                "split_seed, or give each set its own file"
            )
        return self._token_ids(samples)[samples.text], samples.targets(self.classes, owner, hint)

    def _token_ids(self, samples: TextSamples) -> Tensor:
        ids = {word: index for index, word in enumerate(self.vocabulary)}
        # a word in the text that is called like one of the special ones isn't one of them
        ids.update(dict.fromkeys(self.vocabulary[: UNKNOWN_ID + 1], UNKNOWN_ID))
        known = [ids.get(word, UNKNOWN_ID) for word in samples.words]
        return torch.tensor(known, dtype=torch.int32)

    def state_dict(self) -> dict[str, Any]:
        """Return the base's state, the vocabulary and the classes."""
        state = super().state_dict()
        if self.vocabulary:
            state |= {"vocabulary": list(self.vocabulary), "classes": list(self.classes)}
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the base's state, the vocabulary and the classes."""
        if "vocabulary" in state_dict:
            self.vocabulary = tuple(state_dict["vocabulary"])
            self.classes = tuple(state_dict["classes"])
        super().load_state_dict(state_dict)

    def _restore(self, loader: Any) -> None:
        loader.tokens, loader.targets = self._encode(self.train_set)
        super()._restore(loader)


def _check_column(owner: object, name: str, value: int | str) -> int | str:
    if isinstance(value, int):
        return check_integer(owner, name, value, "[0, inf)")
    return check_text(owner, name, value)
