"""The base of techniques that edit padded sequences of tokens."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_dlopt.augmentation.field_watch import FieldWatch
from lightning_dlopt.augmentation.token_fields import find_fields
from lightning_dlopt.augmentation.tokens import Sequences, check_sequences
from lightning_dlopt.core.batch import Key, check_key, replace_fields
from lightning_dlopt.core.batch_technique import BatchTechnique, RunStep
from lightning_dlopt.core.checks import check_choice, check_integer, owner_name
from lightning_dlopt.core.errors import ArgumentError, ArgumentTypeError
from lightning_dlopt.core.technique import techniques_of


class TokenTechnique(BatchTechnique):
    """Edits the tokens of a batch: integers ``(B, L)``, padded to one length.

    The attention mask and the lengths, if the batch has them, are made anew to fit. A batch that
    has more fields with one entry for each token (token types, labels of tokens) is refused, since
    they would go out of line: by its shape in the first batch, floating-point targets ``(B, C)``
    aside. So are positions of answers (``start_positions``), and, on the CPU, numbers of tokens
    that nobody named. Several such techniques that are neighbors in the list of callbacks
    do their edits in one pass over the batch, in their order, with the result of one after the
    other.

    Tokens are what the mask says, or else the lengths, or else what isn't ``pad_id``. Padding
    between tokens is refused. Values are checked in every batch on the CPU, and in the first one
    elsewhere, where it would mean to wait.

    Arguments that all of them have:
        pad_id: the id of padding.
        protected_ids: ids of special tokens, which are left alone and never drawn. A protected
            token that is the first, or the last before the padding, stays it under every edit.
        padding_side: where the padding is, ``"right"`` or ``"left"``.
        input_key: where the tokens are in the batch; in batches with names by default at
            ``input_ids``, ``tokens`` or ``token_ids``, or else at the usual names of an input.
        mask_key: where the attention mask ``(B, L)`` is, true or 1 at tokens; ``"auto"`` is
            ``attention_mask`` or ``mask``, if the batch has it.
        lengths_key: where the numbers of tokens ``(B,)`` are; ``"auto"`` is ``lengths`` or
            ``length``, if the batch has it.
        ignore: keys of further fields ``(B, L)`` that may go out of line.
    """

    #: Whether each token stays where it is, so that nothing can go out of line.
    keeps_places: ClassVar[bool] = False

    _follows: bool = False
    _group: tuple["TokenTechnique", ...] = ()
    _checked: bool = False
    _acts: bool = False
    _hindrance: str | None = None

    pad_id: int
    protected_ids: tuple[int, ...]
    padding_side: str
    input_key: Key | None
    mask_key: Key | None
    lengths_key: Key | None
    ignore: tuple[Key, ...]

    @abstractmethod
    def edit(self, sequences: Sequences, generator: torch.Generator) -> Sequences:
        """Return the edited sequences; those that are given stay as they are."""

    def check_values(self, sequences: Sequences) -> None:
        """Raise an ArgumentError for tokens that this technique can't edit."""

    def hindrance(self, sequences: Sequences) -> str | None:
        """Return why this technique can't change these sequences, or None if it can."""
        if bool(sequences.editable.any()):
            return None
        return "no token may be edited: all are padding or protected"

    def set_tokens(
        self,
        pad_id: int,
        protected_ids: Sequence[int],
        padding_side: str,
        input_key: Key | None,
        mask_key: Key | None,
        lengths_key: Key | None,
        ignore: Sequence[Key],
    ) -> None:
        """Check and keep the arguments that all of these techniques have."""
        self.pad_id = check_integer(self, "pad_id", pad_id, "(-inf, inf)")
        for name, value in (("protected_ids", protected_ids), ("ignore", ignore)):
            if not isinstance(value, Sequence) or isinstance(value, str):
                raise ArgumentTypeError(f"{owner_name(self)}: {name}={value!r} must be a list")
        self.protected_ids = tuple(
            check_integer(self, "protected_ids", one, "[0, inf)") for one in protected_ids
        )
        self.padding_side = check_choice(self, "padding_side", padding_side, ("right", "left"))
        self.input_key = check_key(self, "input_key", input_key)
        self.mask_key = check_key(self, "mask_key", mask_key)
        self.lengths_key = check_key(self, "lengths_key", lengths_key)
        if any(check_key(self, "ignore", one) is None for one in ignore):
            raise ArgumentError(f"{owner_name(self)}: ignore={ignore!r} must hold keys")
        self.ignore = tuple(ignore)
        self.watch = FieldWatch()

    @property
    def spared(self) -> tuple[int, ...]:
        """Return the ids that are never drawn."""
        return (self.pad_id, *self.protected_ids)

    def change(self, batch: Any, generator: torch.Generator) -> Any:
        """Return the batch with this technique's edit."""
        return self.change_together(batch, [(self, generator)])

    def change_together(
        self, batch: Any, edits: Sequence[tuple["TokenTechnique", torch.Generator]]
    ) -> Any:
        """Return the batch with the edits of several techniques that read it as this one does."""
        left = self.padding_side == "left"

        def turned(tensor: Tensor) -> Tensor:
            return tensor.flip(1) if left else tensor

        fields = find_fields(self, batch, all(one.keeps_places for one, _ in edits))
        real = None if fields.mask is None else turned(fields.mask.bool())
        sequences = Sequences(
            turned(fields.tokens), self.pad_id, self.protected_ids, real, fields.lengths
        )
        if not self._checked or fields.tokens.device.type == "cpu":
            fields.check(self, sequences)
            if sequences.tokens.device.type == "cpu":
                self.watch.check_values(fields.further, sequences, turned)
            check_sequences(self, sequences)
            for one, _ in edits:
                try:
                    one.check_values(sequences)
                except ArgumentError as error:
                    raise one.refused(error) from error
            self._checked = True
        for one, generator in edits:
            if not one._acts and sequences.tokens.device.type == "cpu":
                one._hindrance = one.hindrance(sequences)
                one._acts = one._hindrance is None
            sequences = one.edit(sequences, generator)
        return replace_fields(batch, fields.changes(sequences, turned))

    # ---- one pass for neighbors ----

    def prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go around the training step, and find the neighbors whose edits go with this one's."""
        super().prepare(trainer, pl_module)
        self._group, self._follows, self._checked = (self,), False, False
        self._acts, self._hindrance, self.watch = False, None, FieldWatch()
        if not self._is_active:
            return
        line = [
            one
            for one in techniques_of(trainer)
            if isinstance(one, BatchTechnique)
            and one.level == self.level
            and (one is self or one.neutral() is None)
        ]
        place = next(i for i, one in enumerate(line) if one is self)
        self._follows = place > 0 and self._goes_with(line[place - 1])
        group = [self]
        for one in line[place + 1 :]:
            if not isinstance(one, TokenTechnique) or not self._goes_with(one):
                break
            group.append(one)
        self._group = tuple(group)

    def step(self, trainer: Trainer, pl_module: LightningModule, run: RunStep, batch: Any) -> Any:
        """Run the training step on a batch with the edits of this one and its neighbors."""
        if self._follows:
            return run(batch)  # the first of the neighbors has done this one's edit, too

        edits = [(one, one.generator(trainer)) for one in self._group]
        try:
            changed = self.change_together(batch, edits)
        except (ArgumentError, ArgumentTypeError) as error:
            raise self.refused(error) from error
        return run(changed)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say so if nothing could be done in the first epoch; on a GPU it would mean to wait."""
        super().on_train_epoch_end(trainer, pl_module)
        if not self._acts and self._hindrance is not None:
            self.warn_no_effect(f"in the first epoch, {self._hindrance}")
        self._acts = True  # enough is known

    def let_go(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the neighbors."""
        super().let_go(trainer, pl_module)
        self._group = ()

    def _goes_with(self, other: BatchTechnique) -> bool:
        return isinstance(other, TokenTechnique) and self._reading() == other._reading()

    def _reading(self) -> tuple[Any, ...]:
        return (
            *(self.pad_id, self.protected_ids, self.padding_side),
            *(self.input_key, self.mask_key, self.lengths_key, self.ignore),
        )
