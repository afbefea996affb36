"""Names that complete what was typed: tables, keys, columns."""

from __future__ import annotations

from typing import Any

from penstock.errors import PenstockError

__all__ = ["columns", "paths"]

_MOST = 200


def paths(store: Any, typed: str) -> list[str]:
    """Tables, then keys of a table, whose paths begin with `typed`; up to 200. Errors give none."""
    try:
        tables = store.ls()
        found = [name for name in tables if name.startswith(typed)]
        inside = next((name for name in tables if typed.startswith(f"{name}/")), None)
        if inside is None and len(found) == 1 and found[0] == typed:
            inside = found[0]
        if inside is not None:
            found = [path for path in store.ls(inside) if path.startswith(typed)]
    except PenstockError:
        return []
    return found[:_MOST]


def columns(store: Any, path: str, typed: str) -> list[str]:
    """Columns of a path's table that begin with `typed`."""
    try:
        return [name for name in store.schema(path).names if name.startswith(typed)]
    except PenstockError:
        return []
