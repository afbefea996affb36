"""Handlers in real worker processes: what they give, how they fail, what survives."""

from __future__ import annotations

import asyncio
import os
import signal

import numpy as np
import pytest

import penstock as ps
from penstock.errors import HandlerError
from penstock.plant.handlers import Handler, diff
from penstock_tests.waiting import PATIENCE_S

AVERAGE = """onmsg::{[a d];d:::{};d,["ev" "AVG"];a::{x?"c"}'x;d,"a",+/a%#a}\n"""
BARS = [
    {"ev": "AM", "sym": "AAPL", "c": 10.5},
    {"ev": "AM", "sym": "MSFT", "c": 20.25},
    {"ev": "AM", "sym": "TSLA", "c": 30.0},
]


def given(tmp_path, text, name="h.py"):
    path = tmp_path / name
    path.write_text(text)
    return path


def calls(path, *arrays, **options):
    """The outcomes of a handler, one per array. It has the time that a loaded machine takes, unless told otherwise."""

    async def go():
        handler = Handler(path, **{"timeout": PATIENCE_S, **options})
        await handler.start()
        try:
            return [await handler(array) for array in arrays], handler.statistics()
        finally:
            await handler.stop()

    return asyncio.run(go())


def one(path, *array, **options):
    outcomes, _ = calls(path, list(array), **options)
    return outcomes[0]


# ---- what they give ----


def test_the_classic_one_liner(tmp_path):
    assert one(given(tmp_path, AVERAGE, "avg.kg"), *BARS).messages == [{"ev": "AVG", "a": 20.25}]


@pytest.mark.parametrize("program", ['onmsg::{:{["ev" "N"]},"n",#x}', 'onmsg::{[d];d:::{};d,["ev" "N"];d,"n",#x}'])
def test_klong_of_one_argument_whatever_it_infers(tmp_path, program):
    assert one(given(tmp_path, program, "n.kg"), *BARS).messages == [{"ev": "N", "n": 3}]


def test_klong_keeps_globals_between_calls(tmp_path):
    path = given(tmp_path, 'n::0\nonmsg::{[d];n::n+#x;d:::{};d,["ev" "N"];d,"n",n}\n', "n.kg")
    outcomes, _ = calls(path, BARS, BARS[:1])
    assert [o.messages[0]["n"] for o in outcomes] == [3, 4]


def test_klong_of_columns(tmp_path):
    path = given(tmp_path, 'oncols::{[d];d:::{};d,["ev" "C"];d,"m",(+/x?"c")%#x?"c"}', "c.kg")
    assert one(path, *BARS).messages == [{"ev": "C", "m": 20.25}]


def test_klong_sees_lists_maps_and_nulls(tmp_path):
    path = given(tmp_path, "onmsg::{x@0}", "id.kg")
    message = {"ev": "T", "c": [12, 14], "s": ["a", "b"], "m": {"k": [1.5, 2.5]}, "n": None, "b": True}
    assert one(path, message).messages == [{**message, "b": 1}]


def test_klong_gives_several_messages_or_none(tmp_path):
    assert one(given(tmp_path, "onmsg::{x}", "a.kg"), *BARS).messages == BARS
    for nothing in ("[]", "0", "1%0"):
        assert one(given(tmp_path, f"onmsg::{{x;{nothing}}}", "b.kg"), *BARS).messages == []


def test_klong_not_a_number_is_null(tmp_path):
    path = given(tmp_path, 'onmsg::{[d];d:::{};d,["ev" "X"];d,"v",,[1.0 2.0]%0.0}', "inf.kg")
    assert one(path, *BARS).messages == [{"ev": "X", "v": [None, None]}]


@pytest.mark.parametrize(
    "verb", [".x(0)", '.py("os")', '.sys("ls")', '.ic("/etc/passwd")', '.oc("out")', '.df("h")', ".srv(0)"]
)
def test_klong_verbs_that_leave_the_program(tmp_path, verb):
    path = given(tmp_path, f"onmsg::{{x;{verb}}}", "v.kg")
    failure = one(path, *BARS).failure
    assert failure.kind == "exception"
    assert (
        failure.text
        == f"PermissionError: {verb.split('(')[0]} is not available in a handler; run it with --trusted if you trust it"
    )


def test_klong_trusted_may_all(tmp_path):
    path = given(tmp_path, '.py("math")\nonmsg::{[d];x;d:::{};d,["ev" "P"];d,"v",sqrt(16.0)}', "t.kg")
    assert one(path, *BARS, trusted=True).messages == [{"ev": "P", "v": 4.0}]


