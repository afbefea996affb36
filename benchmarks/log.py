"""The log and the windows, beside SQLite and LMDB doing the same work, in one run.

Every side keeps what it took when its process is killed (not when the power goes): the log with durability="os", SQLite
in WAL mode with synchronous=OFF and one transaction per append, LMDB without sync and one transaction per append.

    python benchmarks/log.py [--rounds 3] [--rows 50000] [--megabytes 256] [--json FILE]
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import penstock as ps
from _report import arguments, rounds, show, write

ROW = {"symbol": "AAPL", "ts_event": 1_700_000_000_000_000_000, "price": 190.25, "size": 100}
DOCUMENT = {"symbol": "AAPL", "price": 190.25, "size": 100}
BATCH_ROWS = 4096  # two columns of 8 bytes: 64 KiB


class Place:
    """A fresh folder for one measurement."""

    def __enter__(self) -> Path:
        self.path = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
        return self.path

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path)


def sqlite(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path / "q.sqlite", isolation_level=None)
    connection.execute("pragma journal_mode=wal")
    connection.execute("pragma synchronous=off")
    return connection


def lmdb(path: Path) -> Any:
    import lmdb as library

    return library.open(str(path / "lmdb"), map_size=8 << 30, sync=False, metasync=False)


# -- one row at a time


def append_rows(count: int, schema: pa.Schema | None, row: dict[str, Any]) -> float:
    with Place() as path, ps.open(path / "hub") as hub:
        append = hub.streams.get("s", schema=schema).append
        start = time.perf_counter()
        for _ in range(count):
            append(row)
        return count / (time.perf_counter() - start)


def append_sqlite(count: int) -> float:
    with Place() as path:
        connection = sqlite(path)
        connection.execute("create table t (n integer primary key, document text)")
        start = time.perf_counter()
        for _ in range(count):
            connection.execute("insert into t (document) values (?)", (json.dumps(DOCUMENT),))
        taken = time.perf_counter() - start
        connection.close()
        return count / taken


def append_lmdb(count: int) -> float:
    with Place() as path:
        environment = lmdb(path)
        start = time.perf_counter()
        for number in range(count):
            with environment.begin(write=True) as transaction:
                transaction.put(number.to_bytes(8, "big"), json.dumps(DOCUMENT).encode(), append=True)
        taken = time.perf_counter() - start
        environment.close()
        return count / taken


# -- 64 KiB at a time


def batch() -> pa.RecordBatch:
    generator = np.random.default_rng(7)
    return pa.record_batch({"a": generator.random(BATCH_ROWS), "b": np.arange(BATCH_ROWS)})


def append_batches(total: int) -> float:
    data = batch()
    with Place() as path, ps.open(path / "hub") as hub:
        append = hub.streams.get("s", schema=data.schema).append
        count = total // data.nbytes
        start = time.perf_counter()
        for _ in range(count):
            append(data)
        return count * data.nbytes / (time.perf_counter() - start) / 1e6


def append_raw(total: int) -> float:
    data = batch().serialize().to_pybytes()
    with Place() as path:
        fd = os.open(path / "raw", os.O_WRONLY | os.O_CREAT)
        count = total // len(data)
        start = time.perf_counter()
        for _ in range(count):
            os.write(fd, data)
        taken = time.perf_counter() - start
        os.close(fd)
        return count * len(data) / taken / 1e6


def append_blobs(total: int) -> float:
    data = batch()
    with Place() as path:
        connection = sqlite(path)
        connection.execute("create table t (n integer primary key, blob blob)")
        count = total // data.nbytes
        start = time.perf_counter()
        for _ in range(count):
            connection.execute("insert into t (blob) values (?)", (data.serialize().to_pybytes(),))
        taken = time.perf_counter() - start
        connection.close()
        return count * data.nbytes / taken / 1e6


def append_lmdb_batches(total: int) -> float:
    data = batch()
    with Place() as path:
        environment = lmdb(path)
        count = total // data.nbytes
        start = time.perf_counter()
        for number in range(count):
            with environment.begin(write=True) as transaction:
                transaction.put(number.to_bytes(8, "big"), data.serialize().to_pybytes(), append=True)
        taken = time.perf_counter() - start
        environment.close()
        return count * data.nbytes / taken / 1e6


# -- reading it back: every column copied out into one warm buffer, so that all sides touch all bytes


def reading(total: int) -> tuple[dict[str, Callable[[], float]], Callable[[], None]]:
    data = batch()
    count = total // data.nbytes
    place = Place()
    path = place.__enter__()
    hub = ps.open(path / "hub")
    stream = hub.streams.get("s", schema=data.schema)
    connection, environment = sqlite(path), lmdb(path)
    connection.execute("create table t (n integer primary key, blob blob)")
    # each batch in memory of its own, as the log's are
    batches = [pa.ipc.read_record_batch(pa.py_buffer(bytes(data.serialize())), data.schema) for _ in range(count)]
    connection.execute("begin")
    with environment.begin(write=True) as transaction:
        for number in range(count):
            stream.append(data)
            message = data.serialize().to_pybytes()
            connection.execute("insert into t (blob) values (?)", (message,))
            transaction.put(number.to_bytes(8, "big"), message, append=True)
    connection.execute("commit")
    out = np.empty(data.nbytes, np.uint8)
    half = data.nbytes // 2

    def copy_out(found: pa.RecordBatch) -> None:
        out[:half] = found.column(0).to_numpy().view(np.uint8)
        out[half:] = found.column(1).to_numpy().view(np.uint8)

    def timed(work: Callable[[], None]) -> Callable[[], float]:
        def run() -> float:
            start = time.perf_counter()
            work()
            return count * data.nbytes / (time.perf_counter() - start) / 1e6

        return run

    def again() -> None:
        for chunk in stream.chunks():
            copy_out(chunk.batch)

    def first() -> None:
        """A new hub: nothing mapped yet, and every message's digest is checked."""
        with ps.open(path / "hub") as other:
            for chunk in other.streams.get("s").chunks():
                copy_out(chunk.batch)

    def table() -> None:
        found = stream.read()
        for at in range(found.column(0).num_chunks):
            out[:half] = found.column(0).chunk(at).to_numpy().view(np.uint8)
            out[half:] = found.column(1).chunk(at).to_numpy().view(np.uint8)

    def memory() -> None:
        """The same work from memory: a batch's two columns, copied out."""
        for number in range(count):
            copy_out(batches[number])

    def from_sqlite() -> None:
        for (blob,) in connection.execute("select blob from t order by n"):
            copy_out(pa.ipc.read_record_batch(pa.py_buffer(blob), data.schema))

    def from_lmdb() -> None:
        with environment.begin(buffers=True) as transaction:
            for _, value in transaction.cursor():
                copy_out(pa.ipc.read_record_batch(pa.py_buffer(value), data.schema))

    def clean() -> None:
        hub.close()
        connection.close()
        environment.close()
        place.__exit__()

    sides = {
        "memory copy, batch by batch": memory,
        "penstock, first time in a process": first,
        "penstock, again": again,
        "penstock, as one table": table,
        "lmdb": from_lmdb,
        "sqlite": from_sqlite,
    }
    return {name: timed(side) for name, side in sides.items()}, clean


