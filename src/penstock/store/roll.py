"""Rows of the stream → data files of the table, each exactly once.

A roll takes the rows after the offset that the table's own log names, writes them as sorted files, and adds these files
in one commit together with the offset after the last of them. So a roller that is killed at any instant has either done
its work or left files that nobody knows, which a vacuum removes. The order on disk is: the stream is flushed (or the
table could name rows that a lost power supply takes back), then the files, then the commit, and only then may the log
forget.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from penstock.clock import WALL
from penstock.errors import GroupBusy, OffsetError, PenstockWarning
from penstock.log import Chunk, Position, Stream
from penstock.log.disk import storage
from penstock.log.lock import FileLock
from penstock.store.columns import plain
from penstock.store.delta import add_action, txn_action
from penstock.store.hot import with_system
from penstock.store.layout import TIME
from penstock.store.merge import ints, order_of
from penstock.store.parts import write_part
from penstock.store.repeats import repeated
from penstock.store.state import DataFile, State
from penstock.store.table import PASSING, Table

__all__ = ["GROUP", "Rolled", "files_of", "forget", "locked", "roll"]

GROUP: Final = "store"  # the stream's consumer group: what retention may forget
MIN_ROWS: Final = 10_000
MAX_ROWS: Final = 2_000_000  # of one commit: bounds a roller's memory
MAX_AGE_NS: Final = 60_000_000_000
_SEAL_BYTES: Final = 4 << 20  # a stream shorter than that may stay as it is


@dataclass(frozen=True, slots=True)
class Rolled:
    """What a roll did: rows and files written, commits made, and the stream's offset it has come to."""

    rows: int = 0
    files: int = 0
    commits: int = 0
    offset: int = 0


@contextlib.contextmanager
def locked(table: Table, *, wait: bool = True) -> Iterator[bool]:
    """Hold the table's maintenance lock; yields False when another has it and `wait` is not set.

    Raises  ReadOnly where nothing may be written; KeyNotFound when the table was dropped.
    """
    try:
        with storage(table.folder, "a lock"):
            lock = FileLock(table.folder / "_penstock" / "lock")
    except FileNotFoundError:
        raise table.gone() from None
    try:
        if wait:
            lock.acquire()
            yield True
        else:
            yield lock.acquire_nowait()
    finally:
        lock.release()
        lock.close()


def roll(
    table: Table,
    *,
    force: bool = False,
    min_rows: int = MIN_ROWS,
    max_rows: int = MAX_ROWS,
    commits: int | None = None,
    wait: bool = True,
) -> Rolled:
    """Roll what is due: `min_rows` rows, or any that are older than a minute; all of them when `force`.

    Takes   max_rows: of one commit; commits: at most so many; wait: for another process that rolls.
    Returns nothing done when another process rolls and `wait` is not set.
    Raises  StorageError, DiskFull; rows that were not rolled stay in the log and in every answer.
    """
    with locked(table, wait=wait) as held:
        if not held:
            return Rolled()
        return _roll(table, force=force, min_rows=min_rows, max_rows=max_rows, commits=commits)


def _roll(table: Table, *, force: bool, min_rows: int, max_rows: int, commits: int | None = None) -> Rolled:
    stream = table.stream
    state = table.state()
    done = Rolled(offset=table.rolled(state))
    while commits is None or done.commits < commits:
        start = table.rolled(state)
        pieces, stop = _rows(table, stream, start, max_rows, force=force, min_rows=min_rows)
        if not pieces:
            break
        rows = pa.concat_tables(pieces)
        stream.sync()
        files = files_of(table, rows)
        actions: list[dict[str, Any]] = [add_action(file, data_change=True) for file in files]
        actions.append(txn_action(table.rolled_app(stream), stop))
        for who, (at, index) in _origins(stream, start, stop).items():
            actions.append(txn_action(table.origin_app(who), at, expires=index == PASSING))
        schema = table.log.with_schema(state, table.delta_schema())
        if schema is not None:
            actions.insert(0, schema)
        before = start

        def still(newer: State, before: int = before) -> bool:
            return table.rolled(newer) == before

        committed = table.log.commit(state, "WRITE", actions, still)
        if committed is None:  # somebody rolled without the lock: what it wrote counts
            state = table.state()
            continue
        state = committed
        table.put_state(state)
        done = Rolled(done.rows + rows.num_rows, done.files + len(files), done.commits + 1, stop)
    forget(table, stream, done.offset)
    return done


