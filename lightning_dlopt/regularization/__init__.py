"""Regularization: callbacks, the mixin, and plain functions."""

from lightning_dlopt.regularization.mixin import RegularizationMixin
from lightning_dlopt.regularization.scheduled_dropout import (
    ScheduledDropout,
    alpha_dropout,
    dropout,
    dropout_rate,
)
from lightning_dlopt.regularization.stochastic_depth import (
    StochasticDepth,
    drop_rates,
    stochastic_depth,
)

__all__ = [
    "RegularizationMixin",
    "ScheduledDropout",
    "StochasticDepth",
    "alpha_dropout",
    "drop_rates",
    "dropout",
    "dropout_rate",
    "stochastic_depth",
]
