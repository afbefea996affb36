"""`penstock store ls` and `stats`: what there is, and what it takes."""

from __future__ import annotations

from typing import Any

import click

from penstock.cli import out
from penstock.cli.outcome import say
from penstock.cli.store.where import opened, path_names, stored

__all__ = ["ls", "memory_text", "stats"]


@click.command(short_help="List tables, or the keys of a table.")
@click.argument("prefix", default="", shell_complete=path_names)
@stored()
def ls(prefix: str, as_json: bool, **where: Any) -> None:
    """List tables, those below PREFIX, or, when PREFIX is a table, its keys; 'historical/minute/A*' picks some."""
    with opened(where) as store:
        paths = store.ls(prefix)
    if as_json:
        for path in paths:
            out.print_json({"path": path})
    elif paths:
        out.write("\n".join(paths) + "\n")
    else:
        say("no tables")


@click.command(short_help="Show what a store holds and takes.")
@click.argument("level", type=click.IntRange(0, 2), default=0)
@stored()
def stats(level: int, as_json: bool, **where: Any) -> None:
    """Show numbers of the store: LEVEL 0 its sums (of a server: memory and requests), 1 also tables, 2 also keys."""
    with opened(where) as store:
        found = store.stats(level)
    if as_json:
        out.print_json(found)
        return
    out.write(memory_text(found))


def memory_text(found: dict[str, Any]) -> str:
    """Numbers as lines: `memory.used  387360 (387 kB)`, and tables as a table."""
    lines: list[tuple[str, str]] = []
    tables: dict[str, Any] = {}
    for name, value in found.items():
        if name == "table":
            tables = value
        elif name == "store":
            tables = value.get("table", {})
            lines += [(f"store.{key}", _shown(key, v)) for key, v in value.items() if key not in ("table", "root")]
        elif name == "held":
            lines += [(f"frame {item['path']}", f"{item['start'] or ''}..{item['end'] or ''}") for item in value]
        elif isinstance(value, dict):
            lines += [(f"{name}.{key}", _shown(key, v)) for key, v in value.items()]
        else:
            lines.append((name, _shown(name, value)))
    wide = max(len(name) for name, _ in lines)
    text = "".join(f"{name:<{wide}}  {value}\n" for name, value in lines)
    if tables:
        header = ["TABLE", "ROWS", "HOT", "FILES", "SIZE", "FIRST", "LAST"]
        rows = []
        for name, t in tables.items():
            numbers = [out.count(t["rows"]), out.count(t["hot_rows"]), out.count(t["files"]), out.size(t["bytes"])]
            rows.append([name, *numbers, t["first_time"] or "-", t["last_time"] or "-"])
        text += "\n" + out.grid(header, rows, right=(1, 2, 3, 4))
        keys = [
            [f"{name}/{key}", out.count(rows)] for name, t in tables.items() for key, rows in t.get("keys", {}).items()
        ]
        if keys:
            text += "\n" + out.grid(["KEY", "ROWS"], keys, right=(1,))
    return text


_BYTES = (
    "used",
    "free",
    "max",
    "lent",
    "max_memory",
    "bytes",
    "hot_bytes",
    "arrow_bytes",
    "arrow_peak_bytes",
    "peak_bytes",
)


def _shown(name: str, value: Any) -> str:
    if name in _BYTES:
        return f"{value} ({out.size(value)})"
    return "-" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)