# -- from an append to a function in another process


def latency(kind: str, count: int = 400) -> float:
    with Place() as path:
        context = multiprocessing.get_context("spawn")
        receive, send = context.Pipe(duplex=False)
        process = context.Process(target=_listen, args=(kind, str(path), count, send))
        producer = _producer(kind, path)
        process.start()
        receive.recv()  # the other side is up
        for _ in range(count):
            producer()
            time.sleep(0.003)
        delays = sorted(receive.recv())
        process.join()
        print(f"    {kind}: p50 {delays[count // 2]:,.0f} us, p99 {delays[count * 99 // 100]:,.0f} us")
        return statistics.median(delays)


def _producer(kind: str, path: Path) -> Callable[[], object]:
    if kind.startswith("penstock"):
        stream = ps.open(path / "hub").streams.get("s")
        return lambda: stream.append({"t": time.time_ns()})
    if kind.startswith("sqlite"):
        connection = sqlite(path)
        connection.execute("create table t (n integer primary key, t integer)")
        return lambda: connection.execute("insert into t (t) values (?)", (time.time_ns(),))
    environment = lmdb(path)
    number = iter(range(1 << 40))

    def put() -> None:
        with environment.begin(write=True) as transaction:
            transaction.put(next(number).to_bytes(8, "big"), time.time_ns().to_bytes(8, "big"), append=True)

    return put


