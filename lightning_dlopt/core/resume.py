"""What a checkpoint tells of the techniques it was made with."""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

from lightning_dlopt.core.errors import CheckpointError


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


def check_all_present(saved: list[SavedTechnique], present: Set[str], claimed: Set[str]) -> None:
    """Raise a CheckpointError for a technique that the run needs and hasn't got.

    Args:
        saved: the checkpoint's techniques.
        present: the names of this run's techniques.
        claimed: the exclusive kinds that this run's techniques stand for; whether one of them may
            take over from the saved one is its own to say.
    """
    for technique in saved:
        if (
            technique.required
            and technique.name not in present
            and technique.exclusive not in claimed
        ):
            raise CheckpointError(
                f"the checkpoint was saved with {technique.name}, which this run lacks: "
                "add it to the Trainer's callbacks (or to the module) to resume"
            )
