"""What a handler may ask of the house around it.

    read(name, n)         the last n rows of a stream, as messages
    cols(name, n)         the same as columns
    query(sql)            SQL over streams (and tables) of the hub, as messages; needs duckdb
    publish(name, x)      append a message, or a list of them, to a stream, once this call has succeeded
    ask(uri, x)           what the handler behind another plant answers to x (its `onask`)

Klong knows them as `ps_read` …; Python handlers import `penstock.plant.handlers.bindings`.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from typing import Any

from penstock.plant.handlers.normal import messages, plain

__all__ = ["ask", "bound", "cols", "prepare", "publish", "query", "read", "settle", "taken"]

_hub: Any = None
_folder: str | None = None
_published: list[tuple[str, list[dict[str, Any]]]] = []


def settle(folder: str | None) -> None:
    """Say where the hub is; opened at first use."""
    global _folder, _hub
    _folder, _hub = folder, None


def prepare(program: bytes) -> None:
    """Import and open what a program names: that takes longer than a call may, on a busy machine."""
    with contextlib.suppress(Exception):  # said when it is used
        if re.search(rb"\b(read|cols|query)\b|ps_(read|cols|query)", program) and _folder is not None:
            import penstock.records

            _streams()
        if b"query" in program:
            import duckdb  # noqa: F401

            import penstock.store
        if b"ask" in program:
            import penstock.plant.ask  # noqa: F401


def taken() -> list[tuple[str, list[dict[str, Any]]]]:
    """What was published since the last time, in order."""
    done = list(_published)
    _published.clear()
    return done


def _streams() -> Any:
    global _hub
    if _folder is None:
        raise LookupError("this handler has no hub; next step: run it with --hub FOLDER")
    if _hub is None:
        import penstock

        _hub = penstock.open(_folder, create=False)
    return _hub.streams


def _last(name: Any, n: Any) -> Any:
    stream = _streams().get(str(name), create=False)
    count = int(n)
    if count < 0:
        raise ValueError(f"expected a number of rows of at least 0, got {count}")
    stop = stream.next_offset
    return stream.read(max(stream.first_offset, stop - count), stop)


def read(name: Any, n: Any) -> list[dict[str, Any]]:
    """The last n rows of a stream, oldest first, as messages."""
    from penstock.records import batch_to_rows

    return [row for batch in _last(name, n).to_batches() for row in batch_to_rows(batch)]


def cols(name: Any, n: Any) -> dict[str, Any]:
    """The last n rows of a stream as columns."""
    table = _last(name, n)
    return {column: table[column].to_numpy() for column in table.column_names}


def query(sql: Any) -> list[dict[str, Any]]:
    """Rows of a query; the streams and the store's tables that it names are its tables."""
    import duckdb

    from penstock.store import Store

    text, streams, base = str(sql), _streams(), duckdb.connect()
    try:
        base.execute("SET enable_external_access = false")
        base.execute("SET threads = 1")  # each would take its stack from the handler's memory
        for name in streams.list():
            if _named(name, text):
                base.register(name, streams.get(name, create=False).read())
        store = Store(_hub)
        for name in store.tables():
            if _named(name, text):
                base.register(name, store.read(name))
        found: Any = base.execute(text).to_arrow_table()
    finally:
        base.close()
    return list(found.to_pylist())


def _named(name: str, text: str) -> bool:
    return re.search(rf"(?<![\w/]){re.escape(name)}(?![\w/])", text) is not None


def publish(name: Any, x: Any) -> int:
    """Append to a stream once this call has succeeded; the number of messages."""
    made = messages(x)
    _published.append((str(name), made))
    return len(made)


def ask(uri: Any, x: Any) -> Any:
    """The answer of the handler behind another plant."""
    from penstock.plant.ask import ask as ask_

    return ask_(str(uri), plain(x))


def bound(convert: Callable[[Any], Any]) -> dict[str, Callable[..., Any]]:
    """The functions as Klong calls them: parameters x, y; results made its own by `convert`."""
    return {
        "read": lambda x, y: convert(read(x, y)),
        "cols": lambda x, y: cols(x, y),
        "query": lambda x: convert(query(x)),
        "publish": lambda x, y: publish(x, y),
        "ask": lambda x, y: convert(ask(x, y)),
    }
