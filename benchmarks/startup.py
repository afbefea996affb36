"""How long a user waits before anything happens: `import penstock`, and the command.

    python benchmarks/startup.py [--rounds 9] [--json FILE]

Each figure is a whole process, the interpreter's own start included; `python -c pass` is that start alone.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from _report import arguments, rounds, show, write

SIDES = {
    "python -c pass": ["-c", "pass"],
    "import penstock": ["-c", "import penstock"],
    "import penstock and open a hub": ["-c", "import penstock, tempfile; penstock.open(tempfile.mkdtemp())"],
    "penstock --version": ["-m", "penstock", "--version"],
    "penstock --help": ["-m", "penstock", "--help"],
    "penstock stream --help": ["-m", "penstock", "stream", "--help"],
    "import pyarrow": ["-c", "import pyarrow"],
    "import pandas": ["-c", "import pandas"],
}


def side(command: list[str]) -> Callable[[], float]:
    def run() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, *command], check=True, capture_output=True)
        return (time.perf_counter() - start) * 1e6

    return run


def main() -> None:
    options = arguments("Start-up times of whole processes.")
    figures = rounds({name: side(command) for name, command in SIDES.items()}, max(options.rounds, 9))
    out: list[dict[str, Any]] = show("start-up", figures, "us", "python -c pass")
    write(options.json, out, "penstock", "pyarrow", "pandas")


if __name__ == "__main__":
    main()
