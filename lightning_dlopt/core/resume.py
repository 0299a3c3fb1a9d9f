"""What a checkpoint tells of the techniques it was made with."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lightning_dlopt.core.errors import CheckpointError

if TYPE_CHECKING:
    from lightning_dlopt.core.technique import Technique


@dataclass(frozen=True)
class SavedTechnique:
    """A technique's entry in a checkpoint."""

    name: str
    exclusive: str | None
    required: bool


def saved_techniques(checkpoint: Mapping[str, Any]) -> list[SavedTechnique]:
    """Return the techniques whose state ``checkpoint`` holds."""
    return [
        SavedTechnique(state["technique"], state["exclusive"], state["required"])
        for state in checkpoint.get("callbacks", {}).values()
        if isinstance(state, Mapping) and "technique" in state
    ]


def check_all_present(saved: list[SavedTechnique], present: "list[Technique]") -> None:
    """Raise a CheckpointError for a technique that the run needs and hasn't got.

    Args:
        saved: the checkpoint's techniques.
        present: this run's techniques. Whether one of them may take over from a saved one of the
            same exclusive kind is its own to say.
    """
    names = {technique.state_key for technique in present}
    claimed = {technique.exclusive for technique in present} - {None}
    for technique in saved:
        if (
            technique.required
            and technique.name not in names
            and technique.exclusive not in claimed
        ):
            raise CheckpointError(
                f"the checkpoint was saved with {technique.name}, which this run lacks: "
                "add it to the Trainer's callbacks (or to the module) to resume"
            )