def test_klong_loads_only_beside_itself(tmp_path):
    given(tmp_path, "twice::{x*2}\n", "lib.kg")
    path = given(tmp_path, '.l("lib")\nonmsg::{[d];d:::{};d,["ev" "L"];d,"v",twice(#x)}', "main.kg")
    assert one(path, *BARS).messages == [{"ev": "L", "v": 6}]
    outside = given(tmp_path, '.l("../other")\nonmsg::{x}', "bad.kg")
    with pytest.raises(HandlerError, match=r"there is no such program"):
        calls(outside, BARS)


def test_python_function_of_messages_and_of_columns(tmp_path):
    path = given(tmp_path, "def onmsg(messages):\n    return {'ev': 'N', 'n': len(messages)}\n")
    assert one(path, *BARS).messages == [{"ev": "N", "n": 3}]
    path = given(
        tmp_path, "def oncols(columns):\n    return {'ev': 'C', 'm': columns['c'].mean(), 's': columns['sym']}\n"
    )
    assert one(path, *BARS).messages == [{"ev": "C", "m": 20.25, "s": ["AAPL", "MSFT", "TSLA"]}]
    path = given(tmp_path, "def mine(messages):\n    yield_ = messages[:1]\n    return yield_\n")
    assert one(f"{path}:mine", *BARS).messages == BARS[:1]
    assert one("operator:itemgetter", *BARS).failure.kind == "result"


def test_what_a_handler_does_to_its_input_stays_there(tmp_path):
    path = given(tmp_path, "def onmsg(m):\n    m[0]['c'] = 0\n    m.clear()\n")
    sent = [dict(bar) for bar in BARS]
    one(path, *sent)
    assert sent == BARS


def test_integers_that_no_machine_has_are_floats(tmp_path):
    path = given(tmp_path, "def onmsg(m):\n    return {'a': [type(v).__name__ for v in m[0]['v']]}\n")
    assert one(path, {"v": [1, 2**70, -(2**63) - 1, 10**400, 2**64 - 1]}).messages == [
        {"a": ["int", "float", "float", "float", "int"]}
    ]


# ---- how they fail ----

FAILURES = {
    "exception": "def onmsg(m):\n    return 1 / 0\n",
    "timeout": "def onmsg(m):\n    while True:\n        pass\n",
    "caught": "def onmsg(m):\n    while True:\n        try:\n            while True: pass\n        except Exception: pass\n",
    "memory": "def onmsg(m):\n    return [0] * (1 << 34)\n",
    "exit": "import sys\ndef onmsg(m):\n    sys.exit(3)\n",
    "died": "import os\ndef onmsg(m):\n    print('going', flush=True)\n    os._exit(7)\n",
    "result": "def onmsg(m):\n    return {'ev': 'X', 'f': open}\n",
}
TEXTS = {
    "exception": "ZeroDivisionError: division by zero",
    "timeout": "did not return within 1 s",
    "caught": "did not return within 1 s",
    "memory": "wanted more memory than it may have",
    "exit": "SystemExit: 3",
    "died": "left with exit code 7: going",
    "result": "expected a number, text, a list or a map, got builtin_function_or_method <built-in function open> at the result.f",
}


@pytest.mark.parametrize("kind", FAILURES)
def test_a_failure_is_told_and_the_next_call_works(tmp_path, kind):
    text = FAILURES[kind].replace("def onmsg(m):\n", "def onmsg(m):\n    if m[0]['c'] > 15: return {'ev': 'OK'}\n")
    outcomes, statistics = calls(given(tmp_path, text), BARS[:1], BARS[1:], timeout=1.0, memory=256 << 20)
    assert outcomes[0].messages == []
    assert outcomes[0].failure.kind == {"caught": "timeout"}.get(kind, kind)
    assert outcomes[0].failure.text == TEXTS[kind]
    assert outcomes[1].messages == [{"ev": "OK"}]
    assert statistics.calls == 2
    assert sum(statistics.failures.values()) == 1


def test_a_call_that_hears_no_alarm_is_killed(tmp_path):
    text = "import signal\ndef onmsg(m):\n    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])\n    while True: pass\n"
    failure = one(given(tmp_path, text), *BARS, timeout=0.2).failure
    assert failure.kind == "timeout"
    assert failure.text == "did not return within 0.2 s and was killed"


@pytest.mark.parametrize("program", ["onmsg::{{1}{x+1}:~0}", "onmsg::{x;#!1e10}"])
def test_klong_loops_and_bombs_end(tmp_path, program):
    failure = one(given(tmp_path, program, "bad.kg"), *BARS, timeout=0.3, memory=256 << 20).failure
    assert failure.kind in ("timeout", "memory", "exception")