def _rows(
    table: Table, stream: Stream, start: int, max_rows: int, *, force: bool, min_rows: int
) -> tuple[list[pa.Table], int]:
    """What is due from offset `start` on, as tables of one schema, and the offset after it."""
    waiting = stream.next_offset - start
    if waiting <= 0:
        return [], start
    try:
        chunks = stream.chunks(start)
        first = next(chunks, None)
    except OffsetError:
        kept = stream.first_offset
        warnings.warn(
            f"table {table.name!r}: offsets {start} to {kept} of stream {stream.name!r} were dropped by its retention"
            " before they were rolled",
            PenstockWarning,
            stacklevel=4,
        )
        chunks = stream.chunks(kept)
        first = next(chunks, None)
    if first is None:
        return [], start
    if not force and waiting < min_rows and WALL.now_ns() - int(first.created[0]) < MAX_AGE_NS:
        return [], start
    pieces: list[pa.Table] = []
    rows, left_out, stop = 0, 0, start
    chunk: Chunk | None = first
    while chunk is not None:
        chunk = chunk.slice(0, max_rows - rows)
        piece = with_system(chunk, table.layout)
        if pieces and not piece.schema.equals(pieces[0].schema):
            break  # widened in between: the next commit has the other schema
        pieces.append(piece)
        rows, left_out, stop = rows + len(chunk), left_out + len(chunk) - piece.num_rows, chunk.stop
        if rows >= max_rows:
            break
        chunk = next(chunks, None)
    if left_out:
        warnings.warn(
            f"table {table.name!r}: {left_out} rows of stream {stream.name!r} at offsets {start} to {stop} have no"
            f" `{table.layout.key}` or `{table.layout.time}` and are not in the table",
            PenstockWarning,
            stacklevel=4,
        )
    return pieces, stop


def _origins(stream: Stream, start: int, stop: int) -> dict[int, tuple[int, int]]:
    """How far each source has come within these offsets: (position, index)."""
    found: dict[int, tuple[int, int]] = {}
    reader = stream.reader(start)
    while reader.offset < stop and (entries := reader.entries()) is not None:
        mine = (entries["origin_id"] != 0) & (entries["first"] + entries["rows"] <= stop)
        ends = zip(entries["origin"][mine].tolist(), entries["origin_index"][mine].tolist(), strict=True)
        found |= dict(zip(entries["origin_id"][mine].tolist(), ends, strict=True))
    return found


def files_of(table: Table, rows: pa.Table) -> list[DataFile]:
    """Write rows (with TIME, KNOWN, OFFSET, in the user's types) as sorted data files, one per partition.

    Takes   rows: of offsets between which there are no others.
    """
    layout = table.layout
    schema = table.stored_schema()
    days = layout.partitions(ints(rows, TIME))
    found = []
    for day in np.unique(days):
        part = rows if (days == day).all() else rows.filter(pa.array(days == day))
        order, last = order_of(part, layout, one_key=False)
        order = order[~repeated(part, order, last, layout, told=table.may_be_told)]
        if len(order) < part.num_rows or not (order[1:] > order[:-1]).all():
            part = part.take(pa.array(order))
        partition = str(day) if layout.partition_columns else None
        found.append(write_part(table.parts.files, as_stored(part, schema, table), layout, partition))
    return found


def as_stored(rows: pa.Table, schema: pa.Schema, table: Table) -> pa.Table:
    """Rows in the types of a data file; columns they lack are null."""
    columns = []
    for field in schema:
        name = TIME if field.name == table.layout.time else field.name
        at = rows.schema.get_field_index(name)
        if at < 0:
            columns.append(pa.nulls(rows.num_rows, field.type))
        else:
            column = plain(rows.column(at))
            if pa.types.is_dictionary(column.type):
                column = column.cast(column.type.value_type)
            elif pa.types.is_fixed_size_list(column.type) and column.null_count:
                column = _without_null_slots(column)
            columns.append(column if column.type.equals(field.type) else column.cast(field.type))
    return pa.Table.from_arrays(
        [c.combine_chunks() if isinstance(c, pa.ChunkedArray) else c for c in columns], schema=schema
    )


def _without_null_slots(column: pa.ChunkedArray) -> pa.Array:
    """Lists of one length as lists: in those of one length a null has values, too, which Parquet does not take."""
    array = column.combine_chunks()
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    stops = np.concatenate(([0], np.cumsum(valid) * array.type.list_size))
    values = array.filter(pa.array(valid)).flatten()
    return pa.ListArray.from_arrays(pa.array(stops, pa.int32()), values, mask=pa.array(~valid))


def forget(table: Table, stream: Stream, offset: int) -> None:
    """Let the stream forget what is in data files, as its retention says."""
    if stream.position(GROUP).low >= offset:
        return
    try:
        group = stream.group(GROUP, start=0 if stream.first_offset == 0 else None)
    except GroupBusy:
        return
    with contextlib.closing(group):
        if group.position.low < offset:
            group.commit(Position(offset, -1, offset))
    if table.owns_stream:
        if stream.metadata().bytes > _SEAL_BYTES:
            stream.seal()
        stream.retain()
