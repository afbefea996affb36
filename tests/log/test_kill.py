"""Processes that are killed, forked and interrupted at any moment: no acknowledged row is lost, none is there twice."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import struct
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock.errors import GroupBusy, PenstockWarning, StreamError
from penstock.log import Folder, Position, Stream
from penstock_tests.waiting import PATIENCE_S, until

Fork = Callable[..., BaseProcess]

SCHEMA = pa.schema(
    [pa.field("who", pa.int64(), nullable=False), pa.field("seq", pa.int64(), nullable=False), ("text", pa.string())]
)
SEQ = struct.Struct("<q")


def produce(path: Path, who: int, told: int) -> None:
    """Append numbered rows for ever, and tell each number once its append has returned."""
    warnings.simplefilter("ignore", PenstockWarning)
    stream = Folder(path).stream("in")
    last = stream.last_origin(f"producer {who}")
    seq = 0 if last is None else last[0] + 1
    chance = random.Random(os.getpid())
    while True:
        kind = chance.random()
        count = 1 if kind < 0.8 else chance.randrange(1, 6)
        # Large ones are written page by page, so that a kill leaves a part of them.
        text = "x" * chance.choice([0, 5, 30, 200, 200_000 if kind > 0.97 else 9])
        rows = [{"who": who, "seq": seq + i, "text": text} for i in range(count)]
        data: Any = rows[0] if count == 1 else rows if kind < 0.9 else pa.Table.from_pylist(rows, SCHEMA)
        stream.append(data, origin=(f"producer {who}", seq + count - 1))
        seq += count
        os.write(told, SEQ.pack(seq - 1))


def consume(path: Path, told: int) -> None:
    """Copy every row to another stream, exactly once: the copy's origin is the offset it was made from."""
    warnings.simplefilter("ignore", PenstockWarning)
    hub = Folder(path)
    source, into = hub.stream("in"), hub.stream("out")
    while True:
        try:
            group = source.group("copy")
            break
        except GroupBusy:  # the one before is dead, but perhaps not yet buried
            time.sleep(0.001)
    last = into.last_origin("copy")
    begin = max(group.position.offset, 0 if last is None else last[0])
    for chunk in source.chunks(begin, follow=True):
        rows = chunk.batch.select(["who", "seq"]).append_column(
            "offset", pa.array(np.arange(chunk.first, chunk.stop, dtype=np.int64))
        )
        into.append(rows, origin=("copy", chunk.stop))
        group.commit(Position(chunk.stop, low=chunk.stop))
        os.write(told, SEQ.pack(chunk.stop))


class Worker:
    """A process that is killed and started again; `told` is the last number it has told."""

    def __init__(self, fork: Fork, function: Callable[..., None], *arguments: Any) -> None:
        self._fork, self._function, self._arguments = fork, function, arguments
        self.told = -1
        self._ours, theirs = os.pipe()
        os.set_blocking(self._ours, False)
        self._theirs = theirs
        self.start()

    def start(self) -> None:
        self.process = self._fork(self._function, *self._arguments, self._theirs)

    def listen(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._ours, 1 << 16):
                self.told = SEQ.unpack(data[-SEQ.size :])[0]

    def kill(self) -> None:
        assert self.process.is_alive(), f"{self._function.__name__} ended by itself: exit code {self.process.exitcode}"
        os.kill(self.process.pid or 0, signal.SIGKILL)
        self.process.join(PATIENCE_S)
        self.listen()

    def close(self) -> None:
        os.close(self._ours)
        os.close(self._theirs)


@pytest.fixture
def workers(fork: Fork) -> Iterator[Callable[..., Worker]]:
    started: list[Worker] = []

    def start(function: Callable[..., None], *arguments: Any) -> Worker:
        started.append(Worker(fork, function, *arguments))
        return started[-1]

    yield start
    for worker in started:
        worker.process.kill()
        worker.process.join(PATIENCE_S)
        worker.close()