@pytest.mark.parametrize("program", ['onmsg::{{x?"c"}\'x;1%"a"}', 'onmsg::{[a];a::{x?"c"}\'x;+/a%#a}'])
@pytest.mark.parametrize("array", [[], [{"ev": "status", "status": "success"}], [{"ev": "AM", "sym": "A"}]])
def test_klong_meets_what_it_did_not_expect(tmp_path, program, array):
    outcome = one(given(tmp_path, program, "odd.kg"), *array)
    assert outcome.messages == []  # nothing, or a failure that is told; never the end


def test_many_failures_in_a_row_start_a_fresh_worker(tmp_path):
    path = given(tmp_path, "n = 0\ndef onmsg(m):\n    global n\n    n += 1\n    raise ValueError(n)\n")
    outcomes, statistics = calls(path, *[BARS] * 5, patience=3)
    assert [o.failure.text for o in outcomes] == [f"ValueError: {n}" for n in (1, 2, 3, 1, 2)]
    assert statistics.restarts == 1


def test_a_worker_killed_from_outside(tmp_path):
    async def go():
        handler = Handler(given(tmp_path, AVERAGE, "avg.kg"), timeout=PATIENCE_S)
        await handler.start()
        try:
            os.kill(handler._worker.process.pid, signal.SIGKILL)
            first = await handler(BARS)
            return first, await handler(BARS)
        finally:
            await handler.stop()

    first, second = asyncio.run(go())
    assert first.failure is None or first.failure.text == "was ended by SIGKILL"
    assert second.messages == [{"ev": "AVG", "a": 20.25}]


def test_a_cancelled_call_ends_its_worker(tmp_path):
    async def go():
        handler = Handler(
            given(tmp_path, "def onmsg(m):\n    if len(m) > 1:\n        while True: pass\n    return m\n"),
            timeout=PATIENCE_S,
        )
        await handler.start()
        worker = handler._worker.process
        call = asyncio.create_task(handler(BARS))
        while handler.statistics().calls == 0:  # noqa: ASYNC110 - until the call has begun
            await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        gone = worker.poll()
        after = await handler(BARS[:1])
        await handler.stop()
        return gone, after

    gone, after = asyncio.run(go())
    assert gone == -signal.SIGKILL
    assert after.messages == BARS[:1]


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("a.kg", "onmsg::{", "does not load: UnexpectedChar"),
        ("a.kg", "foo::1", "a.kg defines neither onmsg nor oncols"),
        ("a.py", "def onmsg(", "does not load: SyntaxError"),
        ("a.py", "x = 1", "a.py defines neither onmsg nor oncols"),
        ("a.py", "import sys; sys.exit(2)", "does not load: SystemExit: 2"),
        ("a.py", "import os; os._exit(2)", "left with exit code 2"),
    ],
)
def test_what_does_not_load(tmp_path, name, text, message):
    with pytest.raises(HandlerError, match=message):
        calls(given(tmp_path, text, name), BARS)


def test_what_is_not_there(tmp_path):
    with pytest.raises(HandlerError, match=r"expected a handler's file, got '.*none\.kg', which is not there"):
        calls(tmp_path / "none.kg", BARS)
    with pytest.raises(HandlerError, match="defines no 'other'"):
        calls(f"{given(tmp_path, AVERAGE.replace('::', '=')[:0] + 'x = 1')}:other", BARS)


# ---- reload, replay, diff ----


def test_a_changed_file_is_loaded_and_a_broken_one_is_not(tmp_path):
    path = given(tmp_path, "def onmsg(m):\n    return {'v': 1}\n")

    async def go():
        handler = Handler(path, timeout=PATIENCE_S)
        await handler.start()
        try:
            seen = [await handler.changed(), (await handler(BARS)).messages]
            for text in ("def onmsg(m:\n", "def onmsg(m):\n    return {'v': 22}\n"):
                path.write_text(text)
                seen += [await handler.changed(), (await handler(BARS)).messages]
            return seen
        finally:
            await handler.stop()

    same, first, broken, kept, loaded, second = asyncio.run(go())
    assert same is None
    assert first == kept == [{"v": 1}]
    assert broken.failure.kind == "load"
    assert "SyntaxError" in broken.failure.text
    assert loaded.failure is None
    assert second == [{"v": 22}]


def test_replay_gives_the_same_twice_even_with_random_numbers(tmp_path):
    path = given(tmp_path, 'onmsg::{[d];x;d:::{};d,["ev" "R"];d,"v",.rn()}', "r.kg")
    assert calls(path, *[BARS] * 5)[0] == calls(path, *[BARS] * 5)[0]


