"""How a module was changed, as plain data that stays with it and goes into its checkpoints."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypedDict, cast

from torch import nn

from lightning_dlopt.core.patching import settle

#: The checkpoint's key, and the attribute of a changed module, that hold its plan.
PLAN_KEY, PLAN_ATTRIBUTE = "structure_plan", "_structure_plan"


class Entry(TypedDict):
    """What one technique has done: the name of its class, its own key, and the plan."""

    technique: str
    key: str
    plan: dict[str, Any]


class PlanSaver:
    """Stands in for a changed module's ``on_save_checkpoint``, and adds the plan.

    It stays after training, as the change does: without the plan no checkpoint of the module
    could be loaded, and neither callbacks nor a Trainer without this package see to it. Copies
    and pickles of the module have one of their own.
    """

    def __init__(self, module: nn.Module, before: Callable[[dict[str, Any]], None] | None) -> None:
        self.module = module
        self.before = before

    def __call__(self, checkpoint: dict[str, Any]) -> None:
        """Do what the module does by itself, and write the plan."""
        if self.before is not None:
            self.before(checkpoint)
        else:
            cast(Any, type(self.module)).on_save_checkpoint(self.module, checkpoint)
        checkpoint[PLAN_KEY] = [dict(entry) for entry in plan_of(self.module)]


def plan_of(module: nn.Module) -> list[Entry]:
    """Return what was done to a module, in order; a list of its own that may be changed.

    Example:
        >>> plan_of(nn.Linear(2, 2))
        []
    """
    return list(vars(module).get(PLAN_ATTRIBUTE, ()))


def saved_plan(checkpoint: Mapping[str, Any]) -> list[Entry]:
    """Return the plan that a checkpoint holds."""
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
    if not hasattr(module, PLAN_ATTRIBUTE) and hasattr(module, "on_save_checkpoint"):
        settle(module, "on_save_checkpoint", lambda before: PlanSaver(module, before))
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
