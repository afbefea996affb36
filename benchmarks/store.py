"""The store beside a directory of Parquet files, SQLite, DuckDB and naive Delta appends: the same rows, in one run.

`append`: batches of 100 rows × 8 columns (one minute of 100 keys each), one call per batch, beside those that promise
the same: that what was appended survives a killed process, or a lost power supply. `read`: one key's range of 200
minutes out of them, after the appends and again after each side's own maintenance: cold (opened anew, its files out of
the page cache), first (opened anew), and warm (the best of 20). Every side's rows are compared with the others'.

`ingest`: rows per second in batches of 20,000, until they are in their place; ours from frames to Delta files, log and
roll together. `day`: one key's day out of `--million` rows, beside other readers of the same files, whose answers are
compared, too. Peak memory is of a process of its own, and its start (some 100 MB of libraries) is told beside it.

    python benchmarks/store.py [append read ingest day] [--batches 1000] [--million 10] [--rounds 3] [--json FILE]

On two quiet cores append and read take about a minute per round, most of it naive Delta; ingest half a minute per
round; day about three seconds per million rows: `day --million 100` five minutes, and 3 GB of the temporary folder.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import resource
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
KILLED, POWER = "a killed process", "a lost power supply"
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

    promise = KILLED

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

    promise = POWER

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "always")


class Files:
    """a Parquet file per batch, pyarrow"""

    promise = KILLED

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


class FilesFlushed(Files):
    """a Parquet file per batch, flushed"""

    promise = POWER

    def append(self, batch: pa.Table) -> None:
        super().append(batch)
        for path in (self.folder / f"{self.count - 1:06}.parquet", self.folder):
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)


class Sqlite:
    """SQLite, WAL, key (symbol, ts_event)"""

    promise = POWER

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

    promise = POWER

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

    promise = KILLED

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
    found: list[Any] = [Ours, OursAlways, Files, FilesFlushed, Sqlite]
    if importlib.util.find_spec("duckdb"):
        found.append(Duck)
    if naive and importlib.util.find_spec("deltalake") and importlib.util.find_spec("polars"):
        found.append(Delta)
    return {" ".join((side.__doc__ or "").split()): side for side in found}


Time = tuple[float, float]
"""Milliseconds: by the clock, and of the processor."""


def timed(act: Callable[[], Any]) -> Time:
    began, spent = time.perf_counter(), time.process_time()
    act()
    return (time.perf_counter() - began) * 1e3, (time.process_time() - spent) * 1e3


def emptied(folder: Path) -> None:
    """Take a folder's files out of the page cache: the next read is the disk's."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


@contextmanager
def scratch() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="penstock-store-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def listed(title: str, figures: dict[str, list[Time]], against: str) -> list[dict[str, Any]]:
    """As `_report.show`, for milliseconds: the best is the least."""
    base = statistics.median(wall for wall, _ in figures[against])
    print(f"\n{title} (ms){'best':>{67 - len(title)}}{'median':>12}{'CPU':>12}{'ratio':>10}")
    rows = []
    for name, values in figures.items():
        walls, cpu = [wall for wall, _ in values], statistics.median(cpu for _, cpu in values)
        middle = statistics.median(walls)
        facts = {"unit": "ms", "best": min(walls), "median": middle, "cpu": cpu, "ratio": middle / base}
        rows.append({"what": title, "side": name, **facts})
        print(f"  {name:<56}{min(walls):>14,.2f}{middle:>12,.2f}{cpu:>12,.2f}{middle / base:>9.2f}x")
    return rows


def beside(title: str, figures: dict[str, list[Time]]) -> list[dict[str, Any]]:
    """A table for each promise, so that ratios are between those who do the same work."""
    rows = []
    made = sides(naive=True)
    for promise, ours in ((KILLED, "penstock.store"), (POWER, "penstock.store, flushed at each append")):
        mine = {name: values for name, values in figures.items() if made[name].promise == promise}  # type: ignore[attr-defined]
        rows += listed(f"{title}, survives {promise}", mine, ours)
    return rows


