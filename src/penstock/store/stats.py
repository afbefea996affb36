"""Numbers of a store: what it holds, in which tier, and how much room that takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.clock import iso
from penstock.errors import KeyNotFound, UsageError

if TYPE_CHECKING:
    from penstock.store.store import Store
    from penstock.store.table import Table

__all__ = ["statistics"]

_SUMS = ("rows", "hot_rows", "files", "bytes", "hot_bytes", "quarantined")


def statistics(store: Store, level: int = 0) -> dict[str, Any]:
    """See `Store.stats`. Cost: level 2 reads each file's footer, once."""
    if level not in (0, 1, 2):
        raise UsageError(expected="level 0, 1 or 2", got=repr(level), where="in stats")
    tables = {}
    for name in store.tables():
        try:
            tables[name] = _table(store.table(name), level)
        except KeyNotFound:  # dropped meanwhile
            continue
    found: dict[str, Any] = {"root": str(store.hub.path), "tables": len(tables)}
    for name in _SUMS:
        found[name] = sum(table[name] for table in tables.values())
    if level:
        found["table"] = tables
    return found


def _table(table: Table, level: int) -> dict[str, Any]:
    state, stream = table.state(), table.stream
    rolled = table.rolled(state)
    cold = sum(file.rows for file in state.files.values())
    hot = max(0, stream.next_offset - max(rolled, stream.first_offset))
    time = table.layout.time
    lows = [file.low[time] for file in state.files.values() if time in file.low]
    highs = [file.high[time] for file in state.files.values() if time in file.high]
    found: dict[str, Any] = {
        "rows": cold + hot,
        "hot_rows": hot,
        "files": len(state.files),
        "bytes": sum(file.size for file in state.files.values()),
        "hot_bytes": stream.metadata().bytes,
        "quarantined": len(table.parts.quarantined),
        "version": state.version,
        "rolled": rolled,
        "next_offset": stream.next_offset,
        "first_time": iso(min(lows)) if lows else None,
        "last_time": iso(max(highs)) if highs else None,
        "layout": table.layout.as_dict(),
        "schema": {field.name: str(field.type) for field in table.schema},
    }
    if level > 1:
        found["keys"] = dict(sorted(table.counts().items()))
    return found
