"""`python -m penstock` is the `penstock` command."""

from __future__ import annotations

import sys

from penstock.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
