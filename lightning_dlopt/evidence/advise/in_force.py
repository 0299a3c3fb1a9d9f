"""Which of a run's callbacks are in force in the short runs of probes."""

from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import (
    Checkpoint,
    LearningRateMonitor,
    ModelSummary,
    ProgressBar,
)

from lightning_dlopt.core.mixin import TechniqueMixin
from lightning_dlopt.core.technique import Technique
from lightning_dlopt.schedules import Schedule
from lightning_dlopt.structure import ChannelPruning, MagnitudePruning

#: Techniques that belong to a whole run and mean nothing in a short one.
_OF_WHOLE_RUNS = (Schedule, ChannelPruning, MagnitudePruning)

#: Callbacks that change nothing in training, and so aren't missed.
WITHOUT_EFFECT = (Checkpoint, ModelSummary, ProgressBar, LearningRateMonitor)


def in_short_runs(callback: Callback, plain: bool = False) -> bool:
    """Return whether a callback is in force; in a plain run none that augments or regularizes."""
    if not isinstance(callback, Technique) or isinstance(callback, _OF_WHOLE_RUNS):
        return False
    family = type(callback).__module__.removeprefix("lightning_dlopt.").split(".")[0]
    return not (plain and family in ("regularization", "augmentation"))


def keep_techniques(data: Any, plain: bool) -> None:
    """Take from a DataModule the techniques that it would bring and short runs don't have."""
    if isinstance(data, TechniqueMixin):
        own = data._own_techniques
        data._own_techniques = [one for one in own if in_short_runs(one, plain)]
