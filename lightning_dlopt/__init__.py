"""Training techniques as drop-in parts for any PyTorch Lightning module.

Every public name can be imported from here or from its family; nothing is loaded before its first
use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_dlopt.augmentation import *
    from lightning_dlopt.core import *
    from lightning_dlopt.data import *
    from lightning_dlopt.modules import *
    from lightning_dlopt.optimizers import *
    from lightning_dlopt.regularization import *
    from lightning_dlopt.schedules import *
    from lightning_dlopt.structure import *

#: Where names are looked up, in order.
FAMILIES = (
    "core",
    "schedules",
    "optimizers",
    "regularization",
    "augmentation",
    "structure",
    "modules",
    "data",
)


def _family(name: str) -> Any:
    return import_module(f"{__name__}.{name}")


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return sorted({public for family in FAMILIES for public in _family(family).__all__})
    if name in FAMILIES:
        return _family(name)
    if not name.startswith("_"):
        for family in FAMILIES:
            if name in _family(family).__all__:
                return getattr(_family(family), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__getattr__("__all__")})
