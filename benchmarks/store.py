"""The store beside a directory of Parquet files, SQLite, DuckDB and naive Delta appends: the same rows, in one run.

`append`: batches of 100 rows × 8 columns (one minute of 100 keys each), one call per batch. `read`: one key's range of
200 minutes out of them, after the appends and again after each side's own maintenance: by a side that was just opened
anew, and then the best of 20. Every side's rows are compared with the others'. What each side promises differs and is
printed: SQLite and DuckDB flush to the disk at every commit, ours with durability="always" does, the others never.

`ingest`: rows per second from frames to Delta files, log and roll together. `day`: one key's day out of all of it.

    python benchmarks/store.py [append read ingest day] [--batches 1000] [--million 10] [--rounds 3] [--json FILE]
"""

from __future__ import annotations

import importlib.util
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
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from _report import arguments, show, write
from penstock.store import open as open_store

MINUTE = 60_000_000_000
DAY = 86_400_000_000_000
START = 1_767_225_600_000_000_000
KEYS = 100
COLUMNS = ["symbol", "ts_event", "open", "high", "low", "close", "vwap", "volume"]
SCHEMA = pa.schema(
    [
        ("symbol", pa.string()),
        ("ts_event", pa.int64()),
        *((c, pa.float64()) for c in COLUMNS[2:7]),
        ("volume", pa.int64()),
    ]
)


def frame(minute: int, keys: int = KEYS, minutes: int = 1) -> pa.Table:
    """One row per key and minute."""
    random = np.random.default_rng(minute)
    rows = keys * minutes
    price = np.round(100 + random.normal(0, 1, rows), 2)
    times = START + (minute + np.repeat(np.arange(minutes), keys)) * MINUTE
    names = pa.DictionaryArray.from_arrays(
        np.tile(np.arange(keys, dtype=np.int32), minutes), pa.array([f"S{n:04d}" for n in range(keys)])
    )
    columns = [price, price + 0.5, price - 0.5, price + 0.1, price + 0.05, random.integers(1, 1000, rows)]
    return pa.Table.from_arrays([names.cast(pa.string()), pa.array(times), *map(pa.array, columns)], schema=SCHEMA)


class Ours:
    """penstock.store"""

    promise = "a killed process"

    def __init__(self, folder: Path, durability: str = "os") -> None:
        self.folder = folder
        self.store = open_store(folder)
        self.store.create("historical/minute", SCHEMA, durability=durability)

    def append(self, batch: pa.Table) -> None:
        self.store.write("historical/minute", batch)

    def reopen(self) -> None:
        self.store.close()
        self.store = open_store(self.folder)

    def maintain(self) -> None:
        self.store.maintain(force=True, grace=0)

    def read(self, key: str, low: int, high: int) -> pa.Table:
        return self.store.read(f"historical/minute/{key}", low, high)


class OursAlways(Ours):
    """penstock.store, flushed at each append"""

    promise = "a lost power supply"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "always")


class Files:
    """a Parquet file per batch, pyarrow"""

    promise = "a killed process"

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        folder.mkdir()

    def append(self, batch: pa.Table) -> None:
        pq.write_table(batch, self.folder / f"{self.count:06}.parquet")
        self.count += 1

    def reopen(self) -> None: ...

    def maintain(self) -> None:
        whole = pq.read_table(self.folder).sort_by([("symbol", "ascending"), ("ts_event", "ascending")])
        for path in self.folder.glob("*.parquet"):
            path.unlink()
        pq.write_table(whole, self.folder / "all.parquet", row_group_size=16384, compression="zstd")

    def read(self, key: str, low: int, high: int) -> pa.Table:
        time_ = ds.field("ts_event")
        wanted = (ds.field("symbol") == key) & (time_ >= low) & (time_ < high)
        return ds.dataset(self.folder).to_table(filter=wanted).sort_by("ts_event")


