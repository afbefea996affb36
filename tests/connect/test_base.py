from __future__ import annotations

import asyncio
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

import penstock
from penstock.connect import Dataset, FileSink, Sink, Source, aattach, attach, sink, sinks, source, sources
from penstock.errors import SourceError
from penstock.testing import ABORT, PAUSE, CollectSink, ScriptedSource


@pytest.fixture
def stream(tmp_path: Path) -> Iterator[penstock.log.Stream]:
    with penstock.open(tmp_path / "hub") as hub:
        yield hub.streams.get("s")


async def ticks(count: int) -> AsyncIterator[dict[str, int]]:
    for n in range(count):
        yield {"n": n}
        await asyncio.sleep(0)


def test_what_is_a_source_and_a_sink() -> None:
    assert isinstance(Dataset([]), Source)
    assert isinstance(ScriptedSource(), Source)
    assert isinstance(CollectSink(), Sink)
    assert not isinstance([], Source)


def test_anything_that_yields_rows(stream: penstock.log.Stream) -> None:
    attach([{"n": 0}, [{"n": 1}, {"n": 2}]], stream)
    attach(({"n": n} for n in (3, 4)), stream)
    attach(ticks(2), stream)
    attach(Dataset([{"n": 5}]), stream)
    attach(ScriptedSource({"n": 6}), stream)
    assert [row["n"] for row in stream.rows()] == [0, 1, 2, 3, 4, 0, 1, 5, 6]


def test_a_plain_source_needs_no_stopping(stream: penstock.log.Stream) -> None:
    class Plain:
        def stream(self, stream: Any) -> None:
            stream.append({"n": 1})

    attach(Plain(), stream)
    assert len(stream) == 1


def test_async_twins(stream: penstock.log.Stream) -> None:
    async def run() -> None:
        await aattach(ticks(3), stream)
        await aattach([{"n": 3}], stream)
        with pytest.raises(RuntimeError, match="cannot be called from a running event loop"):
            attach(ticks(1), stream)

    with pytest.warns(RuntimeWarning, match="was never awaited"):
        asyncio.run(run())
    assert [row["n"] for row in stream.rows()] == [0, 1, 2, 3]


def test_stopping(stream: penstock.log.Stream) -> None:
    stopping = threading.Event()

    def rows() -> Iterator[dict[str, int]]:
        yield {"n": 0}
        stopping.set()
        yield {"n": 1}

    attach(rows(), stream, stopping=stopping)
    assert len(stream) == 1
    attach(ticks(5), stream, stopping=stopping)
    attach(Dataset([{"n": 5}]), stream, stopping=stopping)
    assert len(stream) == 1


def test_a_cancelled_attachment_stops_its_thread(stream: penstock.log.Stream) -> None:
    source = ScriptedSource({"n": 1}, PAUSE, {"n": 2})

    async def run() -> None:
        task = asyncio.create_task(aattach(source, stream))
        await asyncio.to_thread(source.wait_paused)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert [row["n"] for row in stream.rows()] == [1]


def test_what_the_source_raises_comes_through(stream: penstock.log.Stream) -> None:
    source = ScriptedSource({"n": 1}, ABORT, {"n": 2}, error=ConnectionResetError("gone"))
    with pytest.raises(ConnectionResetError):
        attach(source, stream)
    attach(source, stream)
    assert [row["n"] for row in stream.rows()] == [1, 2]


@pytest.mark.parametrize("data", [5, "trades.csv", {"n": 1}, pd.DataFrame({"n": [1]}), pa.table({"n": [1]})])
def test_no_sources(data: object, stream: penstock.log.Stream) -> None:
    with pytest.raises(
        SourceError, match=r"expected an object with stream\(stream\), .* got [A-Za-z]+ - in attach; wrap data"
    ):
        attach(data, stream)


# -- plugins


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with entry points, as pip would have left it: one source works, three do not."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "acme_feed.py").write_text("class Feed:\n    def stream(self, stream): stream.append({'n': 1})\n")
    (tmp_path / "acme_bad.py").write_text("raise RuntimeError('no licence')\n")
    info = tmp_path / "acme-2.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 2.1\n")
    (info / "entry_points.txt").write_text(
        textwrap.dedent(
            """
            [penstock.sources]
            acme = acme_feed:Feed
            broken = acme_bad:Feed
            gone = acme_feed:Nothing
            dataset = acme_feed:Feed
            """
        )
    )
    yield tmp_path
    for name in ("acme_feed", "acme_bad"):
        sys.modules.pop(name, None)


def test_built_in() -> None:
    assert source("dataset") is Dataset
    assert sink("file") is FileSink
    assert sources()["dataset"].package == "penstock"
    assert sinks()["file"].error is None


def test_installed_and_broken_ones(plugin: Path, stream: penstock.log.Stream) -> None:
    found = sources()
    assert {name: p.error for name, p in found.items()} == {
        "dataset": None,
        "websocket": None,
        "acme": None,
        "broken": "RuntimeError: no licence",
        "gone": "AttributeError: module 'acme_feed' has no attribute 'Nothing'",
        "acme:dataset": "penstock has the name 'dataset' already",
    }
    assert (found["acme"].package, found["acme"].version) == ("acme", "2.1")
    attach(source("acme")(), stream)
    assert stream.rows() == [{"n": 1}]
    assert source("dataset") is Dataset
    with pytest.raises(
        SourceError, match=r"the source 'broken' does not load: RuntimeError: no licence - in acme 2.1 \(a"
    ):
        source("broken")
    with pytest.raises(SourceError, match=r"no source named 'acm': there are acme, .*; did you mean 'acme'\?"):
        source("acm")
    with pytest.raises(
        SourceError, match="no sink named 'kafka': there are file, websocket; install the package that brings it"
    ):
        sink("kafka")