def test_diff_finds_the_one_message(tmp_path):
    old = given(tmp_path, AVERAGE, "old.kg")
    new = given(tmp_path, AVERAGE.replace("+/a%#a", "(+/a%#a)+(#a)=1"), "new.kg")
    arrays = [(0, BARS), (3, BARS), (6, BARS[:1]), (7, BARS)]
    found = asyncio.run(diff(old, new, arrays, timeout=PATIENCE_S))
    assert bool(found)
    assert found.first == (2, 6, {"ev": "AVG", "a": 10.5}, {"ev": "AVG", "a": 11.5})
    assert not asyncio.run(diff(old, old, arrays, timeout=PATIENCE_S))


# ---- what they may ask ----


@pytest.fixture
def hub(tmp_path):
    hub = ps.open(tmp_path / "hub")
    stream = hub.streams.get("bars", schema=ps.records.BARS)
    stream.append(
        [
            {
                "symbol": s,
                "ts_event": t,
                "ts_close": t + 1,
                "open": 1.0,
                "high": 1.0,
                "low": 1.0,
                "close": c,
                "volume": 5,
                "amount": c,
                "vwap": c,
                "trade_count": 1,
                "revision": 0,
            }
            for t, s, c in [(1, "AAPL", 10.0), (1, "MSFT", 20.0), (2, "AAPL", 30.0)]
        ]
    )
    yield hub
    hub.close()


@pytest.mark.parametrize("spelling", ["ps_", "ps."])
def test_klong_reads_a_stream(tmp_path, hub, spelling):
    program = f'onmsg::{{[a d];x;d:::{{}};d,["ev" "R"];a::{{x?"close"}}\'{spelling}read("bars";2);d,"v",,a}}'
    assert one(given(tmp_path, program, "r.kg"), *BARS, hub=tmp_path / "hub").messages == [
        {"ev": "R", "v": [20.0, 30.0]}
    ]
    program = f'onmsg::{{[d];x;d:::{{}};d,["ev" "R"];d,"v",+/({spelling}cols("bars";3))?"close"}}'
    assert one(given(tmp_path, program, "c.kg"), *BARS, hub=tmp_path / "hub").messages == [{"ev": "R", "v": 60.0}]


def test_klong_queries(tmp_path, hub):
    pytest.importorskip("duckdb")
    program = 'onmsg::{x;ps_query("select symbol as sym, max(close) as m from bars group by 1 order by 1")}'
    outcome = one(given(tmp_path, program, "q.kg"), *BARS, hub=tmp_path / "hub")
    assert outcome.messages == [{"sym": "AAPL", "m": 30.0}, {"sym": "MSFT", "m": 20.0}]


def test_klong_queries_a_table_of_the_store(tmp_path, hub):
    pytest.importorskip("duckdb")
    with ps.store.open(hub) as store:
        store.write("historical/minute", hub.streams.get("bars").read())
        program = (
            'onmsg::{x;ps_query("select max(close) as m from ""historical/minute"" join bars using (symbol, close)")}'
        )
        outcome = one(given(tmp_path, program, "q.kg"), *BARS, hub=tmp_path / "hub")
    assert outcome.messages == [{"m": 30.0}]


def test_klong_publishes_only_when_it_succeeds(tmp_path):
    program = 'onmsg::{ps_publish("alerts";x);:[(#x)>1;[];1%"no"]}'
    path = given(tmp_path, program, "p.kg")
    outcomes, _ = calls(path, BARS, BARS[:1], BARS[:2])
    assert outcomes[0].published == [("alerts", BARS)]
    assert outcomes[1].published == []
    assert outcomes[1].failure is not None
    assert outcomes[2].published == [("alerts", BARS[:2])]


def test_without_a_hub(tmp_path):
    failure = one(given(tmp_path, 'onmsg::{x;ps_read("bars";2)}', "r.kg"), *BARS).failure
    assert failure.text == "LookupError: this handler has no hub; next step: run it with --hub FOLDER"


def test_columns_as_arrow(tmp_path):
    import pyarrow as pa

    batch = pa.RecordBatch.from_pydict({"sym": ["A", "B"], "c": np.array([1.0, 3.0])})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)

    async def go(text):
        handler = Handler(given(tmp_path, text), timeout=PATIENCE_S)
        await handler.start()
        try:
            return (await handler.on_columns(sink.getvalue().to_pybytes())).messages
        finally:
            await handler.stop()

    assert asyncio.run(go("def oncols(columns):\n    return {'m': columns['c'].mean()}\n")) == [{"m": 2.0}]
    assert asyncio.run(go("def onmsg(m):\n    return m\n")) == [{"sym": "A", "c": 1.0}, {"sym": "B", "c": 3.0}]
