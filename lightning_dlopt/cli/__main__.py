"""``python -m lightning_dlopt.cli`` is the ``dlopt`` command."""

import sys

from lightning_dlopt.cli import main

if __name__ == "__main__":
    sys.exit(main())
