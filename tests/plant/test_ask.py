"""Questions to the handler behind a plant, from a client and from other handlers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

import penstock as ps
from penstock.errors import SourceError, UsageError
from penstock.hub import Hub
from penstock.plant import Limits, Tokens, serve, subscribe
from penstock.plant.ask import ask, forget
from penstock.plant.node import Node
from penstock_tests.waiting import PATIENCE_S

LAST = """
last:::{}
onmsg::{{last,(x?"sym"),x?"c"}'x;x}
onask::{:[x="bad";1%"no";:[x="loop";{1}{x+1}:~0;last?x]]}
"""
ASKING = """
onmsg::{[d];d:::{};d,["ev" "ASKED"];d,"a",ps_ask("URL";(x@0)?"of");d,"n",#ps_read("bars";9);ps_publish("seen";x);d}
"""


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    forget()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Node]]:
    """`run("last", "onask::…", upstream=URL)`: a node that runs in a thread, with a hub of its own."""
    started: list[tuple[Node, asyncio.AbstractEventLoop, threading.Thread, Hub]] = []

    def start(name: str, text: str, *, serving: dict[str, Any] | None = None, **options: Any) -> Node:
        path = tmp_path / f"{name}.kg"
        path.write_text(text)
        hub = ps.open(tmp_path / f"{name}-hub")
        ready = threading.Event()

        async def main() -> None:
            node = Node(path, hub, since="start", **{"timeout": PATIENCE_S, **options})
            await node.start()
            node.serve(port=0, **(serving or {}))
            started.append((node, asyncio.get_running_loop(), threading.current_thread(), hub))
            ready.set()
            await node.run()

        threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
        assert ready.wait(PATIENCE_S)
        return started[-1][0]

    yield start
    for node, loop, thread, hub in started:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(node.stop)
        thread.join(PATIENCE_S)
        hub.close()


def url_of(node: Node) -> str:
    assert node.service is not None
    return node.service.url


def test_two_klong_programs_talk(hub: Hub, run: Any, kit: Any) -> None:
    """One keeps the last closes; the other asks it, reads a stream, and publishes to that."""
    bars = hub.streams.get("bars", schema=ps.records.BARS)
    bars.append([kit.bar("AAPL", 0, close=52.5), kit.bar("MSFT", 0, close=7.0)])
    hub.streams.get("questions").append([{"of": "AAPL"}])
    with serve(hub, port=0) as upstream:
        last = run("last", LAST, upstream=upstream.url, patterns="AM.*")
        kit.wait_until(lambda: last.journal.messages == 2)
        text = ASKING.replace("URL", url_of(last))
        asking = run("asking", text, upstream=upstream.url, patterns="questions.*", reads=hub.path)
        kit.wait_until(lambda: asking.journal.messages == 1)  # each question is an array of its own
        hub.streams.get("questions").append([{"of": "MSFT"}])
        found = []
        for message in subscribe(url_of(asking), "*", since="start", timeout=PATIENCE_S):
            found.append(message)
            if len(found) == 4:
                break
    assert [m for m in found if m["ev"] == "ASKED"] == [
        {"ev": "ASKED", "a": 52.5, "n": 2},
        {"ev": "ASKED", "a": 7.0, "n": 2},
    ]
    # What it publishes is served beside what it returns.
    assert [m["of"] for m in found if m["ev"] == "questions"] == ["AAPL", "MSFT"]


def test_an_answer_and_what_can_go_wrong(hub: Hub, run: Any, kit: Any, tmp_path: Path) -> None:
    hub.streams.get("bars", schema=ps.records.BARS).append([kit.bar("AAPL", 0, close=52.5)])
    tokens = Tokens(tmp_path / "tokens.json")
    key = tokens.add("me")
    with serve(hub, port=0) as upstream:
        node = run("last", LAST, upstream=upstream.url, serving={"tokens": tokens}, timeout=2.0)
        kit.wait_until(lambda: node.journal.messages == 1)
        url = url_of(node)
        assert ask(url, "AAPL", token=key) == 52.5
        assert ask(url, "none", token=key) is None
        with pytest.raises(SourceError, match="the plant says: KlongException|the plant says: TypeError"):
            ask(url, "bad", token=key)
        with pytest.raises(SourceError, match=r"the plant says: did not return within 2 s"):
            ask(url, "loop", token=key)
        assert ask(url, "AAPL", token=key) is None  # started again, with fresh state
        with pytest.raises(SourceError, match="the plant refuses: authentication failed - at ws://.*PENSTOCK_TOKEN"):
            ask(url, "AAPL", token="wrong")
        with pytest.raises(SourceError, match="nobody behind this plant answers questions"):
            ask(upstream.url, "AAPL")
        with pytest.raises(UsageError, match="expected a question of JSON values, got "):
            ask(url, object(), token=key)
        upstream_url = upstream.url
    with pytest.raises(SourceError, match="no answer from ws://"):
        ask(upstream_url, "AAPL")
    with pytest.raises(UsageError, match="expected a URL such as ws://localhost:5001, got 'x'"):
        ask("x", 1)
    assert node.statistics().failures == 0  # questions that fail are told to those who ask


def test_a_question_on_the_wire(hub: Hub, run: Any) -> None:
    hub.streams.get("x")
    with serve(hub, port=0, limits=Limits(questions=1)) as service:
        waiting: list[Any] = []
        service.server.plant.on_ask = lambda question, reply: waiting.append((question, reply))

        def say(socket: Any, **words: Any) -> list[Any]:
            socket.send(json.dumps(words))
            return json.loads(socket.recv(timeout=PATIENCE_S))

        with connect(service.url) as socket:
            socket.recv(timeout=PATIENCE_S)
            say(socket, action="auth", params="")
            socket.send(json.dumps({"action": "ask", "params": {"a": [1]}, "id": "q1"}))
            assert say(socket, action="ask", params=1, id=2) == [
                {"ev": "status", "status": "ask_error", "message": "too many questions: the limit is 1", "id": 2}
            ]
            ((question, reply),) = waiting
            assert question == {"a": [1]}
            service.call(reply, [1.5, None], None)
            assert json.loads(socket.recv(timeout=PATIENCE_S)) == [{"ev": "answer", "id": "q1", "answer": [1.5, None]}]
            socket.send(json.dumps({"action": "ask", "params": None}))
            (error,) = say(socket, action="ask", id=[1])
            assert error["message"] == "expected id to be a number or a text, got [1]"
            service.call(waiting[1][1], None, "no")
            assert json.loads(socket.recv(timeout=PATIENCE_S)) == [
                {"ev": "status", "status": "ask_error", "message": "no", "id": None}
            ]
            socket.send(json.dumps({"action": "ask", "params": 3, "id": 3}))
            assert say(socket, action="ask", params=1, id=4)[0]["id"] == 4
        service.call(waiting[2][1], 1, None)  # the asker is gone
        with connect(service.url) as socket:
            socket.recv(timeout=PATIENCE_S)
            socket.send(json.dumps({"action": "ask", "params": 1, "id": 1}))
            with pytest.raises(Exception, match="authenticate first"):
                socket.recv(timeout=PATIENCE_S)
