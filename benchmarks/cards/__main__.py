"""``python -m benchmarks.cards``: ``--write`` makes the cards anew, ``--check`` compares them."""

import argparse
import sys
import textwrap

from benchmarks.cards.measured import read_evidence
from benchmarks.cards.pages import drifted, everything, write
from benchmarks.cards.picture import PICTURE, draw
from benchmarks.cards.techniques import ROOT


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cards",
        description="The method cards in docs/techniques and the tables between the README's "
        "markers, made from docstrings and from the results in benchmarks/results.",
        allow_abbrev=False,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true", help="make them anew")
    what.add_argument("--check", action="store_true", help="tell which differ; exit 1 if any does")
    options = parser.parse_args()
    made, unmeasured = everything()
    changed = write(made) if options.write else drifted(made)
    if options.write:
        (ROOT / PICTURE).write_bytes(draw(read_evidence()))
    for page in changed:
        print(f"{'written' if options.write else 'out of date'}: {page}")
    if unmeasured:
        print(textwrap.fill(f"not measured yet ({len(unmeasured)}): {', '.join(unmeasured)}", 100))
    if options.check and changed:
        sys.exit("python -m benchmarks.cards --write makes them anew")


if __name__ == "__main__":
    main()
