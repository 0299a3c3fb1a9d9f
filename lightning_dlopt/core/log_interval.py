"""When to log."""

from lightning.pytorch import Trainer


def is_logging_step(trainer: Trainer) -> bool:
    """Return whether the Trainer writes logged values at the step now under way.

    ``self.log`` costs time at every call; values that are logged for these steps only cost
    nothing at the others.
    """
    every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    # under manual optimization the Trainer counts batches here; global_step counts every optimizer
    automatic = trainer.lightning_module.automatic_optimization
    step = trainer.global_step if automatic else trainer.fit_loop.total_batch_idx
    return every > 0 and (step + 1) % every == 0
