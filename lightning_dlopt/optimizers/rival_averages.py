"""Lightning's callbacks that average weights, beside which ours can't stand."""

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging

from lightning_dlopt.core.errors import ConflictError
from lightning_dlopt.core.technique import Technique


def refuse_lightnings_averages(technique: Technique, trainer: Trainer) -> None:
    """Raise a ConflictError if Lightning averages the weights, too."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, WeightAveraging | StochasticWeightAveraging):
            raise ConflictError(
                f"{technique!r} and {type(callback).__name__} would both average the weights: "
                "keep one of them"
            )
