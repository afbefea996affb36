"""SQL over tables, by duckdb or by polars, whichever is installed."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from penstock.errors import FrameTooLarge, PenstockError, StoreError, UsageError

if TYPE_CHECKING:
    from penstock.store.store import Store

__all__ = ["sql"]


def sql(
    store: Store,
    query: str,
    *,
    start: Any = None,
    end: Any = None,
    as_of: Any = None,
    engine: str | None = None,
    memory: int | None = None,
    seconds: float | None = None,
) -> pa.Table:
    """The answer of a query in which tables stand by their names in double quotes: `from "historical/minute"`.

    Takes   start, end, as_of: what of each table the query sees, see `Table.read`. The rows of these times are read
            into memory; a condition in the query itself does not make that less;
            engine: "duckdb" or "polars"; the first that is installed unless given;
            memory, seconds: with duckdb, what the query may take beside the tables, and the answer as well; how long.
    Raises  UsageError when neither is installed; KeyNotFound for an unknown table; FrameTooLarge for an answer over
            `memory`; StoreError with the engine's word.
    """
    names = dict.fromkeys(re.findall(r'"([^"]+)"', query))
    known = store.tables()
    tables = {name: store.table(name) for name in names if name in known}
    tables |= {name: store.table(name) for name in known if re.search(rf"\b{re.escape(name)}\b", query)}
    for name in names:
        if "/" in name and name not in tables:
            store.table(name)  # says which there are
    frames = {name: table.read(None, start, end, as_of=as_of) for name, table in tables.items()}
    engines = ("duckdb", "polars")
    if engine not in (None, *engines):
        raise UsageError(expected="'duckdb' or 'polars'", got=repr(engine), where="in engine")
    for name in engines if engine is None else [engine]:
        try:
            __import__(name)
        except ImportError:
            continue
        try:
            return _duckdb(query, frames, memory, seconds) if name == "duckdb" else _polars(query, frames)
        except PenstockError:
            raise
        except Exception as error:  # each engine has its own tree
            reason = str(error).strip().split("\n")[0]
            raise StoreError(
                f"{name} does not take the query: {reason}", where="in store.sql", hint=_hint(known)
            ) from error
    raise UsageError(
        expected=f"{engine or 'duckdb or polars'} for SQL",
        got="no such package",
        where="in store.sql",
        hint=f"pip install {engine or 'duckdb'}",
    )


def _hint(known: list[str]) -> str:
    return f"tables are {', '.join(map(repr, known[:5]))}, in double quotes" if known else "the store has no tables"


def _duckdb(query: str, frames: dict[str, pa.Table], memory: int | None, seconds: float | None) -> pa.Table:
    import duckdb

    config: dict[str, Any] = {"enable_external_access": False}
    if memory is not None:
        config |= {"memory_limit": f"{memory}B", "temp_directory": ""}
    with duckdb.connect(":memory:", config=config) as connection, _interrupted(connection, seconds):
        connection.execute("set lock_configuration = true")  # the query must not undo the above
        for name, frame in frames.items():
            connection.register(name, frame)
        found = connection.sql(query)
        if found is None:
            raise StoreError("the query has no answer", where="in store.sql", hint="write a select")
        if memory is None:
            return found.to_arrow_table()
        reader = (
            found.to_arrow_reader(65_536) if hasattr(found, "to_arrow_reader") else found.fetch_record_batch(65_536)
        )
        return pa.Table.from_batches(_within(reader, memory), reader.schema)


@contextmanager
def _interrupted(connection: Any, seconds: float | None) -> Iterator[None]:
    """Stop the connection's query after so many seconds."""
    if seconds is None:
        yield
        return
    late = threading.Event()

    def stop() -> None:
        late.set()
        connection.interrupt()

    timer = threading.Timer(seconds, stop)
    timer.start()
    try:
        yield
    except Exception as error:
        if late.is_set():
            raise StoreError(
                f"the query took more than {seconds:g} s", where="in store.sql", hint="ask less"
            ) from error
        raise
    finally:
        timer.cancel()


def _within(batches: Iterator[pa.RecordBatch], limit: int) -> Iterator[pa.RecordBatch]:
    """The batches, as long as they are not more than `limit` bytes together."""
    size = 0
    for batch in batches:
        size += batch.nbytes
        if size > limit:
            raise FrameTooLarge(
                expected=f"an answer of at most {limit} bytes",
                got="more",
                where="in store.sql",
                hint="select fewer columns or rows, or give more memory",
                size=size,
                limit=limit,
            )
        yield batch


def _polars(query: str, frames: dict[str, pa.Table]) -> pa.Table:
    import polars

    context = polars.SQLContext({name: polars.from_arrow(frame) for name, frame in frames.items()}, eager=True)
    return context.execute(query).to_arrow()
