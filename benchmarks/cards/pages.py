"""All generated pages, and how they differ from those on disk."""

from pathlib import Path

from benchmarks.cards.card import card
from benchmarks.cards.measured import Evidence, read_evidence
from benchmarks.cards.networks_measured import Runs, read
from benchmarks.cards.overview import index, rewritten
from benchmarks.cards.techniques import ROOT, entries

FOLDER = Path("docs") / "techniques"
#: Pages that hold tables of the same data between markers.
MARKED = (Path("README.md"),)


def pages(evidence: Evidence, runs: Runs, root: Path = ROOT) -> dict[Path, str]:
    """Return every page that is made, by its path in the project."""
    made = {FOLDER / e.file: card(e, evidence, runs) for e in entries().values()}
    made[FOLDER / "README.md"] = index(evidence, runs)
    for page in MARKED:
        made[page] = rewritten((root / page).read_text(encoding="utf-8"), evidence, runs)
    return made


def drifted(made: dict[Path, str], root: Path = ROOT) -> list[Path]:
    """Return the pages that are missing, differ from what is made, or are made no more."""
    found = []
    for page, text in made.items():
        file = root / page
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            found.append(page)
    there = {path.relative_to(root) for path in (root / FOLDER).glob("*.md")}
    return sorted([*found, *(there - made.keys())])


def write(made: dict[Path, str], root: Path = ROOT) -> list[Path]:
    """Bring the pages on disk to what is made, and return those that were changed or removed."""
    changed = drifted(made, root)
    for page in changed:
        if page in made:
            (root / page).parent.mkdir(parents=True, exist_ok=True)
            (root / page).write_text(made[page], encoding="utf-8")
        else:
            (root / page).unlink()
    return changed


def not_measured(evidence: Evidence, runs: Runs) -> list[str]:
    """Return the techniques of which nothing has been measured."""
    return [
        entry.name
        for entry in entries().values()
        if not evidence.is_measured(entry.name) and not (entry.kind == "network" and runs)
    ]


def everything(root: Path = ROOT) -> tuple[dict[Path, str], list[str]]:
    """Return all pages, and the techniques that aren't measured."""
    evidence, runs = read_evidence(), read()
    return pages(evidence, runs, root), not_measured(evidence, runs)
