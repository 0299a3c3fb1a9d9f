"""``dlopt list``: what the package offers, one line each."""

import inspect
from importlib import import_module

from lightning.pytorch import LightningDataModule
from torch.nn import Module
from torch.optim import Optimizer

from lightning_dlopt.cli.mistakes import Parser
from lightning_dlopt.core import Technique

#: What a configuration can name.
KINDS = (Technique, Optimizer, Module, LightningDataModule)

TITLES = {
    "optimizers": "optimizers",
    "schedules": "learning rate",
    "regularization": "regularization",
    "augmentation": "augmentation",
    "structure": "model structure",
    "modules": "modules",
    "data": "data sets",
}


def first_sentence(documented: object) -> str:
    """Return the first line of a docstring."""
    return (inspect.getdoc(documented) or "").split("\n", 1)[0]


def entries(family: str) -> list[tuple[str, str]]:
    """Return (name, first line of its docstring) of a family's public, usable classes."""
    module = import_module(f"lightning_dlopt.{family}")
    classes = [(name, getattr(module, name)) for name in module.__all__]
    return [
        (name, first_sentence(cls))
        for name, cls in classes
        if inspect.isclass(cls)
        and not inspect.isabstract(cls)
        and issubclass(cls, KINDS)
        and not name.endswith("DataModule")
    ]


def run(arguments: list[str]) -> None:
    """Print the catalogue, or one family of it."""
    parser = Parser(
        prog="dlopt list", description="List the techniques, modules and data sets, one line each."
    )
    parser.add_argument("family", nargs="?", choices=TITLES, help="show one family only")
    family = parser.parse_args(arguments).family
    for name, title in TITLES.items():
        if family in (None, name):
            print(f"{title} (lightning_dlopt.{name})")
            for entry, sentence in entries(name):
                print(f"  {entry:<22}{sentence}")
            print()
