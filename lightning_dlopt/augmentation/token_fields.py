"""Where a batch has its tokens, their mask and their lengths."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lightning_dlopt.augmentation.tokens import Sequences, any_in_row, check_tokens, differ
from lightning_dlopt.core.batch import Key, fields_of, find_key, get_tensor
from lightning_dlopt.core.checks import owner_name
from lightning_dlopt.core.errors import ArgumentError

if TYPE_CHECKING:
    from lightning_dlopt.augmentation.token_technique import TokenTechnique

TOKEN_NAMES = ("input_ids", "tokens", "token_ids")
MASK_NAMES = ("attention_mask", "mask")
LENGTHS_NAMES = ("lengths", "length")


@dataclass(frozen=True)
class TokenFields:
    """The fields of a batch that an edit of its tokens changes.

    Attributes:
        key: where the tokens are.
        tokens: ``(B, L)``.
        mask_key: where the mask is, if there is one.
        given_mask: ``(B, L)``, as the batch has it.
        lengths_key: where the lengths are, if there are some.
        given_lengths: ``(B,)``, as the batch has them.
        further: those that stay as they are, if they could go out of line.
    """

    key: Key
    tokens: Tensor
    mask_key: Key | None
    given_mask: Tensor | None
    lengths_key: Key | None
    given_lengths: Tensor | None
    further: dict[Key, Any]

    @property
    def mask(self) -> Tensor | None:
        """The mask on the tokens' device."""
        return None if self.given_mask is None else self.given_mask.to(self.tokens.device)

    @property
    def lengths(self) -> Tensor | None:
        """The lengths on the tokens' device."""
        if self.given_lengths is None:
            return None
        return self.given_lengths.to(self.tokens.device).long()

    def check(self, owner: object, sequences: Sequences) -> None:
        """Raise an ArgumentError if mask, lengths and padding contradict each other.

        It looks at the values, for which a GPU must be waited for.
        """
        if self.mask is None and self.lengths is None:
            return
        said = sequences.real
        if any_in_row(differ(sequences.tokens, sequences.pad_id) & ~said).any():
            by = f"the mask at {self.mask_key!r}" if self.mask is not None else "the lengths"
            raise ArgumentError(
                f"{owner_name(owner)}: {by} must be true at tokens, but leave out some that aren't "
                f"pad_id={sequences.pad_id}"
            )
        if self.lengths is not None and not said.sum(1).equal(self.lengths):
            raise ArgumentError(
                f"{owner_name(owner)}: the lengths at {self.lengths_key!r} aren't the numbers of "
                "tokens, or are above the length of the batch"
            )

    def changes(
        self, sequences: Sequences, turned: Callable[[Tensor], Tensor]
    ) -> dict[Key, Tensor]:
        """Return the new fields."""
        changes = {self.key: turned(sequences.tokens)}
        if self.mask_key is not None and self.given_mask is not None:
            changes[self.mask_key] = turned(sequences.real).to(self.given_mask)
        if self.lengths_key is not None and self.given_lengths is not None:
            changes[self.lengths_key] = sequences.lengths.to(self.given_lengths)
        return changes


def find_fields(owner: "TokenTechnique", batch: Any, keeps_places: bool) -> TokenFields:
    """Return where a batch has its tokens, or raise what says why that can't be told.

    Args:
        owner: whose arguments say where.
        batch: of any form.
        keeps_places: whether no field with one entry for each token can go out of line.

    Raises:
        TechniqueError: if a field isn't there, or is no tensor.
        ArgumentError: for fields of a wrong shape, or a further one of the tokens' shape.
    """
    key = find_key(batch, "input", owner.input_key, owner, first=TOKEN_NAMES)
    tokens = check_tokens(owner, get_tensor(batch, "input", key, owner))
    fields = fields_of(batch)
    given = (_place(batch, fields, one) for one in (owner.mask_key, owner.lengths_key))
    # what may not be kept right must not have a usual name, unless nothing moves
    usual = {
        name: one
        for name, one in fields.items()
        if name not in owner.ignore and one is not None
        if not keeps_places or isinstance(one, Tensor)
    }
    mask_key = _find(owner, "mask_key", next(given), fields, MASK_NAMES, usual)
    lengths_key = _find(owner, "lengths_key", next(given), fields, LENGTHS_NAMES, usual)
    for name, where, shape in (
        ("mask_key", mask_key, tokens.shape),
        ("lengths_key", lengths_key, tokens.shape[:1]),
    ):
        if where is not None and getattr(fields[where], "shape", None) != shape:
            raise ArgumentError(
                f"{owner_name(owner)}: {name}={where!r} must be a tensor of shape {tuple(shape)}"
            )
    further: dict[Key, Any] = {}
    if not keeps_places:
        known = {_place(batch, fields, one) for one in (key, mask_key, lengths_key, *owner.ignore)}
        further = {where: value for where, value in fields.items() if where not in known}
        owner.watch.check_shapes(further, tokens)
    mask = None if mask_key is None else fields[mask_key]
    lengths = None if lengths_key is None else fields[lengths_key]
    return TokenFields(key, tokens, mask_key, mask, lengths_key, lengths, further)


def _place(batch: Any, fields: dict[Key, Any], key: Key | None) -> Key | None:
    """Return a position as it stands in ``fields``: from the front, or as a name."""
    if isinstance(key, int) and isinstance(batch, tuple | list):
        return list(fields)[key] if -len(fields) <= key < len(fields) else key
    return key


def _find(
    owner: object,
    name: str,
    key: Key | None,
    fields: dict[Key, Any],
    names: tuple[str, ...],
    usual: dict[Key, Any],
) -> Key | None:
    if key == "auto":
        return next((one for one in names if one in usual), None)
    if key is not None and key not in fields:
        raise ArgumentError(
            f"{owner_name(owner)}: {name}={key!r} isn't among the batch's fields, "
            + ", ".join(map(repr, fields))
        )
    return key
