"""The recipes in the families' folders, and what each is."""

from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def is_complete(recipe: Path) -> bool:
    """Tell a configuration that trains by itself from what is laid over another one."""
    return {"model", "data"} <= yaml.safe_load(recipe.read_text()).keys()


_RECIPES = sorted((ROOT / "recipes").glob("*/*.yaml"))
COMPLETE = [recipe for recipe in _RECIPES if is_complete(recipe)]
OVERLAYS = [recipe for recipe in _RECIPES if not is_complete(recipe)]
