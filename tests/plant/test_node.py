"""Handler nodes: an upstream plant, a handler in its process, a plant of their own; and a node killed again and again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import penstock as ps
from penstock.errors import HandlerError, SourceError, StorageError, UsageError
from penstock.hub import Hub
from penstock.plant import serve, subscribe
from penstock.plant.handlers import Handler
from penstock.plant.journal import Journal, arrays_of
from penstock.plant.node import Node, Once, name_of
from penstock_tests.waiting import PATIENCE_S

AVERAGE = """onmsg::{[a d];d:::{};d,["ev" "AVG"];a::{x?"c"}'x;d,"a",+/a%#a}\n"""
ECHO = "def onmsg(messages):\n    return [{'ev': 'E', 'n': m['n']} for m in messages]\n"


def rows(hub: Hub, name: str) -> list[dict[str, Any]]:
    return [row for batch in hub.streams.get(name).read().to_batches() for row in ps.records.batch_to_rows(batch)]


class Running:
    """A node in a thread, with a plant in front of it and one behind."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.told: list[str] = []
        self.error: BaseException | None = None
        self.is_ready = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:
            self.error = error
        finally:
            self.is_ready.set()

    async def _main(self) -> None:
        self.loop = asyncio.get_running_loop()
        await self.node.start()
        self.node.serve(port=0)
        self.is_ready.set()
        await self.node.run()

    def stop(self) -> None:
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.node.stop)
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()


@pytest.fixture
def above(tmp_path: Path) -> Iterator[Hub]:
    """The upstream's hub."""
    with ps.open(tmp_path / "above") as found:
        yield found


@pytest.fixture
def run(tmp_path: Path, hub: Hub) -> Iterator[Callable[..., Running]]:
    """`run("onmsg::…", "avg.kg", upstream=URL)`: a node of that handler, stopped with the test."""
    started: list[Running] = []

    def start(text: str, name: str = "h.py", *, to: Hub = hub, **options: Any) -> Running:
        path = tmp_path / name
        path.write_text(text)
        told: list[str] = []
        running = Running(Node(path, to, tell=told.append, **{"timeout": PATIENCE_S, **options}))
        running.told = told
        started.append(running)
        assert running.is_ready.wait(PATIENCE_S)
        if running.error is not None:
            raise running.error
        return running

    yield start
    for running in started:
        running.stop()


def connected(service: Any) -> bool:
    return any(s.held for s in service.server.plant.subscribers)


def test_the_classic_handler_from_plant_to_plant(above: Hub, hub: Hub, run: Any, kit: Any) -> None:
    bars = above.streams.get("bars", schema=ps.records.BARS)
    with serve(above, port=0) as upstream:
        running = run(AVERAGE, "avg.kg", upstream=upstream.url)
        kit.wait_until(lambda: connected(upstream))
        found = subscribe(running.node.service.url, "*", since="start")
        bars.append([kit.bar("A", 0, close=10.5), kit.bar("B", 0, close=20.25), kit.bar("C", 0, close=30.0)])
        kit.wait_until(lambda: running.node.journal.input.next_offset == 2)  # else both may come as one array
        upstream.call(upstream.server.plant.announce, "end_of_day", "2026-01-01")  # a status is no message
        bars.append([kit.bar("A", 1, close=1.0)])
        messages = iter(found)
        assert [next(messages), next(messages)] == [{"ev": "AVG", "a": 20.25}, {"ev": "AVG", "a": 1.0}]
        found.close()
        running.stop()
    statistics = running.node.statistics()
    assert (statistics.messages, statistics.failures, statistics.waiting) == (2, 0, 0)
    # The arrays it was given are kept: another run over them gives the same, to the bit.
    made = rows(hub, "avg")
    arrays = list(arrays_of(hub.streams.get("avg.input")))
    assert [m["sym"] for _, messages in arrays for m in messages] == ["A", "B", "C", "A"]

    async def again() -> list[dict[str, Any]]:
        handler = Handler(running.node.handler.spec, timeout=PATIENCE_S)
        await handler.start()
        try:
            return [m for _, messages in arrays if messages for m in (await handler(messages)).messages]
        finally:
            await handler.stop()

    assert asyncio.run(again()) == asyncio.run(again()) == made


MISCHIEF = """
import sys
def onmsg(messages):
    made = []
    for m in messages:
        do = m.get("do")
        if do == "raise": raise RuntimeError("no")
        if do == "loop":
            while True: pass
        if do == "bomb": [0] * (1 << 34)
        if do == "exit": sys.exit(3)
        if do == "odd": made.append({"f": open})
        if do == "mutate": m.clear(); messages.append(7); return {"ev": "E", "n": -1}
        if do == "none": made.append({"n": m["missing"]})
        made.append({"ev": "E", "n": m["n"]})
    return made
"""


@pytest.mark.slow
def test_whatever_a_handler_does_the_feed_goes_on(above: Hub, hub: Hub, run: Any, kit: Any) -> None:
    """200 messages a second, of which some make the handler misbehave in each of its ways."""
    ways = ["raise", "loop", "bomb", "exit", "odd", "mutate", "none"]
    stream = above.streams.get("feed")
    count = 600
    with serve(above, port=0) as upstream:
        running = run(MISCHIEF, upstream=upstream.url, timeout=3.0, memory=256 << 20)
        kit.wait_until(lambda: connected(upstream))
        statuses: list[dict[str, Any]] = []
        watching = subscribe(running.node.service.url, "*", on_status=statuses.append)
        thread = threading.Thread(target=lambda: list(watching), daemon=True)
        thread.start()
        kit.wait_until(lambda: connected(running.node.service))
        begin = time.monotonic()
        for n in range(count):
            row: dict[str, Any] = {"n": n}
            if n % 40 == 20:
                row["do"] = ways[n // 40 % len(ways)]
            stream.append(row)
            wait = begin + (n + 1) / 200 - time.monotonic()
            time.sleep(max(0.0, wait))
        # The feed did not wait for the handler: it went at its pace, and the node has it all in its log.
        kit.wait_until(lambda: sum(len(m) for _, m in arrays_of(hub.streams.get("h.input"))) == count)
        kit.wait_until(lambda: running.node.statistics().waiting == 0)
        told = {"timeout", "exception", "memory", "exit", "result"}
        kit.wait_until(lambda: {s["failure"] for s in statuses if s["status"] == "handler_error"} == told)
        running.stop()
        watching.close()
        thread.join(PATIENCE_S)
    arrays = [m for _, m in arrays_of(hub.streams.get("h.input")) if m]
    assert [m["n"] for array in arrays for m in array] == list(range(count))
    bad = {row["array"]: row["kind"] for row in rows(hub, "h.errors")}
    doing = {
        "raise": "exception",
        "loop": "timeout",
        "bomb": "memory",
        "exit": "exit",
        "odd": "result",
        "none": "exception",
    }
    expected, failed = [], 0
    for array in arrays:
        do = next((m["do"] for m in array if "do" in m), None)
        if do == "mutate":
            expected.append(-1)
        elif do is None:
            expected += [m["n"] for m in array]
        else:
            failed += 1
            assert doing[do] in bad.values()
    assert [m["n"] for m in rows(hub, "h")] == expected
    assert len(bad) == failed >= 12
    told = [s for s in statuses if s["status"] == "handler_error"]
    assert {s["failure"] for s in told} == set(doing.values())
    assert len(told) == len({s["message"] for s in told})  # each text once a minute


def test_a_broken_file_keeps_the_old_definition_even_when_the_worker_is_started_again(
    tmp_path: Path, above: Hub, hub: Hub, run: Any, kit: Any
) -> None:
    stream = above.streams.get("feed")
    text = "import os\ndef onmsg(messages):\n    os._exit(1) if messages[0]['n'] == 1 else 0\n    return {'v': 1}\n"
    with serve(above, port=0) as upstream:
        running = run(text, upstream=upstream.url)
        kit.wait_until(lambda: connected(upstream))

        def handled(n: int) -> None:
            stream.append({"n": n})
            kit.wait_until(lambda: len(rows(hub, "h")) + len(rows(hub, "h.errors")) == n + 1)

        handled(0)
        (tmp_path / "h.py").write_text("def onmsg(messages:\n")
        kit.wait_until(lambda: any("the old definition stays" in line for line in running.told))
        handled(1)
        handled(2)
        (tmp_path / "h.py").write_text("def onmsg(messages):\n    return {'v': 2}\n")
        kit.wait_until(lambda: "h was loaded again" in running.told)
        handled(3)
        running.stop()
    assert [row["v"] for row in rows(hub, "h")] == [1, 1, 2]
    assert [row["kind"] for row in rows(hub, "h.errors")] == ["died"]


def test_it_goes_on_after_a_restart_of_either_side_and_warms_up(above: Hub, hub: Hub, run: Any, kit: Any) -> None:
    stream = above.streams.get("feed")
    text = "seen = []\ndef onmsg(messages):\n    seen.extend(m['n'] for m in messages)\n    return {'n': seen[-1], 'sum': sum(seen)}\n"
    upstream = serve(above, port=0)
    running = run(text, upstream=upstream.url)
    kit.wait_until(lambda: connected(upstream))
    stream.append({"n": 1})
    kit.wait_until(lambda: len(rows(hub, "h")) == 1)
    upstream.stop()
    stream.append({"n": 2})  # while nobody serves it
    upstream = serve(above, port=upstream.port)
    kit.wait_until(lambda: len(rows(hub, "h")) == 2)
    assert any(line.startswith("connected again to ws://") for line in running.told)
    running.stop()
    stream.append({"n": 3})  # while nobody handles it
    running = run(text, upstream=upstream.url, warm=1)
    kit.wait_until(lambda: len(rows(hub, "h")) == 3)
    running.stop()
    upstream.stop()
    # The third sum knows what array 2 brought, which was handed over again, and not array 1.
    assert [(row["n"], row["sum"]) for row in rows(hub, "h")] == [(1, 1), (2, 3), (3, 5)]


def test_an_upstream_that_is_not_there_yet_is_waited_for_and_one_that_refuses_is_not(
    above: Hub, hub: Hub, run: Any, kit: Any, tmp_path: Path
) -> None:
    above.streams.get("feed").append({"n": 1})
    probe = serve(above, port=0)
    url, port = probe.url, probe.port
    probe.stop()
    running = run(ECHO, upstream=url, since="start")
    kit.wait_until(lambda: any(line.endswith("; trying again") for line in running.told))
    with serve(above, port=port):
        kit.wait_until(lambda: len(rows(hub, "h")) == 1)
        running.stop()
    tokens = ps.plant.Tokens(tmp_path / "tokens.json")
    tokens.add("me")
    with serve(above, port=0, tokens=tokens) as guarded, ps.open(tmp_path / "other") as other:
        running = run(ECHO, "h2.py", to=other, upstream=guarded.url, token="wrong")
        running.thread.join(PATIENCE_S)
        assert isinstance(running.error, SourceError)
        assert "refuses the key" in str(running.error)


def test_an_upstream_that_has_begun_anew_is_told(hub: Hub, run: Any, kit: Any, tmp_path: Path) -> None:
    url = ""
    for name in ("one", "two"):
        with ps.open(tmp_path / name) as above:
            stream = above.streams.get("feed")
            with serve(above, port=int(url.rpartition(":")[2] or 0)) as upstream:
                running = run(ECHO, upstream=upstream.url, since="start")
                if not url:
                    url = upstream.url
                    stream.append([{"n": 1}, {"n": 2}])
                    kit.wait_until(lambda: len(rows(hub, "h")) == 2)
                    running.stop()
                else:
                    running.thread.join(PATIENCE_S)
                    assert "expected since at most 0, the end of stream 'feed', got 2" in str(running.error)
                    assert "; to begin anew: penstock stream drop h.input --hub /" in str(running.error)


def test_a_full_disk_is_waited_for(above: Hub, hub: Hub, run: Any, kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what came nor what was made of it is lost, and nothing is handled twice."""
    is_full, refused = threading.Event(), []

    def full(keep: Callable[..., Any]) -> Callable[..., Any]:
        def of(self: Journal, *args: Any) -> Any:
            if is_full.is_set():
                refused.append(keep.__name__)
                raise StorageError("no room")
            return keep(self, *args)

        return of

    monkeypatch.setattr("penstock.plant.node._RETRY_S", 0.05)
    for name in ("take", "settle"):
        monkeypatch.setattr(Journal, name, full(getattr(Journal, name)))
    stream = above.streams.get("feed")
    slow = "import time\ndef onmsg(messages):\n    time.sleep(0.3)\n    return [{'n': m['n']} for m in messages]\n"
    with serve(above, port=0) as upstream:
        running = run(slow, upstream=upstream.url)
        kit.wait_until(lambda: connected(upstream))
        stream.append({"n": 0})
        kit.wait_until(lambda: running.node.journal.input.next_offset == 2)
        is_full.set()  # while the handler is at it
        stream.append({"n": 1})
        kit.wait_until(lambda: refused.count("take") > 2 and refused.count("settle") > 2)
        stream.append({"n": 2})
        is_full.clear()
        kit.wait_until(lambda: len(rows(hub, "h")) == 3)
        running.stop()
    assert [row["n"] for row in rows(hub, "h")] == [0, 1, 2]
    assert running.told.count("no room; trying again") == 1


def test_what_cannot_be_meant(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected a URL such as ws://localhost:5000, got 'localhost'"):
        Node(tmp_path / "h.py", hub, upstream="localhost")
    with pytest.raises(HandlerError, match="which is not there"):
        Node(tmp_path / "h.py", hub, upstream="ws://localhost:5000")
    assert hub.streams.list() == []


def test_names_and_news() -> None:
    assert [name_of(s) for s in ("a/avg.kg", "x.py", "x.py:spread", "house.alerts:spread", "house.alerts")] == [
        "avg", "x", "spread", "spread", "alerts",
    ]  # fmt: skip
    news = Once(60)
    assert [news("a", 0), news("a", 59), news("b", 59), news("a", 61)] == [True, False, True, True]


# -- killed


def start(folder: Path, *args: object) -> tuple[subprocess.Popen[bytes], str]:
    """The node as a process, and its URL."""
    command = [
        sys.executable,
        "-m",
        "penstock",
        "plant",
        "handle",
        *map(str, args),
        "--port",
        "0",
        "--data",
        str(folder),
    ]
    src = str(Path(ps.__file__).parents[1])
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": src})
    assert process.stderr is not None
    for line in process.stderr:
        if b" at ws://" in line:
            return process, line.split(b" at ")[1].split(b";")[0].decode()
    raise AssertionError("the node did not start")


@pytest.mark.slow
def test_killed_at_any_instant_each_message_is_handled_once(above: Hub, tmp_path: Path, kit: Any) -> None:
    handler = tmp_path / "echo.py"
    handler.write_text(
        "from penstock.plant.handlers import bindings\n"
        "def onmsg(messages):\n"
        "    bindings.publish('copy', messages)\n"
        "    return [{'ev': 'E', 'n': m['n']} for m in messages if m['n'] % 3]\n"
    )
    stream, stopping, count = above.streams.get("feed"), threading.Event(), 0
    folder = tmp_path / "node"

    def feed() -> None:
        nonlocal count
        while not stopping.wait(0.002):
            stream.append([{"n": count + i} for i in range(2)])
            count += 2

    with serve(above, port=0) as upstream:
        thread = threading.Thread(target=feed)
        thread.start()
        try:
            for _ in range(5):
                process, _url = start(folder, handler, "--upstream", upstream.url, "--since", "start", "--timeout", 60)
                with ps.open(folder, create=False) as hub:
                    before = hub.streams.get("echo").next_offset
                    kit.wait_until(lambda: hub.streams.get("echo").next_offset > before)  # noqa: B023
                time.sleep(random.uniform(0, 0.1))
                process.kill()
                process.communicate()
        finally:
            stopping.set()
            thread.join()
        process, url = start(folder, handler, "--upstream", upstream.url, "--since", "start", "--timeout", 60)
        expected = [n for n in range(count) if n % 3]
        got = []
        for message in subscribe(url, "E.*", since="start", timeout=PATIENCE_S):
            got.append(message["n"])
            if len(got) == len(expected):
                break
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 143
    assert got == expected
    with ps.open(folder, create=False) as hub:
        assert [row["n"] for row in rows(hub, "echo")] == expected
        copied = [row["n"] for row in rows(hub, "copy")]
        assert copied == list(range(count))
        assert json.loads(hub.streams.get("echo.input").read()["document"][-1].as_py())["since"] == {"feed": count}


def test_a_handler_that_hears_nothing_ends_with_its_node(above: Hub, tmp_path: Path, kit: Any) -> None:
    handler = tmp_path / "deaf.py"
    handler.write_text(
        "import os, signal, sys\n"
        "def onmsg(messages):\n"
        "    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])\n"
        "    print('pid', os.getpid(), file=sys.stderr, flush=True)\n"
        "    while True: pass\n"
    )
    above.streams.get("feed").append({"n": 1})
    with serve(above, port=0) as upstream:
        process, _ = start(tmp_path / "node", handler, "--upstream", upstream.url, "--since", "start", "--timeout", 60)
        assert process.stderr is not None
        pid = next(int(line.split()[-1]) for line in process.stderr if b"pid" in line)
        process.kill()
        process.communicate()

    def is_gone() -> bool:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        return state == "Z"

    kit.wait_until(is_gone)
