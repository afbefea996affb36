"""SQL over tables, by duckdb or polars, whichever is installed; for strangers by duckdb alone, and within limits."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from penstock.errors import FrameTooLarge, PenstockError, StoreError, UsageError

if TYPE_CHECKING:
    from penstock.store.store import Store
    from penstock.store.table import Table

__all__ = ["Limits", "ask", "named", "sql"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a stranger's query may take: bytes of memory beside its tables, half of it for the answer, and seconds."""

    memory: int
    seconds: float


def sql(
    store: Store, query: str, *, start: Any = None, end: Any = None, as_of: Any = None, engine: str | None = None
) -> pa.Table:
    """The answer of a query in which tables stand by their names in double quotes: `from "historical/minute"`.

    Takes   start, end, as_of: what of each table the query sees, see `Table.read`. The rows of these times are read
            into memory; a condition in the query itself does not make that less;
            engine: "duckdb" or "polars"; the first that is installed unless given.
    Raises  UsageError when neither is installed; KeyNotFound for an unknown table; StoreError with the engine's word.
    """
    frames = {name: table.read(None, start, end, as_of=as_of) for name, table in named(store, query).items()}
    return ask(query, frames, store.tables(), engine=engine)


def named(store: Store, query: str) -> dict[str, Table]:
    """The tables that a query names, in double quotes or bare. Raises KeyNotFound for a path that is none."""
    names = dict.fromkeys(re.findall(r'"([^"]+)"', query))
    known = store.tables()
    tables = {name: store.table(name) for name in names if name in known}
    tables |= {name: store.table(name) for name in known if re.search(rf"\b{re.escape(name)}\b", query)}
    for name in names:
        if "/" in name and name not in tables:
            store.table(name)  # says which there are
    return tables


def ask(
    query: str,
    frames: Mapping[str, pa.Table],
    known: list[str],
    *,
    engine: str | None = None,
    limits: Limits | None = None,
) -> pa.Table:
    """The answer of a query over these frames.

    Takes   known: names of tables, for an error's hint; engine: as for `sql`; limits: then it is one select, by duckdb.
    Raises  as `sql`; FrameTooLarge for an answer that is larger than the limits allow.
    """
    engines = ("duckdb", "polars")
    if engine not in (None, *engines):
        raise UsageError(expected="'duckdb' or 'polars'", got=repr(engine), where="in engine")
    if limits is not None:
        engine = "duckdb"  # polars opens any file, and takes any memory and time
    for name in engines if engine is None else [engine]:
        try:
            __import__(name)
        except ImportError:
            continue
        try:
            return _duckdb(query, frames, limits) if name == "duckdb" else _polars(query, frames)
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


def _duckdb(query: str, frames: Mapping[str, pa.Table], limits: Limits | None) -> pa.Table:
    import duckdb

    config: dict[str, Any] = {
        "enable_external_access": False,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }
    if limits is not None:
        config |= {"memory_limit": f"{limits.memory // 2}B", "temp_directory": ""}
    seconds = None if limits is None else limits.seconds
    with duckdb.connect(":memory:", config=config) as connection, _interrupted(connection, seconds):
        connection.execute("set lock_configuration = true")  # the query must not undo the above
        if limits is not None:
            _check_select(connection.extract_statements(query))
        for name, frame in frames.items():
            connection.register(name, frame)
        found = connection.sql(query)
        if found is None:
            raise StoreError("the query has no answer", where="in store.sql", hint="write a select")
        if limits is None:
            return found.to_arrow_table()
        reader = (
            found.to_arrow_reader(65_536) if hasattr(found, "to_arrow_reader") else found.fetch_record_batch(65_536)
        )
        return pa.Table.from_batches(_within(reader, limits.memory // 2), reader.schema)


def _check_select(statements: list[Any]) -> None:
    """Refuse what is not one question: several, and those that change, load, attach or write something."""
    kinds = [statement.type.name for statement in statements]
    if kinds != ["SELECT"]:
        raise UsageError(
            expected="one select",
            got=", ".join(kinds).lower() or "nothing",
            where="in store.sql",
            hint="a server answers questions; what else there is to do has a verb of its own",
        )


@contextmanager
def _interrupted(connection: Any, seconds: float | None) -> Iterator[None]:
    """Stop the connection's query after so many seconds."""
    if seconds is None:
        yield
        return
    late, ended = threading.Event(), threading.Event()

    def stop() -> None:
        if ended.wait(seconds):
            return
        late.set()
        connection.interrupt()
        while not ended.wait(0.1):  # one that comes between two steps of a query is forgotten
            connection.interrupt()

    watch = threading.Thread(target=stop, name="penstock-store-query", daemon=True)
    watch.start()
    try:
        yield
    except Exception as error:
        if late.is_set():
            raise StoreError(
                f"the query took more than {seconds:g} s", where="in store.sql", hint="ask less"
            ) from error
        raise
    finally:
        ended.set()
        watch.join()


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


def _polars(query: str, frames: Mapping[str, pa.Table]) -> pa.Table:
    import polars

    context = polars.SQLContext({name: polars.from_arrow(frame) for name, frame in frames.items()}, eager=True)
    return context.execute(query).to_arrow()
