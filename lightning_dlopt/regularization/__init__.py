"""Regularization: callbacks, the mixin, and plain functions."""

from lightning_dlopt.regularization.distillation import Distillation, distillation_loss
from lightning_dlopt.regularization.elastic_net import ElasticNet
from lightning_dlopt.regularization.l1 import L1
from lightning_dlopt.regularization.l2 import L2
from lightning_dlopt.regularization.label_smoothing import LabelSmoothing, smooth_labels
from lightning_dlopt.regularization.mixin import RegularizationMixin
from lightning_dlopt.regularization.penalties import (
    add_elastic_net_gradient_,
    elastic_net_penalty,
    soft_threshold_,
    zero_share,
)
from lightning_dlopt.regularization.penalty_base import Penalty
from lightning_dlopt.regularization.r_drop import RDrop, symmetric_kl
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
    "L1",
    "L2",
    "Distillation",
    "ElasticNet",
    "LabelSmoothing",
    "Penalty",
    "RDrop",
    "RegularizationMixin",
    "ScheduledDropout",
    "StochasticDepth",
    "add_elastic_net_gradient_",
    "alpha_dropout",
    "distillation_loss",
    "drop_rates",
    "dropout",
    "dropout_rate",
    "elastic_net_penalty",
    "smooth_labels",
    "soft_threshold_",
    "stochastic_depth",
    "symmetric_kl",
    "zero_share",
]
