"""A hub is a folder of streams: opened, listed, dropped, shared between forks, found by the environment."""

from __future__ import annotations

import asyncio
import os
import warnings
from pathlib import Path

import pyarrow as pa
import pytest

import penstock as ps
from penstock import hub as hub_module
from penstock.errors import SchemaMismatch, StorageError, UnknownStream, UsageError

# -- opening


def test_open_makes_the_folder_at_first_use(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "data"
    with ps.open(path) as hub:
        assert hub.path == path
        hub.streams.get("a").append({"n": 1})
    with ps.open(str(path)) as hub, ps.open(f"file://{path}") as same:
        assert same.path == hub.path
        assert same.streams.get("a").rows() == [{"n": 1}]


def test_open_without_a_name_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PENSTOCK_HUB", raising=False)
    with ps.open() as hub:
        assert hub.path == tmp_path / "penstock-data"
    monkeypatch.setenv("PENSTOCK_HUB", str(tmp_path / "other"))
    with ps.open() as hub:
        assert hub.path == tmp_path / "other"


def test_open_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with ps.open("~/streams") as hub:
        assert hub.path == tmp_path / "streams"


def test_streams_of_the_default_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "_default", None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PENSTOCK_HUB", raising=False)
    ps.streams.put({"foo": "bar"}, "mystream")
    assert (tmp_path / "penstock-data" / "hub.json").exists()
    assert ps.streams.get("mystream").rows() == [{"foo": "bar"}]
    assert ps.streams is ps.streams
    for url in (str(tmp_path / "other"), f"file://{tmp_path}/third"):
        monkeypatch.setenv("PENSTOCK_HUB", url)
        assert ps.streams.list() == []
        ps.streams.get("here")
        assert ps.streams is ps.streams
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.delenv("PENSTOCK_HUB")
    assert ps.streams.list() == []  # ./penstock-data of this folder
    with pytest.raises(AttributeError, match="no attribute 'stream'"):
        _ = hub_module.stream


@pytest.mark.parametrize("url", ["", "a\0b", 5, b"data"])
def test_open_refuses_what_is_no_path(url: object) -> None:
    with pytest.raises(UsageError, match=r"expected the path of a folder, got .* - in penstock.open; such as"):
        ps.open(url)  # type: ignore[arg-type]


def test_open_refuses_other_kinds_of_hub() -> None:
    with pytest.raises(
        UsageError, match=r"got 'kafka://host:9092' - in penstock.open; this version keeps streams in f"
    ):
        ps.open("kafka://host:9092")


def test_open_does_not_create_when_told_not_to(tmp_path: Path) -> None:
    with pytest.raises(UnknownStream, match=r"expected a hub, got no hub.json"):
        ps.open(tmp_path / "no", create=False)
    assert not (tmp_path / "no").exists()


def test_open_refuses_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(StorageError, match="expected an empty folder or a hub"):
        ps.open(tmp_path)


def test_a_closed_hub_can_be_used_again(hub: ps.Hub) -> None:
    stream = hub.streams.get("a")
    stream.append({"n": 1})
    hub.close()
    hub.close()
    hub.streams.get("a").append({"n": 2})
    stream.append({"n": 3})  # so can a stream of before
    assert [row["n"] for row in hub.streams.get("a").rows()] == [1, 2, 3]
    assert repr(hub) == f"Hub({str(hub.path)!r})"


# -- streams by name


def test_get_makes_a_stream_of_documents(hub: ps.Hub) -> None:
    stream = hub.streams.get("mystream")
    stream.append({"foo": "bar"})
    assert stream.is_document
    found = hub.streams.metadata("mystream")
    assert (found.name, found.kind, found.first_offset, found.next_offset) == ("mystream", "stream.document", 0, 1)
    assert found.bytes > 0
    assert found.created.tzinfo is not None
    assert found.attributes == {}
    assert hub.streams.get("mystream") is stream


def test_get_with_schema_and_attributes(hub: ps.Hub) -> None:
    trades = hub.streams.get("trades", schema=ps.records.TRADES, attributes={"venue": "XNAS"})
    assert trades.attributes == {"venue": "XNAS"}
    assert hub.streams.metadata("trades").schema.equals(ps.records.TRADES)
    with pytest.raises(SchemaMismatch):
        hub.streams.get("trades", schema=pa.schema({"price": pa.string()}))


def test_get_does_not_create_when_told_not_to(hub: ps.Hub) -> None:
    hub.streams.get("trades")
    with pytest.raises(UnknownStream, match=r"no stream 'trade' - .*; did you mean 'trades'\?") as caught:
        hub.streams.get("trade", create=False)
    assert caught.value.near == ["trades"]  # type: ignore[attr-defined]
    with pytest.raises(UnknownStream):
        hub.streams.get("trade", lazy=True, create=False)
    assert hub.streams.list() == ["trades"]


def test_put_appends_by_name(hub: ps.Hub) -> None:
    assert hub.streams.put({"foo": "bar"}, "mystream") is hub.streams.get("mystream")
    hub.streams.put([{"foo": 1}, {"foo": 2}], "mystream")
    assert asyncio.run(hub.streams.aput({"foo": 3}, "mystream")).next_offset == 4
    hub.streams.put(pa.table({"a": [1, 2]}), "table")
    assert hub.streams.metadata("table").kind == "stream.table"


def test_put_of_a_function_says_how_to_run_it(hub: ps.Hub) -> None:
    def consumer(window: ps.Window) -> None: ...

    for function in (consumer, hub.streams.get("a", lazy=True)):
        with pytest.raises(UsageError, match=r"expected rows, got the function .*\.apply\(function\)"):
            hub.streams.put(function, "myconsumer")
    assert hub.streams.list() == ["a"]


def test_list_drop_exists(hub: ps.Hub) -> None:
    for name in ("m1", "m2", "other"):
        hub.streams.put({"n": 1}, name)
    assert hub.streams.list("m*") == ["m1", "m2"]
    assert hub.streams.list() == ["m1", "m2", "other"]
    assert repr(hub.streams) == f"Streams({hub.path}: m1, m2, other)"
    hub.streams.drop("m1")
    assert not hub.streams.exists("m1")
    assert "m1" not in hub.streams
    assert "m2" in hub.streams
    assert 5 not in hub.streams
    with pytest.raises(UnknownStream):
        hub.streams.drop("m1")
    with pytest.raises(UnknownStream):
        hub.streams.metadata("m1")
    assert hub.streams.get("m1").next_offset == 0


def test_unknown_options_with_suggestions(hub: ps.Hub) -> None:
    with pytest.raises(UsageError, match=r"got shema=1 - in streams.get\('a'\); did you mean 'schema'\?"):
        hub.streams.get("a", shema=1)  # type: ignore[call-overload]
    with pytest.raises(UsageError, match=r"windows need lazy=True: get\('a', lazy=True, size=…\)"):
        hub.streams.get("a", size=5)  # type: ignore[call-overload]
    with pytest.raises(
        UsageError, match=r"expected an option of windows, got intervall=2 - .*; did you mean 'interval'"
    ):
        hub.streams.get("a", lazy=True, intervall=2)
    with pytest.raises(UsageError, match=r"options are blocking, by, clock"):
        hub.streams.get("a", lazy=True, qqq=2)
    with pytest.raises(UsageError, match=r"options are schema, attributes"):
        hub.streams.get("a", qqq=2)  # type: ignore[call-overload]


# -- processes


def _in_child(work: object) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that there are threads; none of them works for the child
        child = os.fork()
    if child == 0:
        code = 1
        try:
            work()  # type: ignore[operator]
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_hub_survives_a_fork_on_both_sides(hub: ps.Hub) -> None:
    stream = hub.streams.get("a")
    stream.append({"n": 0})
    streaming = hub.streams.get("a", lazy=True, into="b", blocking=False)
    streaming.apply(lambda window: {"of": window.data[0]["n"]})

    def child() -> None:
        stream.append({"n": 1})
        hub.streams.get("c").append({"n": 0})
        assert streaming.apply(lambda window: {"of": window.data[0]["n"]}).windows == 1

    _in_child(child)
    stream.append({"n": 2})
    streaming.apply(lambda window: {"of": window.data[0]["n"]})
    assert [row["of"] for row in hub.streams.get("b").rows()] == [0, 1, 2]
    assert hub.streams.list() == ["a", "b", "c"]
