"""What the families share: spans, checks, parameter selection, patching, randomness."""

from lightning_dlopt.core.errors import (
    ArgumentError,
    ArgumentTypeError,
    CheckpointError,
    ConflictError,
    DataError,
    NoEffectWarning,
    TechniqueError,
    UserError,
)
from lightning_dlopt.core.parameters import Selection, select_parameters
from lightning_dlopt.core.patching import Patches
from lightning_dlopt.core.randomness import keyed_generator
from lightning_dlopt.core.run_length import RunLength
from lightning_dlopt.core.spans import Duration, Span, parse_span
from lightning_dlopt.core.technique import Technique

__all__ = [
    "ArgumentError",
    "ArgumentTypeError",
    "CheckpointError",
    "ConflictError",
    "DataError",
    "Duration",
    "NoEffectWarning",
    "Patches",
    "RunLength",
    "Selection",
    "Span",
    "Technique",
    "TechniqueError",
    "UserError",
    "keyed_generator",
    "parse_span",
    "select_parameters",
]
