"""How a module was changed, as plain data that stays with it and goes into its checkpoints."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypedDict

import torch
from torch import nn

from lightning_dlopt.core.patching import settle

#: The checkpoint's key, and the attribute of a changed module, that hold its plan.
PLAN_KEY, PLAN_ATTRIBUTE = "structure_plan", "_structure_plan"

#: A name among a checkpoint's weights. Loading them into a module as it was written fails by it,
#: where they would fit and the module compute something else with them.
MARK = "structure_plan (load it with lightning_dlopt.load_from_checkpoint)"


class Entry(TypedDict):
    """What one technique has done.

    Attributes:
        technique: the name of its class.
        key: its own key, with its arguments.
        plan: how it has changed the module.
        hidden: whether neither names nor shapes of the weights show it.
    """

    technique: str
    key: str
    plan: dict[str, Any]
    hidden: bool


class CheckpointHook:
    """Stands in for a changed module's hook, and does something besides.

    It stays after training, as the change does: without the plan no checkpoint of the module
    could be loaded, and neither callbacks nor a Trainer without this package see to it. Copies
    and pickles of the module have one of their own.
    """

    name = ""

    def __init__(self, module: nn.Module, before: Callable[[dict[str, Any]], None] | None) -> None:
        self.module = module
        self.before = before

    def __call__(self, checkpoint: dict[str, Any]) -> None:
        """Do what the module does by itself."""
        if self.before is not None:
            self.before(checkpoint)
        else:
            getattr(type(self.module), self.name)(self.module, checkpoint)

    @classmethod
    def put(cls, module: nn.Module) -> None:
        """Take the place of a LightningModule's hook, once."""
        if hasattr(module, cls.name) and PLAN_ATTRIBUTE not in vars(module):
            settle(module, cls.name, lambda before: cls(module, before))


class PlanSaver(CheckpointHook):
    """Adds the plan to a checkpoint."""

    name = "on_save_checkpoint"

    def __call__(self, checkpoint: dict[str, Any]) -> None:
        """Do what the module does by itself, and write the plan."""
        super().__call__(checkpoint)
        plan = plan_of(self.module)
        checkpoint[PLAN_KEY] = [dict(entry) for entry in plan]
        if any(entry["hidden"] for entry in plan):
            checkpoint["state_dict"][MARK] = torch.zeros(())


def plan_of(module: nn.Module) -> list[Entry]:
    """Return what was done to a module, in order; a list of its own that may be changed.

    Example:
        >>> plan_of(nn.Linear(2, 2))
        []
    """
    return list(vars(module).get(PLAN_ATTRIBUTE, ()))


def take_plan(checkpoint: Mapping[str, Any]) -> list[Entry]:
    """Return the plan that a checkpoint holds, whose weights then are without the mark."""
    checkpoint.get("state_dict", {}).pop(MARK, None)
    return list(checkpoint.get(PLAN_KEY, ()))


def find_entry(module: nn.Module, key: str) -> Entry | None:
    """Return what the technique with that key has done to a module."""
    return next((entry for entry in plan_of(module) if entry["key"] == key), None)


def write_entry(module: nn.Module, entry: Entry) -> None:
    """Note what was done, at the end of the plan or in the place of the same technique's entry."""
    plan = plan_of(module)
    keys = [other["key"] for other in plan]
    if entry["key"] in keys:
        plan[keys.index(entry["key"])] = entry
    else:
        plan.append(entry)
    object.__setattr__(module, PLAN_ATTRIBUTE, plan)


def drop_entries(module: nn.Module, technique: str) -> None:
    """Forget what all techniques of that name have done to a module."""
    kept = [entry for entry in plan_of(module) if entry["technique"] != technique]
    object.__setattr__(module, PLAN_ATTRIBUTE, kept)


def subclasses(cls: type) -> Iterator[type]:
    """Yield every class below ``cls``."""
    direct: list[type] = cls.__subclasses__()
    for below in direct:
        yield below
        yield from subclasses(below)
