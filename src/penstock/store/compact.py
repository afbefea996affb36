"""Keeping a table quick: many small data files become few large ones, dead files go, the log gets checkpoints.

Compaction merges, within a partition, the files that are small beside those written before, so that a row is rewritten
about log2(partition / roll) times however many rolls and corrections there are. All revisions stay; what only repeats
the one before goes (`repeats`). Readers keep what they have begun with: a replaced file is removed only `grace` later,
and who comes later still starts again from the newer state.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from penstock.clock import WALL, duration_ns
from penstock.errors import CorruptFile, PenstockWarning, UsageError
from penstock.log.disk import storage
from penstock.store.delta import add_action, remove_action
from penstock.store.layout import OFFSET, TIME
from penstock.store.merge import order_of
from penstock.store.parts import write_part
from penstock.store.repeats import repeated
from penstock.store.roll import as_stored, locked
from penstock.store.state import KEEP_REMOVED_MS, DataFile, State
from penstock.store.table import Table
from penstock.store.wish import EVER

__all__ = ["Compacted", "checkpoint", "compact", "due", "grace_ns", "rewritten", "vacuum"]

MIN_FILES: Final = 4
FILE_ROWS: Final = 2_000_000  # a file of half of that is full
GROUP_ROWS: Final = 8_000_000  # of one merge: bounds its memory
CHECKPOINT_COMMITS: Final = 20
GRACE: Final = "1h"
_LOG_KEEP_NS: Final = 86_400_000_000_000

Progress = Callable[[int, int], None]
"""(rows done, rows in all)"""


@dataclass(frozen=True, slots=True)
class Compacted:
    """What a compaction did: partitions, files that went in and came out, rows rewritten."""

    partitions: int = 0
    before: int = 0
    after: int = 0
    rows: int = 0


def due(state: State, table: Table, *, min_files: int = MIN_FILES, everything: bool = False) -> list[list[DataFile]]:
    """The groups of files to merge: of each partition, from the smallest on, while a file is neither full nor larger
    than all before it together; at least `min_files`. With `everything`, all files of a partition in which at least
    two are not full.
    """
    partitions: dict[tuple[Any, ...], list[DataFile]] = {}
    for file in state.files.values():
        if file.path not in table.parts.quarantined:
            partitions.setdefault(tuple(file.partition.values()), []).append(file)
    found = []
    for key in sorted(partitions, key=str):
        files = sorted(partitions[key], key=lambda file: file.rows)
        if everything:
            if sum(2 * file.rows < FILE_ROWS for file in files) < 2:  # else it would never come to an end
                continue
        else:
            total, count = 0, 0
            for at, file in enumerate(files):
                if 2 * file.rows >= FILE_ROWS or (file.rows > total and at >= min_files):
                    break
                total, count = total + file.rows, at + 1
            files = files[:count]
        found += [group for group in _bounded(files) if len(group) >= (2 if everything else min_files)]
    return found


def _bounded(files: list[DataFile]) -> Iterator[list[DataFile]]:
    """`files` in groups of at most GROUP_ROWS."""
    group: list[DataFile] = []
    rows = 0
    for file in files:
        if group and rows + file.rows > GROUP_ROWS:
            yield group
            group, rows = [], 0
        group.append(file)
        rows += file.rows
    yield group


def compact(
    table: Table,
    *,
    everything: bool = False,
    min_files: int = MIN_FILES,
    file_rows: int = FILE_ROWS,
    wait: bool = True,
    progress: Progress | None = None,
) -> Compacted:
    """Merge what is due. A file that cannot be read is left where it is, with a warning; others go on.

    Cost    reads and writes each row of the groups that are due once; memory for one group's rows.
    """
    done = Compacted()
    with locked(table, wait=wait) as held:
        if not held:
            return done
        state = table.state()
        groups = due(state, table, min_files=min_files, everything=everything)
        total = sum(file.rows for group in groups for file in group)
        for group in groups:
            try:
                files = rewritten(table, group, state, file_rows)
            except CorruptFile as error:
                warnings.warn(f"{error}", PenstockWarning, stacklevel=2)
                continue
            actions = [remove_action(file, data_change=False) for file in group]
            actions += [add_action(file, data_change=False) for file in files]
            paths = [file.path for file in group]

            def still(newer: State, paths: list[str] = paths) -> bool:
                return all(path in newer.files for path in paths)

            committed = table.log.commit(state, "OPTIMIZE", actions, still)
            if committed is None:  # another program has taken one of them
                state = table.state()
                continue
            state = committed
            table.put_state(state)
            rows = sum(file.rows for file in group)
            done = Compacted(done.partitions + 1, done.before + len(group), done.after + len(files), done.rows + rows)
            if progress is not None:
                progress(done.rows, total)
    return done


def rewritten(
    table: Table, group: list[DataFile], state: State, file_rows: int, *, without: str | None = None
) -> list[DataFile]:
    """The rows of some files of a partition as sorted ones of at most about `file_rows`, cut between keys.

    Takes   without: a key whose rows are left out.
    """
    layout, schema = table.layout, table.stored_schema()
    pieces = []
    for file in group:
        found = table.parts.read(file, None, *EVER, schema.names)
        if found is not None and without is not None:
            found = found.filter(pc.not_equal(found.column(layout.key), without))
        if found is not None and found.num_rows:
            found = found.append_column(TIME, found.column(layout.time))
            pieces.append(as_stored(found, pa.schema([*schema, pa.field(TIME, pa.int64())]), table))
    if not pieces:
        return []
    rows = pa.concat_tables(pieces)
    order, last = order_of(rows, layout, one_key=False)
    again = repeated(rows, order, last, layout, told=table.may_be_told, between=_others(group, state))
    rows = rows.take(pa.array(order[~again])).select(schema.names)
    partition = next(iter(group[0].partition.values()), None)
    if rows.num_rows <= file_rows:
        return [write_part(table.parts.files, rows, layout, partition)]
    keys = rows.column(layout.key).combine_chunks()
    runs = pc.run_end_encode(keys, run_end_type=pa.int64()).run_ends.to_pylist()
    files, start = [], 0
    for at, stop in enumerate(runs):
        if at + 1 == len(runs) or runs[at + 1] - start > file_rows:
            files.append(write_part(table.parts.files, rows.slice(start, stop - start), layout, partition))
            start = stop
    return files


def _others(group: list[DataFile], state: State) -> list[tuple[int, int]]:
    """The offsets, first and last, of each other file of the partition; all there are for one that does not say."""
    mine, partition = {file.path for file in group}, group[0].partition
    others = [file for path, file in state.files.items() if path not in mine and file.partition == partition]
    return [(file.low.get(OFFSET, EVER[0]), file.high.get(OFFSET, EVER[1])) for file in others]


def checkpoint(table: Table, *, commits: int = CHECKPOINT_COMMITS) -> bool:
    """Write a checkpoint when there were `commits` commits since the last, and drop commits it makes needless."""
    with locked(table):
        last = table.log.last_checkpoint()
        state = table.log.load()
        if state.version - (-1 if last is None else last) < commits:
            return False
        table.log.checkpoint(state, _LOG_KEEP_NS)
        return True


def grace_ns(grace: Any) -> int:
    """How long replaced files stay, in ns. Raises UsageError."""
    found = duration_ns(grace, name="grace")
    if found > KEEP_REMOVED_MS * 1_000_000:
        raise UsageError(expected="a week at most", got=repr(grace), where="in grace")
    return found


def vacuum(table: Table, *, grace: Any = GRACE) -> int:
    """Remove files that no state names and that are older than `grace`; returns how many.

    A reader of this package that still wanted one starts again from the newer state; other programs need the grace.
    Raises  UsageError for a grace of more than a week: since when a file is dead is not remembered for longer.
    """
    oldest = WALL.now_ns() - grace_ns(grace)
    with locked(table), storage(table.folder, "the removal of files"):
        state = table.log.load()
        table.put_state(state)
        removed = table.log.sweep(state, oldest)
        for note in (table.folder / "_penstock").glob("*.new"):  # of a writer that was killed
            if note.stat().st_mtime_ns <= oldest:
                note.unlink(missing_ok=True)
        for note in (table.folder / "_penstock").glob("quarantine-*.json"):
            if json.loads(note.read_bytes())["file"] not in state.files:
                note.unlink(missing_ok=True)
    return removed
