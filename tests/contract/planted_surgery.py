"""Bad techniques that change the structure, each of which breaks the contract in one way."""

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from lightning_dlopt.core import Technique
from lightning_dlopt.structure import SqueezeExcite
from tests.contract.table_squeeze_excite import SQUEEZE_EXCITE_ROWS


class FindsNothingQuietly(SqueezeExcite):
    def warn_no_effect(self, why: str) -> None:
        pass


class DrawsItsLayersGlobally(SqueezeExcite):
    def operate(self, module: nn.Module, generator: torch.Generator) -> dict[str, Any]:
        return super().operate(module, None)  # type: ignore[arg-type]


class ChangesOtherWeights(SqueezeExcite):
    def operate(self, module: nn.Module, generator: torch.Generator) -> dict[str, Any]:
        with torch.no_grad():
            next(module.parameters()).mul_(0.5)
        return super().operate(module, generator)


class FreezesWhatItFinds(SqueezeExcite):
    def operate(self, module: nn.Module, generator: torch.Generator) -> dict[str, Any]:
        next(module.parameters()).requires_grad_(False)
        return super().operate(module, generator)


class TrainsWithoutAPlan(SqueezeExcite):
    """Puts in a layer that its function doesn't, and more of them at each run."""

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        pl_module.net.append(nn.Linear(3, 3))


def bad_row(cls: type[SqueezeExcite]) -> Any:
    (row,) = SQUEEZE_EXCITE_ROWS
    return replace(row, technique=cls, make=lambda: cls(reduction=2, min_channels=5))


#: Each of them with the clauses that must catch it.
SURGERY_FAULTS: dict[type[Technique], set[str]] = {
    FindsNothingQuietly: {"unmodified_modules"},
    DrawsItsLayersGlobally: {"own_randomness"},
    ChangesOtherWeights: {"own_randomness"},
    FreezesWhatItFinds: {"parts_untouched"},
    TrainsWithoutAPlan: {"parts_untouched", "validation_is_plain"},
}
SURGERY_PLANTED = {cls.__name__: bad_row(cls) for cls in SURGERY_FAULTS}  # type: ignore[arg-type]