def _listen(kind: str, folder: str, count: int, send: Any) -> None:
    path, delays = Path(folder), []
    if kind == "penstock tail":
        stream = ps.open(path / "hub").streams.get("s")
        send.send(None)
        for found in stream.tail("start"):
            now = time.time_ns()
            delays += [(now - row["t"]) / 1000 for row in ps.records.batch_to_rows(found)]
            if len(delays) >= count:
                break
    elif kind == "penstock CountWindow(1)":
        streaming = ps.open(path / "hub").streams.get("s", lazy=True)
        send.send(None)
        streaming.apply(lambda window: delays.append((time.time_ns() - window.data[0]["t"]) / 1000), max_windows=count)
    elif kind.startswith("sqlite"):
        connection, seen = sqlite(path), 0
        send.send(None)
        while len(delays) < count:
            for number, sent in connection.execute("select n, t from t where n > ?", (seen,)).fetchall():
                seen = number
                delays.append((time.time_ns() - sent) / 1000)
            time.sleep(0.001)
    else:
        environment, at = lmdb(path), 0
        send.send(None)
        while len(delays) < count:
            with environment.begin() as transaction:
                value = transaction.get(at.to_bytes(8, "big"))
            if value is None:
                time.sleep(0.001)
            else:
                at += 1
                delays.append((time.time_ns() - int.from_bytes(value, "big")) / 1000)
    send.send(delays)


# -- windows: rows are there; each side takes n at a time, calls a function, and commits how far it came


def windows_ours(size: int, rows: int) -> float:
    with Place() as path, ps.open(path / "hub") as hub:
        stream = hub.streams.get("s")
        for _ in range(0, rows, 1000):
            stream.append([DOCUMENT] * 1000)
        streaming = hub.streams.get("s", lazy=True, size=size, blocking=False)
        seen = []
        start = time.perf_counter()
        streaming.apply(lambda window: seen.append(len(window.data)))
        taken = time.perf_counter() - start
        assert sum(seen) == rows
        return rows / size / taken


def windows_sqlite(size: int, rows: int) -> float:
    """The usual queue on SQLite: rows with a number, a table with the position of the group."""
    with Place() as path:
        connection = sqlite(path)
        connection.execute("create table t (n integer primary key, document text)")
        connection.execute("create table groups (name text primary key, n integer)")
        connection.execute("insert into groups values ('default', 0)")
        connection.execute("begin")
        connection.executemany("insert into t (document) values (?)", [(json.dumps(DOCUMENT),)] * rows)
        connection.execute("commit")
        seen, done = [], 0
        start = time.perf_counter()
        while done < rows:
            found = connection.execute("select document from t where n > ? order by n limit ?", (done, size)).fetchall()
            seen.append(len([json.loads(document) for (document,) in found]))
            done += size
            connection.execute("update groups set n = ? where name = 'default'", (done,))
        taken = time.perf_counter() - start
        connection.close()
        assert sum(seen) == rows
        return rows / size / taken


def main() -> None:
    options = arguments("The log and the windows beside SQLite and LMDB.", rows=50_000, megabytes=256)
    rows, total = options.rows, options.megabytes << 20
    out: list[dict[str, Any]] = []
    sides: dict[str, Callable[[], float]] = {
        "penstock, a dict as a document": lambda: append_rows(rows, None, DOCUMENT),
        "penstock, a dict into TRADES (7 columns)": lambda: append_rows(rows, ps.records.TRADES, ROW),
        "sqlite WAL, one insert each": lambda: append_sqlite(rows),
        "lmdb, one transaction each": lambda: append_lmdb(rows),
    }
    against = "sqlite WAL, one insert each"
    out += show("one-row appends", rounds(sides, options.rounds), "rows/s", against)
    sides = {
        "write() of the same bytes": lambda: append_raw(total),
        "penstock": lambda: append_batches(total),
        "sqlite WAL, a blob each": lambda: append_blobs(total),
        "lmdb, one transaction each": lambda: append_lmdb_batches(total),
    }
    out += show("64 KiB batches", rounds(sides, options.rounds), "MB/s", "write() of the same bytes")
    sides, clean = reading(total)
    out += show(
        "64 KiB batches read and copied out", rounds(sides, options.rounds), "MB/s", "memory copy, batch by batch"
    )
    clean()
    print("\nappend to another process, one row every 3 ms")
    kinds = ["penstock tail", "penstock CountWindow(1)", "sqlite polled each ms", "lmdb polled each ms"]
    figures = {kind: [latency(kind)] for kind in kinds}
    out += show("append to another process, median", figures, "us", "sqlite polled each ms")
    for size in (1, 100):
        sides = {
            "penstock, groups and documents": lambda size=size: windows_ours(size, rows * min(size, 20)),
            "sqlite WAL queue": lambda size=size: windows_sqlite(size, rows * min(size, 20)),
        }
        figures = rounds(sides, options.rounds)
        out += show(f"windows of {size}", figures, "windows/s", "sqlite WAL queue")
        print(f"  ... that is {statistics.median(figures['penstock, groups and documents']) * size:,.0f} rows/s")
    write(options.json, out, "penstock", "pyarrow", "numpy", "lmdb")


if __name__ == "__main__":
    main()