def small(batches: int, count: int) -> list[dict[str, Any]]:
    """Append and read."""
    frames = [frame(minute) for minute in range(batches)]
    low = START + batches // 3 * MINUTE
    high = low + min(200, batches // 3) * MINUTE
    appends: dict[str, list[Time]] = {}
    figures: dict[str, dict[str, list[Time]]] = {}

    def note(what: str, name: str, value: Time) -> None:
        figures.setdefault(what, {}).setdefault(name, []).append(value)

    for make in sides(naive=True).values():  # whatever is imported or set up at first use
        with scratch() as folder:
            side = make(folder / "data")
            side.append(frames[0])
            side.maintain()
            side.reopen()
            side.read("S0050", START, START + MINUTE)
    order = list(sides(naive=True).items())
    for turn in range(count):
        expected: pa.Table | None = None
        # In turns: what one side leaves behind in the process and in the system is not always the same one's neighbour.
        for name, make in order[turn % len(order) :] + order[: turn % len(order)]:
            with scratch() as folder:
                side = make(folder / "data")
                appends.setdefault(name, []).append(timed(lambda: [side.append(f) for f in frames]))  # noqa: B023
                for when in ("after the appends", "after maintenance"):
                    if when == "after maintenance":
                        note("maintenance", name, timed(side.maintain))
                    read = lambda side=side: side.read("S0050", low, high)  # noqa: E731
                    side.reopen()
                    emptied(folder)
                    note(f"one key's range, cold, {when}", name, timed(read))
                    side.reopen()
                    note(f"one key's range, first, {when}", name, timed(read))
                    note(f"one key's range, warm, {when}", name, min(timed(read) for _ in range(20)))
                    found = read()
                    found = pa.table({c: pc.cast(found[c], SCHEMA.field(c).type) for c in COLUMNS}).combine_chunks()
                    expected = found if expected is None else expected
                    assert found.equals(expected), name
    rows = beside(f"append {batches} batches of {KEYS} rows", appends)
    for what, found in figures.items():
        rows += listed(what, found, "penstock.store")
    return rows


def rolled(side: Any) -> None:
    """Have rows where they stay: of ours, in Delta files."""
    if isinstance(side, Ours):
        side.store.flush()


def ingested(count: int, million: int = 2) -> list[dict[str, Any]]:
    """Batches of 20,000 rows, in order of time, until all are in their place."""
    frames = [frame(at * 40, 500, 40) for at in range(million * 50)]
    figures: dict[str, list[float]] = {}
    for _ in range(count):
        for name, make in sides(naive=True).items():
            with scratch() as folder:
                side = make(folder / "data")

                def all_of_it(side: Any = side) -> None:
                    for at, batch in enumerate(frames):
                        side.append(batch)
                        if at % 50 == 49:
                            rolled(side)

                wall, _cpu = timed(all_of_it)
                figures.setdefault(name, []).append(sum(f.num_rows for f in frames) / wall * 1e3)
    rows = []
    made = sides(naive=True)
    for promise, ours in ((KILLED, "penstock.store"), (POWER, "penstock.store, flushed at each append")):
        mine = {name: values for name, values in figures.items() if made[name].promise == promise}  # type: ignore[attr-defined]
        rows += show(f"ingest {million} million rows, survives {promise}", mine, "rows/s", ours)
    return rows


def large(million: int) -> list[dict[str, Any]]:
    """A key's day out of many, beside other readers of the same files."""
    start_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    rows: list[dict[str, Any]] = []
    with scratch() as folder:
        store = open_store(folder / "data")
        table = store.create("historical/minute", SCHEMA)
        keys, minutes = 500, 40  # one row per key and minute: 720,000 a day
        made, at, busy, cpu = 0, 0, 0.0, 0.0
        while made < million * 1_000_000:
            batch = frame(at, keys, minutes)
            at += minutes
            made += batch.num_rows

            def step(batch: pa.Table = batch) -> None:
                table.write(batch)
                if table.stream.next_offset - table.rolled(table.state()) >= 1_000_000:
                    store.flush()

            wall, spent = timed(step)
            busy, cpu = busy + wall, cpu + spent
        wall, spent = timed(store.flush)
        busy, cpu = busy + wall, cpu + spent
        title = f"ingest of {million} million rows, log and roll in one thread"
        figures = {"by the clock": [made / busy * 1e3], "by CPU time": [made / cpu * 1e3]}
        rows += show(title, figures, "rows/s", "by the clock")
        rows += listed("maintenance", {"ours": [timed(lambda: store.maintain(force=True, grace=0))]}, "ours")
        files = table.state().files.values()
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print(f"  {len(files)} files, {sum(f.size for f in files) / 1e6:,.0f} MB; ", end="")
        print(f"peak memory {peak_mb:,.0f} MB, {start_mb:,.0f} MB at the start")
        rows.append({"what": "peak memory", "side": "ours", "unit": "MB", "best": peak_mb, "start": start_mb})
        days = max(1, at * MINUTE // DAY)
        rows += one_day(folder / "data", keys, days)
        rows[-1]["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return rows


def one_day(hub: Path, keys: int, days: int) -> list[dict[str, Any]]:
    """Reads of one key's day by those who can read a Delta table, cold, opened anew, and again."""
    folder = hub / "tables" / "historical" / "minute"
    random = np.random.default_rng(1)
    readers = {"penstock.store": ours_day}
    if importlib.util.find_spec("polars") and importlib.util.find_spec("deltalake"):
        readers["polars, scan_delta"] = polars_day
    if importlib.util.find_spec("duckdb"):
        readers["duckdb, read_parquet, files of the day named"] = duckdb_day
    readers["pyarrow, files of the day named"] = pyarrow_day
    figures: dict[str, dict[str, list[Time]]] = {}
    for make in readers.values():  # whatever is imported at first use
        make(hub, folder)("S0000", 0)
    for _ in range(10):
        key, day = f"S{random.integers(keys):04d}", int(random.integers(days))
        expected: pa.Table | None = None
        for name, make in readers.items():
            found, times = day_by(make, hub, folder, key, day)
            for what, value in times.items():
                figures.setdefault(what, {}).setdefault(name, []).append(value)
            answer = pa.table({c: pc.cast(found[c], SCHEMA.field(c).type) for c in COLUMNS[1:]}).combine_chunks()
            expected = answer if expected is None else expected
            assert answer.num_rows > 0, name
            assert answer.equals(expected), name
    rows: list[dict[str, Any]] = []
    for what, found_ in figures.items():
        rows += listed(f"one key's day, {what}", found_, "penstock.store")
    return rows


def day_by(make: Any, hub: Path, folder: Path, key: str, day: int) -> tuple[pa.Table, dict[str, Time]]:
    """One reader's answer, and its times."""
    emptied(hub)
    cold = timed(lambda: make(hub, folder)(key, day))
    anew = timed(lambda: make(hub, folder)(key, day))
    read = make(hub, folder)
    found = read(key, day)
    return found, {"cold": cold, "opened anew": anew, "warm": min(timed(lambda: read(key, day)) for _ in range(5))}


Day = Callable[[str, int], pa.Table]


def ours_day(hub: Path, folder: Path) -> Day:
    store = open_store(hub)
    return lambda key, day: store.read(f"historical/minute/{key}", START + day * DAY, START + (day + 1) * DAY)


def _named(folder: Path, day: int) -> Path:
    return folder / f"date={np.datetime64(START + day * DAY, 'ns').astype('datetime64[D]')}"


def polars_day(hub: Path, folder: Path) -> Day:
    import polars as pl

    scan = pl.scan_delta(str(folder))

    def read(key: str, day: int) -> pa.Table:
        low, when = START + day * DAY, pl.col("ts_event")
        date = (np.datetime64(low, "ns").astype("datetime64[D]")).item()
        wanted = (pl.col("date") == date) & (pl.col("symbol") == key) & (when >= low) & (when < low + DAY)
        return scan.filter(wanted).collect().sort("ts_event").to_arrow()

    return read


def duckdb_day(hub: Path, folder: Path) -> Day:
    import duckdb

    db = duckdb.connect()

    def read(key: str, day: int) -> pa.Table:
        query = (
            f"select * from read_parquet('{_named(folder, day)}/*.parquet') where symbol = '{key}' order by ts_event"
        )
        return db.sql(query).to_arrow_table()

    return read


def pyarrow_day(hub: Path, folder: Path) -> Day:
    def read(key: str, day: int) -> pa.Table:
        return ds.dataset(_named(folder, day)).to_table(filter=ds.field("symbol") == key).sort_by("ts_event")

    return read


def main() -> None:
    options = arguments(__doc__ or "", ["append", "read", "ingest", "day"], batches=1000, million=10)
    rows = []
    if {"append", "read"} & set(options.parts):
        rows += small(options.batches, options.rounds)
    if "ingest" in options.parts:
        rows += ingested(options.rounds)
    if "day" in options.parts:
        with multiprocessing.get_context("spawn").Pool(1) as alone:  # its peak of memory is its own
            rows += alone.apply(large, (options.million,))
    write(options.json, rows, "numpy", "pyarrow", "deltalake", "polars", "duckdb")


if __name__ == "__main__":
    main()
