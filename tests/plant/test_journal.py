"""What a node keeps: every array's result once, wherever its process is killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import penstock as ps
from penstock.errors import GroupBusy, UsageError
from penstock.hub import Hub
from penstock.log.meta import Meta, Retention
from penstock.plant.handlers import Failure, Outcome
from penstock.plant.journal import Journal, arrays_of

URL = "ws://plant:5000"


def rows(hub: Hub, name: str) -> list[dict[str, Any]]:
    return ps.records.batch_to_rows(hub.streams.get(name).read().combine_chunks().to_batches()[0])


def taken(journal: Journal, count: int) -> None:
    for n in range(count):
        journal.take([{"n": n}], {"bars": n + 1})


def outcome(n: int) -> Outcome:
    return Outcome([{"m": n}, {"m": n + 0.5}], [("alerts", [{"a": n}]), ("alerts", [{"b": n}])])


def test_arrays_come_as_they_were_taken(hub: Hub) -> None:
    journal = Journal(hub, "avg", upstream=URL)
    taken(journal, 3)
    journal.take([], {"bars": 9})
    pending = journal.pending()
    found = [next(pending) for _ in range(5)]
    assert [None if a is None else (a.number, a.messages) for a in found] == [
        (0, [{"n": 0}]), (1, [{"n": 1}]), (2, [{"n": 2}]), (3, []), None,
    ]  # fmt: skip
    assert (journal.waiting, journal.since) == (4, {"bars": 9})


def test_it_remembers_how_far_its_upstream_had_come_and_forgets_another_one(hub: Hub) -> None:
    for upstream, since in ((URL, {}), (URL, {"bars": 2}), ("ws://other:5000", {}), (URL, {"bars": 2})):
        journal = Journal(hub, "avg", upstream=upstream)
        assert journal.since == since
        if not since and upstream == URL:
            taken(journal, 2)
        journal.close()


@pytest.mark.parametrize("crash", ["nothing", "alerts", "output", "all"])
def test_killed_anywhere_in_a_result_it_is_there_once(hub: Hub, crash: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`crash`: what of array 1 had been appended when the process was killed."""

    class Killed(BaseException):
        pass

    def killed(*_: object, **__: object) -> Any:
        raise Killed

    journal = Journal(hub, "avg", upstream=URL)
    taken(journal, 3)
    journal.settle(0, outcome(0))
    if crash == "alerts":
        monkeypatch.setattr(journal.output, "append", killed)
    elif crash in ("output", "all"):
        monkeypatch.setattr(journal._group, "commit", killed)
    if crash != "nothing":
        with pytest.raises(Killed):
            journal.settle(1, outcome(1))
    journal.close()
    monkeypatch.undo()

    again = Journal(hub, "avg", upstream=URL)
    for array in again.pending():
        if array is None:
            break
        again.settle(array.number, outcome(array.number))
    assert [row["m"] for row in rows(hub, "avg")] == [0, 0.5, 1, 1.5, 2, 2.5]
    assert rows(hub, "alerts") == [{"a": 0}, {"b": 0}, {"a": 1}, {"b": 1}, {"a": 2}, {"b": 2}]
    assert again.waiting == 0