@pytest.mark.slow
@pytest.mark.parametrize("durability, kills", [("os", 220), ("group", 60)])
def test_kill_anybody_at_any_moment(durability: str, kills: int, hub: Folder, workers: Callable[..., Worker]) -> None:
    stream = hub.stream("in", schema=SCHEMA, segment_bytes=30_000, durability=durability)
    hub.stream("out", schema=pa.schema([(name, pa.int64()) for name in ("who", "seq", "offset")]), segment_bytes=9_000)
    producers = [workers(produce, hub.path, who) for who in range(2)]
    consumer = workers(consume, hub.path)
    everybody = [*producers, consumer]
    chance = random.Random(7)
    for _ in range(kills):
        time.sleep(chance.random() * chance.choice([0.002, 0.02, 0.05]))
        for worker in everybody:
            worker.listen()  # a full pipe would hold them up
        victim = chance.choice(everybody)
        victim.kill()
        victim.start()

    def have_done_enough() -> bool:
        for worker in everybody:
            worker.listen()
        return min(worker.told for worker in everybody) > 50

    until(have_done_enough)
    for worker in everybody:
        worker.kill()

    fresh = Folder(hub.path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PenstockWarning)  # of the tail that the last kill left
        fresh.stream("in").append({"who": 9, "seq": 0, "text": None})
    rows = fresh.stream("in").read(columns=["who", "seq", "_offset", "_created"])
    assert rows["_offset"].to_pylist() == list(range(rows.num_rows))
    assert (np.diff(rows["_created"].cast(pa.int64()).to_numpy()) >= 0).all()
    who, seq = rows["who"].to_numpy(), rows["seq"].to_numpy()
    for number, producer in enumerate(producers):
        mine = seq[who == number]
        assert mine.tolist() == list(range(len(mine))), "in order, none missing, none twice"
        assert producer.told < len(mine), "an acknowledged row is lost"
    assert fresh.stream("in").metadata().segments > 5
    for path in sorted(stream._folder.glob("*.arrow")):
        with pa.ipc.open_stream(path.read_bytes()) as plain:
            plain.read_all().validate(full=True)

    # What was killed last left the copy somewhere: let it be finished, then it is the original.
    finisher = workers(consume, hub.path)

    def is_finished() -> bool:
        finisher.listen()
        return finisher.told >= rows.num_rows

    until(is_finished)
    finisher.kill()
    copied = Folder(hub.path).stream("out").read()
    assert copied["offset"].to_pylist() == list(range(rows.num_rows))
    assert copied.select(["who", "seq"]) == rows.select(["who", "seq"]).cast(copied.select(["who", "seq"]).schema)


