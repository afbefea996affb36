"""What a server of a store does, without a network: the store's verbs, with frames in a fixed amount of memory.

Every read reserves room for its frame before it begins, and keeps it until the frame is given back; large frames are
read one at a time, since a read takes more than its frame for a moment. Rows that wait in the log are rolled when they
would take a sixteenth of the memory, and what takes more, a compaction, is done by another process.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any, Final, NamedTuple, cast

import pyarrow as pa

from penstock.clock import WALL
from penstock.errors import CorruptFile, FrameTooLarge, KeyNotFound, StoreError, UnknownStream, UsageError
from penstock.store.cache import FrameCache
from penstock.store.frames import converted, row_bytes
from penstock.store.paths import check_path, has_wildcard
from penstock.store.query import named
from penstock.store.roll import roll
from penstock.store.service.aside import maintain
from penstock.store.service.asked import Asker, Question
from penstock.store.service.keeper import Keeper
from penstock.store.service.memory import peak_bytes
from penstock.store.service.writers import Writers
from penstock.store.store import Store
from penstock.store.table import Table
from penstock.store.wish import moment

__all__ = ["Desk"]

_NONE: Final = -(2**63)  # the position of one that has written nothing
_PATIENCE_S: Final = 30.0
_HOT_BYTES: Final = 16 << 20  # of rows that wait in the log, of a table
_ROLLED_BYTES: Final = 8 << 20  # of rows in one commit; it takes about five times as much for a moment
_QUERY_S: Final = 60.0
_QUERY_BYTES: Final = 16 << 20  # that a query has whatever the budget is: duckdb cannot begin with less


class _Place(NamedTuple):
    """What a frame is of: the key of the cache."""

    path: str
    app: str
    start: int | None
    end: int | None
    columns: tuple[str, ...] | None
    as_of: int | None
    revisions: bool
    on_corrupt: str
    version: tuple[int, int]

    def __repr__(self) -> str:
        return repr(self.path)


class Desk:
    """A store behind a memory budget. Safe for many threads; `with` closes it.

    Takes   store; max_bytes: of frames held, being read and being sent; own: whether closing it closes the store;
            rolls: roll what waits in the log when it takes too much of the memory.
    """

    def __init__(self, store: Store, max_bytes: int, *, own: bool = False, rolls: bool = True) -> None:
        self.store, self.cache = store, FrameCache(max_bytes)
        self._max, self._own, self._rolls = max_bytes, own, rolls
        self._one = threading.Lock()
        self._mutex = threading.Lock()
        self._asking, self._asker = threading.Lock(), Asker(store.hub.path)
        self._writers = Writers()
        self._counts = {"reads": 0, "writes": 0, "queries": 0, "rows_out": 0, "rows_in": 0, "skipped": 0}
        self._began = WALL.now_ns()
        self.keeper: Keeper | None = None  # what rolls and compacts, if something does

    @property
    def name(self) -> str:
        """Where the store is."""
        return str(self.store.hub.path)

    # -- reading

    @contextmanager
    def lend(
        self,
        path: str,
        start: Any = None,
        end: Any = None,
        columns: Sequence[str] | None = None,
        *,
        as_of: Any = None,
        revisions: bool = False,
        on_corrupt: str = "raise",
    ) -> Iterator[pa.Table]:
        """The rows of a path, as `Store.read` gives them; their bytes count as used until the block ends.

        Raises  FrameTooLarge before anything is read; StoreError when the memory stays taken; what `Store.read` raises.
        """
        table, key = self.store.split(path)
        low, high, known = moment(start, "start"), moment(end, "end"), moment(as_of, "as_of")
        names = None if columns is None else tuple(columns)
        size = self.estimate(table, key, low, high, names)
        wish: dict[str, Any] = {"as_of": known, "revisions": revisions, "on_corrupt": on_corrupt}
        read = partial(table.read, key, low, high, names, **wish)
        place = _Place(path, table.app, low, high, names, version=table.version(), **wish)
        if not self.cache.holds(place):
            self.cache.evict(lambda held: cast("_Place", held)[:-1] == place[:-1])  # the same, out of date
        # While it is read, a frame takes its room twice: as it was stored, and merged.
        room = size if size > self._max else min(2 * size, self._max)
        with self.cache.lend(place, room, partial(self._load, read, size), patience=_PATIENCE_S) as frame:
            with self._mutex:
                self._counts["reads"] += 1
                self._counts["rows_out"] += frame.num_rows
            yield frame

    def _load(self, read: Callable[[], pa.Table], size: int) -> pa.Table:
        if size < self._max // 16:
            return read()
        with self._one:
            frame = read()
            # What the read took beside its frame goes back to the system, not to the allocator's own store.
            pa.default_memory_pool().release_unused()
        return frame

    def estimate(
        self,
        table: Table,
        key: str | None,
        start: int | None = None,
        end: int | None = None,
        columns: Sequence[str] | None = None,
    ) -> int:
        """Bytes that a read will about take. Cost: footers of data files, once."""
        keys = table.keys(key) if key is not None and has_wildcard(key) else [key]
        size = 0
        for attempt in range(3):
            try:
                size = sum(table.estimate(one, start, end) for one in keys)
                break
            except CorruptFile:
                break  # the read says which, or passes over it
            except FileNotFoundError:  # a vacuum was faster
                if attempt == 2:
                    raise
                table.forget_state()
        if columns is None or not size:
            return size
        known = [field for field in table.schema if field.name in columns]
        whole = max(row_bytes(table.schema), 1)
        return size * min(row_bytes(pa.schema(known)) + 8 * (len(columns) - len(known)), whole) // whole

    def read(
        self,
        path: str,
        start: Any = None,
        end: Any = None,
        columns: Sequence[str] | None = None,
        *,
        to: str = "arrow",
        **options: Any,
    ) -> Any:
        """As `Store.read`; a frame over the budget is refused before it is read."""
        with self.lend(path, start, end, columns, **options) as frame:
            return converted(frame, to)

    @contextmanager
    def lend_answer(self, query: str, start: Any = None, end: Any = None, as_of: Any = None) -> Iterator[pa.Table]:
        """The answer of a query, one select, by duckdb in a process of its own, kept from files and the network.

        Its bytes count as used until the block ends; until it is there those of the tables it names, and what it may
        take beside them, which another process takes. Queries take turns.
        Raises  FrameTooLarge when the tables, or the answer, do not fit; as `Store.sql`.
        """
        place = _Place("", uuid.uuid4().hex, None, None, None, None, False, "", (0, 0))
        tables = named(self.store, query)
        low, high, known = moment(start, "start"), moment(end, "end"), moment(as_of, "as_of")
        size = sum(self.estimate(table, None, low, high) for table in tables.values())
        self._check_together(size)
        memory = max(_QUERY_BYTES, min(self._max - size, self._max // 2))
        # A read takes its frame twice for a moment, and the estimate may be wrong.
        question = Question(query, list(tables), low, high, known, 3 * size, memory, _QUERY_S)
        with ExitStack() as stack:
            with self._turn():
                with self._mutex:
                    self._counts["queries"] += 1
                answer = partial(self._asker.ask, question)
                room = min(size + memory, self._max)
                found = stack.enter_context(self.cache.lend(place, room, answer, patience=_PATIENCE_S))
            self.cache.evict(lambda held: held == place)  # nobody will ask for it again
            yield found

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._asking.acquire(timeout=2 * _QUERY_S):
            raise StoreError("other queries are under way", where="in the store's server", hint="try again")
        try:
            yield
        finally:
            self._asking.release()

    def _check_together(self, size: int) -> None:
        if size > self._max:
            raise FrameTooLarge(
                expected=f"tables of at most {self._max} bytes together",
                got=f"about {size}",
                where="in the query",
                hint="give start and end, or give more memory",
                size=size,
                limit=self._max,
            )

    def sql(self, query: str, *, start: Any = None, end: Any = None, as_of: Any = None, to: str = "arrow") -> Any:
        """As `lend_answer`, to keep."""
        with self.lend_answer(query, start, end, as_of) as found:
            return converted(found, to)

    # -- writing

    def write(
        self, path: str, data: Any, *, origin: tuple[str, int] | None = None, retry: bool = False
    ) -> range | None:
        """As `Store.write`. With an `origin` (who, position) what that one has written before is not written again:
        positions at or below its last one are passed over, and None is the answer.

        Takes   retry: that the rows may have been sent before, to this process or to one that was killed.
        """
        found = self._written(path, data, origin, retry)
        with self._mutex:
            if found is None:
                self._counts["skipped"] += 1
            else:
                self._counts["writes"] += 1
                self._counts["rows_in"] += len(found)
        return found

    def _written(self, path: str, data: Any, origin: tuple[str, int] | None, retry: bool) -> range | None:
        if origin is None:
            return self.store.write(path, data)
        who, position = origin
        with self._writers.turn(who) as done:
            if position <= self._done(done, path, who, retry):
                return None
            found = self.store.write(path, data, origin=origin)
            with suppress(KeyNotFound):  # dropped meanwhile
                done[self.store.split(path)[0].app] = position
            return found

    def _done(self, done: dict[str, int], path: str, who: str, retry: bool) -> int:
        """The last position of `who` in the table of a path."""
        try:
            table = self.store.split(path)[0]
        except KeyNotFound:  # the first write makes the table
            return _NONE
        if table.app not in done and retry:
            before = table.last_origin(who)
            done[table.app] = _NONE if before is None else before[0]
        return done.get(table.app, _NONE)

    def cool(self, path: str) -> None:
        """Roll a table's rows when those that wait would take a sixteenth of the memory, or 16 MB; call it after a
        write.
        """
        if self._rolls:
            with suppress(KeyNotFound, UnknownStream):  # dropped meanwhile
                self._cool(path)

    def _cool(self, path: str) -> None:
        table = self.store.split(path)[0]
        size = row_bytes(table.schema)
        most = min(self._max // 16, _HOT_BYTES) // size
        rows = max(1, min(max(10_000, most), _ROLLED_BYTES // size))

        def waiting(fresh: bool) -> int:
            return int(table.stream.next_offset) - table.rolled(table.state(fresh=fresh))

        if waiting(False) > most and waiting(True) > most:
            with self._one:  # it takes several times its rows, as a large read does
                if waiting(True) > most:  # else another has done it while we waited
                    roll(table, force=True, max_rows=rows, wait=False)
            if waiting(True) > 4 * most:  # another process is at it, and we write faster: wait for it
                roll(table, force=True, max_rows=rows)

    def last_origin(self, path: str, who: str) -> tuple[int, int] | None:
        """How far a source has come in a table; None when the table is not there yet."""
        try:
            return self.store.split(check_path(path))[0].last_origin(who)
        except KeyNotFound:
            return None

    def create(self, name: str, schema: pa.Schema, **options: Any) -> None:
        """As `Store.create`."""
        self.store.create(name, schema, **options)

    def drop(self, name: str) -> None:
        """As `Store.drop`; its frames go."""
        self.store.drop(name)
        self.evict(name)

    def maintain(self, path: str | None = None, *, force: bool = True, **options: Any) -> dict[str, Any]:
        """As `Store.maintain`, in a process of its own; what was done, in JSON's types."""
        names = None if path is None else self.store.split(path)[0].name
        return maintain(self.store.hub.path, names, force=force, **options)

    # -- looking

    def ls(self, prefix: str = "") -> list[str]:
        """As `Store.ls`."""
        return self.store.ls(prefix)

    def schema(self, path: str) -> pa.Schema:
        """As `Store.schema`."""
        return self.store.schema(path)

    def evict(self, path: str = "") -> int:
        """Let go of frames: of a table or a key, or all; returns their bytes. Those being sent stay until they are."""
        if path:
            check_path(path)

        def wanted(held: Any) -> bool:
            return not path or held.path == path or held.path.startswith(path + "/")

        freed = self.cache.evict(wanted)
        pa.default_memory_pool().release_unused()
        return freed

    def stats(self, level: int = 0) -> dict[str, Any]:
        """Numbers, in JSON's types: 0 memory, configuration and counts; 1 also frames and tables; 2 also keys.

        Raises  UsageError for another level.   Cost  30 µs for level 0; the others look at every table.
        """
        if level not in (0, 1, 2):
            raise UsageError(expected="level 0, 1 or 2", got=repr(level), where="in stats")
        cache = self.cache.statistics()
        with self._mutex:
            counts = dict(self._counts)
        found: dict[str, Any] = {
            "memory": {"used": cache.used, "free": cache.free, "max": cache.max, "lent": cache.lent},
            "config": {"root_path": self.name, "max_memory": cache.max},
            "frames": {
                **{"held": cache.frames, "hits": cache.hits, "misses": cache.misses},
                **{"evicted": cache.evicted, "refused": cache.refused},
            },
            "requests": counts,
            "process": {
                "pid": os.getpid(),
                "uptime_s": (WALL.now_ns() - self._began) / 1e9,
                "arrow_bytes": pa.total_allocated_bytes(),
                "arrow_peak_bytes": pa.default_memory_pool().max_memory(),
                "peak_bytes": peak_bytes(),
            },
            "upkeep": self._upkeep(),
        }
        if level:
            places = [cast("_Place", place) for place in self.cache.keys()]
            found["held"] = [{"path": p.path, "start": p.start, "end": p.end} for p in places]
            found["store"] = self.store.stats(level)
        return found

    def _upkeep(self) -> dict[str, Any]:
        return {"running": False} if self.keeper is None else self.keeper.statistics()

    def health(self) -> dict[str, Any]:
        """{"ok": whether all is well, "problems": what is not, as text}."""
        upkeep, problems = self._upkeep(), []
        if self.keeper is not None and not upkeep["running"]:
            problems.append(f"the upkeep ended with exit code {upkeep['last_exit']}, and is about to be started again")
        return {"ok": not problems, "problems": problems}

    def close(self) -> None:
        """Let all frames go, and the store, if it is its own."""
        self.cache.evict()
        self._asker.close()
        if self._own:
            self.store.close()

    def __enter__(self) -> Desk:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Desk({self.name!r})"
