"""When to log."""

from lightning.pytorch import Trainer


def is_logging_step(trainer: Trainer) -> bool:
    """Return whether the Trainer writes logged values at the step now under way.

    ``self.log`` costs time at every call; values that are logged for these steps only cost
    nothing at the others.
    """
    every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return every > 0 and (trainer.global_step + 1) % every == 0