def test_a_new_beginning_counts_from_zero_and_its_results_are_new(hub: Hub) -> None:
    for run in range(2):
        journal = Journal(hub, "avg", upstream=URL)
        assert journal.since == {}
        taken(journal, 2)
        for number in range(2):
            journal.settle(number, Outcome([{"run": run, "m": number}]))
        journal.close()
        if not run:
            hub.streams.drop("avg.input")
    assert [(row["run"], row["m"]) for row in rows(hub, "avg")] == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_what_does_not_fit_is_a_failure_and_the_rest_is_kept(hub: Hub) -> None:
    hub.streams.get("bars", schema=ps.records.BARS)
    journal = Journal(hub, "avg", upstream=URL)
    taken(journal, 1)
    published = [("avg.input", [{"x": 1}]), ("bars", [{"symbol": 3}]), ("\0", [{"x": 1}]), ("good", [{"x": 1}])]
    failures = journal.settle(0, Outcome([{"m": 1}], published, Failure("exception", "late", "trace")))
    assert [failure.kind for failure in failures] == ["exception", "publish", "publish", "publish"]
    assert "expected another stream than 'avg.input': return the messages instead" in failures[1].text
    assert rows(hub, "avg") == [{"m": 1}]
    assert rows(hub, "good") == [{"x": 1}]
    told = rows(hub, "avg.errors")
    assert [(row["array"], row["kind"]) for row in told] == [(0, f.kind) for f in failures]
    assert told[0]["trace"] == "trace"
    assert journal.failures == 4


def test_a_handler_cannot_speak_for_the_plant(hub: Hub) -> None:
    journal = Journal(hub, "avg", upstream=URL)
    taken(journal, 1)
    (failure,) = journal.settle(0, Outcome([{"m": 1}, {"ev": "status", "status": "auth_failed"}, {"m": 2}]))
    assert failure.text == "expected another ev than 'status', which is the plant's own"
    assert [row["m"] for row in rows(hub, "avg")] == [1, 2]


def test_a_message_that_cannot_be_kept_is_left_out_of_its_array(hub: Hub) -> None:
    deep: Any = 1
    for _ in range(99):
        deep = [deep]
    journal = Journal(hub, "avg", upstream=URL)
    (failure,) = journal.take([{"n": 1}, {"n": deep}, {"n": 2}], {"bars": 3})
    assert failure.kind == "input"
    assert failure.text.startswith("a message of the upstream is left out: expected ")
    assert next(journal.pending()).messages == [{"n": 1}, {"n": 2}]
    assert journal.since == {"bars": 3}
    assert [(row["array"], row["kind"]) for row in rows(hub, "avg.errors")] == [(0, "input")]


def test_one_node_of_a_name_and_no_stream_of_others(hub: Hub, tmp_path: Path) -> None:
    journal = Journal(hub, "avg", upstream=URL)
    with pytest.raises(GroupBusy):
        Journal(hub, "avg", upstream=URL)
    journal.close()
    hub.streams.get("mine").append({"a": 1})
    with pytest.raises(UsageError, match="stream 'mine', which has rows of something else - in hub .*--into"):
        Journal(hub, "mine", upstream=URL)


def test_arrays_of_a_stream_are_its_appends(hub: Hub, bars: Any, kit: Any) -> None:
    bars.append([kit.bar("A", 0), kit.bar("B", 0)])
    bars.append(kit.bar("A", 1))
    found = list(arrays_of(bars))
    assert [(offset, [m["sym"] for m in messages]) for offset, messages in found] == [(0, ["A", "B"]), (2, ["A"])]
    assert found[0][1][0]["ev"] == "AM"
    journal = Journal(hub, "avg", upstream=URL)
    taken(journal, 2)
    assert list(arrays_of(journal.input)) == [(0, [{"n": 0}]), (1, [{"n": 1}])]
    assert [a.number for a in journal.before(5)] == []
    journal.settle(0, None)
    assert [a.number for a in journal.before(5)] == [0]


def test_what_is_kept(hub: Hub) -> None:
    def kept(name: str) -> Retention:
        return Meta.load(hub.streams.path(name)).options.retention

    Journal(hub, "h", upstream=URL).close()
    assert [kept(name) for name in ("h", "h.input", "h.errors")] == [
        Retention(),
        Retention(max_bytes=1 << 30, until="handler"),
        Retention(max_bytes=256 << 20),
    ]
    hub.streams.get("h.input", retention={"age": "7d"})
    Journal(hub, "h", upstream=URL).close()
    assert kept("h.input") == Retention.of({"age": "7d"})
