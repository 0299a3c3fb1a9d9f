"""Which techniques there are, where their cards lie, and which recipes use them."""

import inspect
import re
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import yaml
from torch import nn
from torch.optim import Optimizer

from benchmarks.cards.docstrings import Docstring, docstring_of
from lightning_dlopt.cli.catalogue import TITLES
from lightning_dlopt.core import Technique

ROOT = Path(__file__).parents[2]
#: The families in the order in which they are shown, with their titles.
FAMILIES = {
    name: TITLES[name]
    for name in ("structure", "optimizers", "schedules", "regularization", "augmentation")
}
#: In each family the mixin that brings its techniques, and the name of its argument.
MIXINS = {
    "structure": ("StructureMixin", "structure"),
    "optimizers": ("OptimizerMixin", "optimization"),
    "schedules": ("ScheduleMixin", "schedule"),
    "regularization": ("RegularizationMixin", "regularization"),
    "augmentation": ("AugmentationMixin", "augmentation"),
}

Kind = Literal["callback", "optimizer", "network"]


@dataclass(frozen=True)
class Entry:
    """One technique.

    Attributes:
        name: of its class.
        family: the folder that it is in.
        kind: a callback, an optimizer for ``UseOptimizer``, or a network.
        cls: the class.
    """

    name: str
    family: str
    kind: Kind
    cls: Any

    @property
    def file(self) -> str:
        """The name of its card, such as ``cut_mix.md``: that of its recipe, if it has one only."""
        short = self.name.removesuffix("LR")
        words = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", short)
        return words.lower() + ".md"

    @property
    def docstring(self) -> Docstring:
        """What its docstring says."""
        return docstring_of(self.cls)

    @property
    def bases(self) -> list[type]:
        """The classes of this package that it is built on, but for the one of all techniques."""
        return [
            base
            for base in self.cls.__mro__[1:]
            if base.__module__.startswith("lightning_dlopt.") and base is not Technique
        ]


def _kind(cls: Any, family: str) -> Kind | None:
    if not inspect.isclass(cls) or inspect.isabstract(cls):
        return None
    if issubclass(cls, Technique):
        return "callback"
    if issubclass(cls, Optimizer):
        return "optimizer"
    return "network" if family == "structure" and issubclass(cls, nn.Module) else None


@cache
def entries() -> dict[str, Entry]:
    """Return every public technique of the families by name, networks first in theirs."""
    found = []
    for family in FAMILIES:
        module = import_module(f"lightning_dlopt.{family}")
        classes = [(name, getattr(module, name)) for name in sorted(module.__all__)]
        own = [
            Entry(name, family, kind, cls)
            for name, cls in classes
            if (kind := _kind(cls, family)) is not None
        ]
        found += sorted(own, key=lambda entry: entry.kind != "network")
    return {entry.name: entry for entry in found}


def card_of(name: str) -> str | None:
    """Return the address of a technique's card among the cards, None of other names."""
    entry = entries().get(name)
    return entry.file if entry else None


@dataclass(frozen=True)
class Recipe:
    """A recipe that ships.

    Attributes:
        path: relative to the project's folder.
        text: the file as it is.
        named: the classes it is about, with the arguments they get.
    """

    path: str
    text: str
    named: dict[str, dict[str, Any]]


def _short(path: str) -> str:
    return path.rpartition(".")[2]


def _named(plain: Any) -> dict[str, dict[str, Any]]:
    """Return the techniques that a recipe is about: its callbacks, or its network."""
    model = plain.get("model", {}).get("init_args", {}).get("network", {})
    if "data" in plain and model:
        return {_short(model["class_path"]): model.get("init_args", {})}
    named: dict[str, dict[str, Any]] = {}
    for callback in plain.get("trainer", {}).get("callbacks+", []):
        arguments = callback.get("init_args", {})
        named.setdefault(_short(callback["class_path"]), arguments)
        optimizer = arguments.get("optimizer", {})
        if optimizer.get("class_path", "").startswith("lightning_dlopt."):
            named[_short(optimizer["class_path"])] = optimizer.get("init_args", {})
    return named


@cache
def recipes() -> tuple[Recipe, ...]:
    """Return the recipes in the families' folders."""
    files = sorted((ROOT / "recipes").glob("*/*.yaml"))
    texts = {str(file.relative_to(ROOT)): file.read_text() for file in files}
    return tuple(Recipe(path, text, _named(yaml.safe_load(text))) for path, text in texts.items())


def recipes_of(entry: Entry) -> list[Recipe]:
    """Return a technique's recipes; the one that has its name comes first."""
    own = [recipe for recipe in recipes() if entry.name in recipe.named]
    stem = entry.file.removesuffix(".md")
    return sorted(own, key=lambda recipe: Path(recipe.path).stem != stem)
