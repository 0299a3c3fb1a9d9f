"""The files of a folder of texts: which is which set."""

import warnings
from pathlib import Path

from lightning_dlopt.core.errors import DataError
from lightning_dlopt.data.text_files import FORMATS

#: The names that a set's file may have, without its ending.
STEMS = {
    "train": ("train",),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test",),
}


def set_files(path: Path) -> dict[str, Path]:
    """Return the file of each set: the path itself, or those in the folder.

    Raises:
        DataError: if the folder has no training file, or two files of one set.
    """
    if not path.is_dir():
        return {"train": path}
    endings = [f"{suffix}{packed}" for suffix in FORMATS for packed in ("", ".gz")]
    found: dict[str, Path] = {}
    unused = []
    for file in sorted(path.iterdir()):
        name = file.name.lower()
        stem, _, ending = name.partition(".")
        kind = next((kind for kind, stems in STEMS.items() if stem in stems), None)
        if kind is None or f".{ending}" not in endings:
            # a file that looks like a set, by either half of its name
            if file.is_file() and stem and (kind or name.endswith(tuple(endings))):
                unused.append(file.name)
        elif kind in found:
            both = f"{found[kind].name}, {file.name}"
            raise DataError(f"{path}: which is the {kind} set of {both}? Leave one of them there")
        else:
            found[kind] = file
    known = ", ".join(stem for stems in STEMS.values() for stem in stems)
    if "train" not in found:
        there = f"; there are {', '.join(unused)}" if unused else ""
        raise DataError(f"{path}: the folder has no train file ({', '.join(FORMATS)}){there}")
    if unused:
        warnings.warn(
            f"{path}: {', '.join(unused)}: not used; sets are files called {known}, with one of "
            f"{', '.join(FORMATS)}",
            UserWarning,
            stacklevel=2,
        )
    return found
