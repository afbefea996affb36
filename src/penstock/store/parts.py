"""Data files of a table: Parquet, sorted by key and time, with the place of each key in the footer.

Reading one key's rows touches the footer (kept in memory, files never change) and the few row groups that hold them.
Every page has a checksum, which is checked when it is read.
"""

from __future__ import annotations

import base64
import bisect
import threading
import uuid
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from penstock.clock import WALL
from penstock.errors import CorruptFile
from penstock.log.format import digest
from penstock.log.lock import at_fork
from penstock.store.files import Files
from penstock.store.layout import KNOWN, OFFSET, Layout
from penstock.store.state import DataFile

__all__ = ["Part", "Parts", "write_part"]

ROW_GROUP: Final = 16_384  # one key's day of minute bars is a part of one; 65,536 costs four times as much to read
_KEYS: Final = b"penstock.keys"
_FOOTERS: Final = 4096


def write_part(
    files: Files, rows: pa.Table, layout: Layout, partition: str | None, *, row_group: int = ROW_GROUP
) -> DataFile:
    """Write sorted rows as a data file, durably; nobody sees it before a commit names it.

    Takes   rows: at least one, with the columns of `layout.stored`, sorted by `merge.order_of`, of one partition.
    """
    runs = pc.run_end_encode(rows.column(layout.key).combine_chunks(), run_end_type=pa.int64())
    index = pa.record_batch({"key": runs.values, "stop": runs.run_ends})
    sink = pa.BufferOutputStream()
    options = {"compression": "zstd", "use_dictionary": [layout.key], "write_page_checksum": True}
    with pq.ParquetWriter(sink, rows.schema, store_schema=False, **options) as writer:
        writer.write_table(rows, row_group_size=row_group)
        writer.add_key_value_metadata({_KEYS: _packed(index)})
    data = sink.getvalue()
    name = f"{uuid.uuid4().hex}.parquet"
    path = name if partition is None else f"{layout.date}={partition}/{name}"
    files.write(path, data)
    low, high = {layout.key: runs.values[0].as_py()}, {layout.key: runs.values[-1].as_py()}
    for column in (layout.time, KNOWN, OFFSET):
        ends = pc.min_max(rows.column(column))
        low[column], high[column] = ends["min"].as_py(), ends["max"].as_py()
    values: dict[str, str | None] = {} if partition is None else {layout.date: partition}
    return DataFile(path, data.size, rows.num_rows, values, low, high, WALL.now_ns() // 1_000_000)


def _packed(index: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, index.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_batch(index)
    data = bytes(sink.getvalue())
    # Text, for which other readers take these; with a digest, because a footer has no checksum.
    return b"%016x" % digest(data) + base64.b64encode(data)


class Part:
    """The footer of a data file: which rows are whose, and in which row groups."""

    def __init__(self, file: DataFile, metadata: Any, layout: Layout) -> None:
        self.file, self.metadata, self._layout = file, metadata, layout
        self.names: list[str] = metadata.schema.to_arrow_schema().names
        counts = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        self.stops = np.cumsum(counts) if counts else np.zeros(0, np.int64)

    @cached_property
    def index(self) -> tuple[list[str], list[int]] | None:
        """Keys in order, and the row after the last of each; None for a file of another program."""
        packed = (self.metadata.metadata or {}).get(_KEYS)
        if packed is None:  # another program's file
            return None
        data = base64.b64decode(packed[16:])
        if b"%016x" % digest(data) != packed[:16]:
            raise ValueError("another index of keys than was written")
        table = pa.ipc.open_stream(data).read_all()
        return table["key"].to_pylist(), table["stop"].to_pylist()

    @property
    def keys(self) -> dict[str, int] | None:
        """Rows of each key; None for a file of another program."""
        if self.index is None:
            return None
        keys, stops = self.index
        return dict(zip(keys, np.diff(stops, prepend=0).tolist(), strict=True))

    def range(self, key: str) -> tuple[int, int] | None:
        """First row of a key and the one after its last; all rows when the file does not say."""
        if self.index is None:
            return 0, self.metadata.num_rows
        keys, stops = self.index
        at = bisect.bisect_left(keys, key)
        if at == len(keys) or keys[at] != key:
            return None
        return (stops[at - 1] if at else 0), stops[at]

    @cached_property
    def times(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Smallest and greatest event time of each row group."""
        column = self.names.index(self._layout.time)
        found = [self.metadata.row_group(i).column(column).statistics for i in range(self.metadata.num_row_groups)]
        ends = [(s.min, s.max) if s is not None and s.has_min_max else (-(2**63), 2**63 - 1) for s in found]
        low, high = np.array(ends, np.int64).reshape(-1, 2).T
        return low, high


class Parts:
    """Reads data files of one table. Safe for many threads; keeps the footers of the last few thousand files.

    Raises  CorruptFile, once and then at every further use without another look at the file (`quarantined`);
            FileNotFoundError when a vacuum has taken it.
    """

    def __init__(self, files: Files, layout: Layout, table: str) -> None:
        self.files, self.layout, self.table = files, layout, table
        self.quarantined: dict[str, str] = {}
        self._footers: dict[str, Part] = {}
        self.after_fork()
        at_fork(self)

    def after_fork(self) -> None:
        self._mutex = threading.Lock()

    def part(self, file: DataFile) -> Part:
        """The footer of a file."""
        with self._mutex:
            found = self._footers.pop(file.path, None)
            if found is not None:
                self._footers[file.path] = found
                return found
        self._check(file)
        try:
            with self.files.source(file.path) as source:
                found = Part(file, pq.read_metadata(source), self.layout)
            found.index  # noqa: B018 - it is made at first use, which is to be here
        except (pa.ArrowException, OSError, ValueError) as error:
            raise self._corrupt(file, error) from error
        with self._mutex:
            self._footers[file.path] = found
            while len(self._footers) > _FOOTERS:
                del self._footers[next(iter(self._footers))]
        return found

    def keys(self, file: DataFile) -> dict[str, int]:
        """Rows of each key of a file. Cost: its footer; for a file of another program its key column."""
        found = self.part(file).keys
        if found is None:
            read = self.read(file, None, -(2**63), 2**63 - 1, [self.layout.key])
            counts = [] if read is None else pc.value_counts(read.column(self.layout.key).combine_chunks()).to_pylist()
            found = {count["values"]: count["counts"] for count in counts}
        return found

    def has(self, file: DataFile, key: str) -> bool:
        """Whether a file has rows of a key. Cost: its footer; for a file of another program its key column."""
        part = self.part(file)
        return part.range(key) is not None if part.index is not None else key in self.keys(file)

    def read(
        self, file: DataFile, keys: Sequence[str] | None, low: int, high: int, columns: Sequence[str]
    ) -> pa.Table | None:
        """Rows of `keys` (None: all) with event times in [low, high), as they are stored; None when there are none.

        Takes   columns: those wanted; what the file lacks is left out. For one key its column need not be among them.
        """
        part = self.part(file)
        layout = self.layout
        first, stop = 0, part.metadata.num_rows
        if keys is not None:
            ranges = [found for key in keys if (found := part.range(key)) is not None]
            if not ranges:
                return None
            first, stop = min(a for a, _ in ranges), max(b for _, b in ranges)
        groups = np.arange(
            np.searchsorted(part.stops, first, side="right"), np.searchsorted(part.stops, stop, side="left") + 1
        )
        exact = keys is not None and len(keys) == 1 and part.index is not None
        if len(groups) > 1 or not exact:
            lows, highs = part.times
            groups = groups[(highs[groups] >= low) & (lows[groups] < high)]
        if not len(groups):
            return None
        wanted = [name for name in columns if name in part.names]
        for name in (layout.time, KNOWN, OFFSET, *(() if exact else (layout.key,))):
            if name not in wanted and name in part.names:
                wanted.append(name)
        table = self._groups(file, part, groups.tolist(), wanted)
        if exact:
            at = int(part.stops[groups[0] - 1]) if groups[0] else 0
            table = table.slice(max(first - at, 0), stop - max(first, at))
            times = table.column(layout.time).to_numpy()
            begin, end = np.searchsorted(times, (low, high))
            return table.slice(begin, end - begin)
        times = table.column(layout.time).to_numpy()
        keep = (times >= low) & (times < high)
        if keys is not None:
            keep &= pc.is_in(table.column(layout.key), pa.array(keys, pa.string())).to_numpy()
        return table if keep.all() else table.filter(pa.array(keep))

    def _groups(self, file: DataFile, part: Part, groups: list[int], columns: list[str]) -> pa.Table:
        self._check(file)
        try:
            with (
                self.files.source(file.path) as source,
                pq.ParquetFile(source, metadata=part.metadata, page_checksum_verification=True) as opened,
            ):
                return opened.read_row_groups(groups, columns=columns, use_threads=len(groups) > 8)
        except (pa.ArrowException, OSError) as error:
            raise self._corrupt(file, error) from error

    def _check(self, file: DataFile) -> None:
        if file.path in self.quarantined:
            raise self._error(file, self.quarantined[file.path])

    def _corrupt(self, file: DataFile, error: Exception) -> Exception:
        if isinstance(error, OSError) and error.errno is not None:  # of the machine, not of the file
            return error
        return self.quarantine(file, str(error).split("\n")[0])

    def quarantine(self, file: DataFile, reason: str) -> CorruptFile:
        """Read this file no more; the error that says why."""
        self.quarantined[file.path] = reason
        return self._error(file, reason)

    def _error(self, file: DataFile, reason: str) -> CorruptFile:
        return CorruptFile(
            expected=f"a data file of {file.rows} rows",
            got=reason,
            where=f"in table {self.table!r}, at {file.path}",
            hint='restore the file and open the store again; on_corrupt="skip" reads what other files hold',
            table=self.table,
            file=file.path,
        )
