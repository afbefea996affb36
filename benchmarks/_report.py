"""What every benchmark prints: a table of its sides, and JSON with the machine and the commit."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any


def machine(*packages: str) -> dict[str, Any]:
    """CPU, cores, Python, versions of packages, commit."""
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    versions = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    ).stdout.strip()
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": versions,
        "commit": commit,
    }


def rounds(sides: dict[str, Callable[[], float]], count: int) -> dict[str, list[float]]:
    """Run every side once a round, `count` rounds, so that all meet the same weather; each side's figures."""
    figures: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(count):
        for name, side in sides.items():
            figures[name].append(side())
    return figures


def show(title: str, figures: dict[str, list[float]], unit: str, against: str) -> list[dict[str, Any]]:
    """Print best, median and the ratio of medians to the side `against`; return the rows."""
    base = statistics.median(figures[against])
    print(f"\n{title} ({unit})")
    rows = []
    for name, values in figures.items():
        best = min(values) if unit == "us" else max(values)
        middle = statistics.median(values)
        rows.append({"what": title, "side": name, "unit": unit, "best": best, "median": middle, "ratio": middle / base})
        print(f"  {name:<44}{best:>16,.1f}{middle:>16,.1f}{middle / base:>9.2f}x")
    return rows


def arguments(description: str, parts: list[str] | None = None, **defaults: int) -> argparse.Namespace:
    """--json FILE, --rounds N, one option per keyword, and which of the parts to run (all)."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if parts is not None:
        parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(parts)}; by default all")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--rounds", type=int, default=3)
    for name, value in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    options = parser.parse_args()
    if parts is not None:
        # `choices` would refuse the list of all, which is the default.
        options.parts = options.parts or parts
        if unknown := set(options.parts) - set(parts):
            parser.error(f"there are the parts {', '.join(parts)}, not {', '.join(sorted(unknown))}")
    return options


def write(path: Path | None, rows: list[dict[str, Any]], *packages: str) -> None:
    """The machine on stdout, and all of it as JSON when a path was given."""
    about = machine(*packages)
    print(
        f"\n{about['cpu']}, {about['cores']} cores, load {about['load']}, Python {about['python']}, {about['commit']}"
    )
    if path is not None:
        path.write_text(json.dumps({"machine": about, "command": " ".join(sys.argv), "rows": rows}, indent=1) + "\n")
