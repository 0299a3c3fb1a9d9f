"""Learning-rate schedules: callbacks, the mixin, and the plain curves in :mod:`.curves`."""

from lightning_dlopt.schedules import curves
from lightning_dlopt.schedules.base import Schedule
from lightning_dlopt.schedules.constant import ConstantLR
from lightning_dlopt.schedules.cosine import CosineLR, CosineRestartsLR
from lightning_dlopt.schedules.cyclic import CyclicLR
from lightning_dlopt.schedules.exponential import ExponentialDecayLR, ExponentialGrowthLR
from lightning_dlopt.schedules.mixin import ScheduleMixin
from lightning_dlopt.schedules.one_cycle import OneCycleLR
from lightning_dlopt.schedules.piecewise import PiecewiseLR
from lightning_dlopt.schedules.plateau import PlateauLR
from lightning_dlopt.schedules.polynomial import LinearLR, PolynomialLR
from lightning_dlopt.schedules.step import MultiStepLR, StepLR
from lightning_dlopt.schedules.warmup_stable_decay import WarmupStableDecayLR

__all__ = [
    "ConstantLR",
    "CosineLR",
    "CosineRestartsLR",
    "CyclicLR",
    "ExponentialDecayLR",
    "ExponentialGrowthLR",
    "LinearLR",
    "MultiStepLR",
    "OneCycleLR",
    "PiecewiseLR",
    "PlateauLR",
    "PolynomialLR",
    "Schedule",
    "ScheduleMixin",
    "StepLR",
    "WarmupStableDecayLR",
    "curves",
]