class Sqlite:
    """SQLite, WAL, key (symbol, ts_event)"""

    promise = "a lost power supply"

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.path = folder / "bars.sqlite"
        self.reopen()
        columns = ", ".join(COLUMNS)
        self.db.execute(f"create table bars ({columns}, primary key (symbol, ts_event)) without rowid")

    def reopen(self) -> None:
        self.db = sqlite3.connect(self.path, isolation_level=None)
        self.db.execute("pragma journal_mode=wal")
        self.db.execute("pragma synchronous=full")

    def append(self, batch: pa.Table) -> None:
        rows = zip(*(column.to_pylist() for column in batch.columns), strict=True)
        self.db.execute("begin")
        self.db.executemany("insert or replace into bars values (?,?,?,?,?,?,?,?)", rows)
        self.db.execute("commit")

    def maintain(self) -> None:
        self.db.execute("pragma wal_checkpoint(truncate)")

    def read(self, key: str, low: int, high: int) -> pa.Table:
        query = "select * from bars where symbol = ? and ts_event >= ? and ts_event < ? order by ts_event"
        columns = list(zip(*self.db.execute(query, (key, low, high)).fetchall(), strict=True))
        return pa.Table.from_arrays([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)


class Duck:
    """DuckDB, insert from Arrow"""

    promise = "a lost power supply"

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.path = str(folder / "bars.duckdb")
        self.db: Any = None
        self.reopen()
        columns = ", ".join(f"{c} double" for c in COLUMNS[2:7])
        self.db.execute(f"create table bars (symbol varchar, ts_event bigint, {columns}, volume bigint)")

    def reopen(self) -> None:
        import duckdb

        if self.db is not None:
            self.db.close()
        self.db = duckdb.connect(self.path)

    def append(self, batch: pa.Table) -> None:
        self.db.register("batch", batch)
        self.db.execute("insert into bars select * from batch")

    def maintain(self) -> None:
        self.db.execute("checkpoint")

    def read(self, key: str, low: int, high: int) -> pa.Table:
        query = (
            f"select * from bars where symbol = '{key}' and ts_event >= {low} and ts_event < {high} order by ts_event"
        )
        return self.db.sql(query).to_arrow_table()


class Delta:
    """Delta, a commit per batch, deltalake"""

    promise = "a killed process"

    def __init__(self, folder: Path) -> None:
        self.path = str(folder)

    def append(self, batch: pa.Table) -> None:
        from deltalake import write_deltalake

        write_deltalake(self.path, batch, mode="append")

    def reopen(self) -> None: ...

    def maintain(self) -> None:
        from deltalake import DeltaTable

        table = DeltaTable(self.path)
        table.optimize.z_order(["symbol", "ts_event"])
        table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
        table.create_checkpoint()

    def read(self, key: str, low: int, high: int) -> pa.Table:
        import polars as pl

        when = pl.col("ts_event")
        wanted = (pl.col("symbol") == key) & (when >= low) & (when < high)
        return pl.scan_delta(self.path).filter(wanted).collect().sort("ts_event").to_arrow()


def sides(*, naive: bool) -> dict[str, Callable[[Path], Any]]:
    found: list[Any] = [Ours, OursAlways, Files, Sqlite]
    if importlib.util.find_spec("duckdb"):
        found.append(Duck)
    if naive and importlib.util.find_spec("deltalake") and importlib.util.find_spec("polars"):
        found.append(Delta)
    return {" ".join((side.__doc__ or "").split()): side for side in found}


def timed(act: Callable[[], Any]) -> float:
    began = time.perf_counter()
    act()
    return (time.perf_counter() - began) * 1e3


def small(batches: int, count: int) -> list[dict[str, Any]]:
    """Append and read."""
    frames = [frame(minute) for minute in range(batches)]
    low = START + batches // 3 * MINUTE
    high = low + min(200, batches // 3) * MINUTE
    figures: dict[str, dict[str, list[float]]] = {}

    def note(what: str, name: str, value: float) -> None:
        figures.setdefault(what, {}).setdefault(name, []).append(value)

    for make in sides(naive=True).values():  # whatever is imported or set up at first use
        folder = Path(tempfile.mkdtemp())
        side = make(folder / "data")
        side.append(frames[0])
        side.maintain()
        side.reopen()
        side.read("S0050", START, START + MINUTE)
        shutil.rmtree(folder)
    for _ in range(count):
        expected: pa.Table | None = None
        for name, make in sides(naive=True).items():
            folder = Path(tempfile.mkdtemp())
            try:
                side = make(folder / "data")
                note(f"append {batches} batches of {KEYS} rows", name, timed(lambda: [side.append(f) for f in frames]))  # noqa: B023
                for when in ("after the appends", "after maintenance"):
                    if when == "after maintenance":
                        note("maintenance", name, timed(side.maintain))
                    side.reopen()
                    read = lambda side=side: side.read("S0050", low, high)  # noqa: E731
                    note(f"one key's range, first read, {when}", name, timed(read))
                    note(f"one key's range, warm, {when}", name, min(timed(read) for _ in range(20)))
                    found = pa.table(
                        {c: pc.cast(side.read("S0050", low, high)[c], SCHEMA.field(c).type) for c in COLUMNS}
                    )
                    expected = found if expected is None else expected
                    assert found.combine_chunks().equals(expected.combine_chunks()), name
            finally:
                shutil.rmtree(folder)
    rows: list[dict[str, Any]] = []
    ours = "penstock.store"
    for what, sides_ in figures.items():
        rows += slowest_last(what, sides_, ours)
    print("\nwhat an append survives: " + "; ".join(f"{n}: {s.promise}" for n, s in sides(naive=True).items()))  # type: ignore[attr-defined]
    return rows


def slowest_last(title: str, figures: dict[str, list[float]], against: str) -> list[dict[str, Any]]:
    """As `show`, for milliseconds: the best is the least."""
    base = statistics.median(figures[against])
    print(f"\n{title} (ms)")
    rows = []
    for name, values in figures.items():
        middle = statistics.median(values)
        rows.append(
            {"what": title, "side": name, "unit": "ms", "best": min(values), "median": middle, "ratio": middle / base}
        )
        print(f"  {name:<44}{min(values):>16,.2f}{middle:>16,.2f}{middle / base:>9.2f}x")
    return rows


def large(million: int, parts: list[str]) -> list[dict[str, Any]]:
    """Ingest, and a key's day."""
    folder = Path(tempfile.mkdtemp())
    rows: list[dict[str, Any]] = []
    try:
        store = open_store(folder / "data")
        table = store.create("historical/minute", SCHEMA)
        keys, minutes = 500, 40  # one row per key and minute: 720,000 a day
        made, busy, cpu, at = 0, 0.0, 0.0, 0
        while made < million * 1_000_000:
            batch = frame(at, keys, minutes)
            at += minutes
            began, spent = time.perf_counter(), time.process_time()
            table.write(batch)
            made += batch.num_rows
            if table.stream.next_offset - table.rolled(table.state()) >= 1_000_000:
                store.flush()
            busy, cpu = busy + time.perf_counter() - began, cpu + time.process_time() - spent
        began, spent = time.perf_counter(), time.process_time()
        store.flush()
        busy, cpu = busy + time.perf_counter() - began, cpu + time.process_time() - spent
        title = f"ingest of {million} million rows, log and roll in one thread"
        rows += show(title, {"by the clock": [made / busy], "by CPU time": [made / cpu]}, "rows/s", "by the clock")
        print(f"  {len(table.state().files)} files, {sum(f.size for f in table.state().files.values()) / 1e6:,.0f} MB")
        rows += slowest_last(
            "maintenance", {"penstock.store": [timed(lambda: store.maintain(force=True))]}, "penstock.store"
        )
        if "day" in parts:
            days = at * MINUTE // DAY
            figures: dict[str, list[float]] = {
                "first read of a day, store opened anew": [],
                "first read, store open": [],
                "warm": [],
            }
            random = np.random.default_rng(1)
            for _ in range(20):
                key, day = f"S{random.integers(keys):04d}", START + int(random.integers(max(1, days))) * DAY
                path = f"historical/minute/{key}"
                store.close()
                store = open_store(folder / "data")
                read = lambda path=path, day=day: store.read(path, day, day + DAY)  # noqa: B023, E731
                figures["first read of a day, store opened anew"].append(timed(read))
                other = f"historical/minute/S{random.integers(keys):04d}"
                day = START + int(random.integers(max(1, days))) * DAY
                figures["first read, store open"].append(timed(lambda: store.read(other, day, day + DAY)))  # noqa: B023
                figures["warm"].append(min(timed(read) for _ in range(5)))
            rows += slowest_last(f"one key's day out of {million} million rows", figures, "warm")
    finally:
        shutil.rmtree(folder)
    return rows


def main() -> None:
    options = arguments(__doc__ or "", ["append", "read", "ingest", "day"], batches=1000, million=10)
    rows = []
    if {"append", "read"} & set(options.parts):
        rows += small(options.batches, options.rounds)
    if {"ingest", "day"} & set(options.parts):
        rows += large(options.million, options.parts)
    write(options.json, rows, "numpy", "pyarrow", "deltalake", "polars", "duckdb")


if __name__ == "__main__":
    main()
