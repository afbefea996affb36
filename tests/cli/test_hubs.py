from __future__ import annotations

from pathlib import Path

import pytest

import penstock as ps
from penstock.cli.hubs import recent
from penstock.errors import UnknownStream


def test_recent_tells_the_last_append_and_its_rate(tmp_path: Path) -> None:
    with ps.open(tmp_path / "hub") as hub:
        stream = hub.streams.get("x")
        folder = hub.streams.path("x")
        assert (recent(folder).last_ns, recent(folder).rate) == (None, None)
        stream.append({"a": 1})
        first = recent(folder)
        assert first.rate is None
        for _ in range(10):
            stream.append([{"a": 1}] * 100)
        last = recent(folder)
        chunks = list(stream.chunks())
        created = [int(t) for chunk in chunks for t in chunk.created]
        assert last.last_ns == created[-1]
        assert last.rate == pytest.approx(1000e9 / (created[-1] - created[0]))


def test_recent_finds_the_last_append_in_the_segment_before_an_empty_one(tmp_path: Path) -> None:
    with ps.open(tmp_path / "hub") as hub:
        stream = hub.streams.get("x")
        stream.append({"a": 1})
        stream.seal()
        assert recent(hub.streams.path("x")).last_ns is not None


def test_the_folder_of_a_stream_that_is_not_there(tmp_path: Path) -> None:
    with ps.open(tmp_path / "hub") as hub, pytest.raises(UnknownStream, match="no stream 'nothing'"):
        hub.streams.path("nothing")