def test_threads_append_while_children_are_forked_and_append(hub: Folder, fork: Fork) -> None:
    """A fork may come while any thread holds any lock: the child must neither hang nor hold what is its parent's."""
    stream = hub.stream("s", schema=SCHEMA, segment_bytes=20_000, durability="group")
    stop = threading.Event()

    def parent(who: int) -> None:
        for seq in itertools.count():
            if stop.is_set():
                break
            stream.append({"who": who, "seq": seq, "text": None})
            if seq % 5 == 0:
                stream.read(max(0, stream.next_offset - 3))

    def child(who: int) -> None:
        for seq in range(20):
            stream.append({"who": who, "seq": seq, "text": "child"} if seq % 2 else [{"who": who, "seq": seq}])
        assert stream.read().num_rows >= 20
        with contextlib.suppress(GroupBusy):
            stream.group("g").close()

    threads = [threading.Thread(target=parent, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    children = []
    for who in range(100, 112):
        children.append(fork(child, who))
        stream.group(f"g{who}").close()
    for process in children:
        process.join(PATIENCE_S)
    stop.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert [process.exitcode for process in children] == [0] * len(children)
    rows = Folder(hub.path).stream("s").read()
    counts = Counter(zip(rows["who"].to_pylist(), rows["seq"].to_pylist(), strict=True))
    assert set(counts.values()) == {1}
    for who in [*range(4), *range(100, 112)]:
        mine = [seq for w, seq in counts if w == who]
        assert mine == list(range(len(mine)))
        assert who < 100 or len(mine) == 20


def test_a_child_of_a_killed_parent_does_not_keep_its_lock(hub: Folder, fork: Fork) -> None:
    stream = hub.stream("s")
    stream.append({"a": 1})
    ours, theirs = os.pipe()

    def parent() -> None:
        found = Folder(hub.path).stream("s")
        with found._writer().locked():  # killed in the middle of an append, its child lives on
            child = os.fork()
            if child:
                os.write(theirs, SEQ.pack(child))
            time.sleep(600)
            os._exit(0)

    process = fork(parent)
    child = SEQ.unpack(os.read(ours, SEQ.size))[0]
    os.kill(process.pid or 0, signal.SIGKILL)
    thread = threading.Thread(target=stream.append, args=({"a": 2},), daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    try:
        assert not thread.is_alive(), "the dead process's lock is still held"
    finally:
        os.kill(child, signal.SIGKILL)


class Interrupt(Exception):
    pass


@pytest.mark.skipif(
    sys.gettrace() is not None, reason="with a tracer (coverage) no two bytecodes are one step any more"
)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.timeout(method="thread")  # the alarm is this test's own
@pytest.mark.parametrize("durability", ["os", "group"])
def test_signal_handlers_that_raise_leave_no_lock_held_and_no_half_append(durability: str, hub: Folder) -> None:
    """As Ctrl-C does, at any bytecode."""
    stream = hub.stream("s", schema=SCHEMA, segment_bytes=5_000, durability=durability)
    other = Folder(hub.path).stream("s")

    def raised(*_: object) -> None:
        raise Interrupt

    chance = random.Random(3)
    before = signal.signal(signal.SIGALRM, raised)
    sure: list[int] = []
    interrupted = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PenstockWarning)
        numbers = iter(range(600))
        try:
            while True:
                try:
                    for seq in numbers:
                        signal.setitimer(signal.ITIMER_REAL, chance.random() * 60e-6 + 1e-6)
                        stream.append(
                            {"who": 0, "seq": seq, "text": "x" * 20} if seq % 3 else [{"who": 0, "seq": seq}] * 1
                        )
                        signal.setitimer(signal.ITIMER_REAL, 0)
                        sure.append(seq)
                    break
                except Interrupt:
                    interrupted += 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        for found, what in ((other, "processes"), (stream, "threads")):
            thread = threading.Thread(target=found.append, args=({"who": 1, "seq": 0},), daemon=True)
            thread.start()
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), f"a lock between {what} is still held"
    there = [row["seq"] for row in Folder(hub.path).stream("s").rows() if row["who"] == 0]
    assert there == sorted(set(there)), "none twice"
    assert set(sure) <= set(there)
    assert interrupted > 50


def test_a_signal_handler_that_appends_in_an_append_is_told(hub: Folder) -> None:
    """It would wait for itself; the append that it interrupted is not hurt."""
    stream = hub.stream("s", schema=SCHEMA)
    told: list[StreamError] = []

    def append(*_: object) -> None:
        try:
            stream.append({"who": 1, "seq": 0, "text": ""})
        except StreamError as error:
            told.append(error)

    before = signal.signal(signal.SIGALRM, append)
    try:
        numbers = iter(range(100_000))
        while not told:
            signal.setitimer(signal.ITIMER_REAL, 20e-6)
            stream.append({"who": 0, "seq": next(numbers), "text": ""})
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert "expected one append of a thread at a time, got another inside it" in str(told[0])
    assert "let the handler set a flag" in str(told[0])
    done = next(numbers)
    assert [row["seq"] for row in stream.rows() if row["who"] == 0] == list(range(done))
    stream.append({"who": 0, "seq": done, "text": ""})


def test_a_reader_never_sees_a_row_that_is_taken_back(hub: Folder, fork: Fork) -> None:
    """What a tail has handed out is what the stream keeps, although producers are killed while they write it."""
    stream = hub.stream("in", schema=SCHEMA, segment_bytes=50_000)
    seen: list[tuple[int, int, int]] = []
    stop = threading.Event()
    reading = Folder(hub.path).stream("in")

    def follow() -> None:
        for chunk in reading.chunks("start", follow=True, stopping=stop):
            seen.extend(
                zip(range(chunk.first, chunk.stop), *(chunk.batch[n].to_pylist() for n in ("who", "seq")), strict=True)
            )

    thread = threading.Thread(target=follow)
    thread.start()
    chance = random.Random(1)
    sink = os.open(os.devnull, os.O_WRONLY)
    for _ in range(15):
        process = fork(produce, hub.path, 0, sink)
        time.sleep(0.01 + chance.random() * 0.02)
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join(PATIENCE_S)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PenstockWarning)
        stream.append({"who": 5, "seq": 0})
    end = stream.next_offset
    until(lambda: len(seen) >= end)
    stop.set()
    thread.join(PATIENCE_S)
    os.close(sink)
    rows = stream.read(columns=["_offset", "who", "seq"])
    assert seen == list(zip(*(rows[name].to_pylist() for name in rows.schema.names), strict=True))


def test_processes_make_one_stream_at_once(hub: Folder, fork: Fork) -> None:
    def child(who: int) -> None:
        for i in range(10):
            found: Stream = Folder(hub.path).stream(f"s{i}", schema=SCHEMA)
            found.append({"who": who, "seq": i})

    children = [fork(child, who) for who in range(5)]
    for process in children:
        process.join(PATIENCE_S)
    assert [process.exitcode for process in children] == [0] * 5
    for i in range(10):
        assert sorted(hub.stream(f"s{i}").read()["who"].to_pylist()) == list(range(5))
