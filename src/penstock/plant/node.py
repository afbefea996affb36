"""A handler node: a plant's messages through a handler into a stream, which a plant of its own serves.

    node = Node("avg.kg", hub, upstream="ws://localhost:5000")
    service = node.serve(port=5001)
    await node.run()                                             # until `stop()`

    upstream ──▶ NAME.input ──▶ handler ──▶ NAME ──▶ plant
                                   └──▶ NAME.errors, and a status on the wire

Messages are logged as they come, handed over one array at a time, and what comes of each is appended exactly once
(`journal`). The feed waits for no handler: what it cannot take yet is in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from websockets.exceptions import InvalidURI

from penstock.errors import SourceError, StorageError
from penstock.hub import Hub
from penstock.plant.client import Subscription, subscribe
from penstock.plant.handlers import Failure, Handler
from penstock.plant.handlers.host import HandlerStatistics
from penstock.plant.journal import Journal
from penstock.plant.questions import Answer
from penstock.plant.service import Service, serve

__all__ = ["Node", "NodeStatistics", "Once", "name_of"]

_LOOK_S: Final = 0.5
_RETRY_S: Final = 1.0
_DRAIN_S: Final = 5.0
_QUIET_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class NodeStatistics:
    """A node: arrays handled ever, arrays that wait; since the start messages made and failures; its handler."""

    handled: int
    waiting: int
    messages: int
    failures: int
    handler: HandlerStatistics


class Once:
    """Says whether a text is news: not said within the last minute.

    Takes   seconds: for which it is none. Times are handed in, in seconds. At most 1,000 texts are remembered.
    """

    def __init__(self, seconds: float = _QUIET_S) -> None:
        self._seconds = seconds
        self._said: dict[str, float] = {}

    def __call__(self, text: str, now: float) -> bool:
        last = self._said.get(text)
        if last is not None and now - last < self._seconds:
            return False
        self._said.pop(text, None)
        self._said[text] = now
        while len(self._said) > 1000:
            del self._said[next(iter(self._said))]
        return True


def name_of(spec: str) -> str:
    """The name of a handler: `examples/avg.kg` is avg, `alerts.py:spread` and `house.alerts:spread` are spread."""
    place, _, function = spec.rpartition(":")
    if place and not function.endswith((".py", ".kg")):
        return function
    path = Path(spec)
    return path.stem if path.suffix in (".py", ".kg") else spec.rpartition(".")[2]


class Node:
    """A handler between a plant and those who subscribe to what it makes.

    Takes   spec: of the handler, as `Handler` takes it, with its `timeout`, `memory` and `trusted`;
            hub: where the node keeps its streams; upstream: URL of the plant; patterns: which of its messages;
            into: name of the stream of messages, by default the handler's; since: where to begin if this node has had
            nothing of that plant yet: None for what comes from now on, "start", an offset, a time;
            reads: folder of the hub that the handler may read, by default `hub`;
            warm: so many arrays, handled before, are handed over once more at the start, and what comes of them is
            thrown away: the handler's state is fresh in every process;
            token, tls: for the upstream; plain: it knows only the market's own words, as the market itself does: what
            it sends while this node is not connected is missed;
            tell: is told of failures, reloads and what the handler prints, a line each.
    Raises  UsageError, GroupBusy, HandlerError when there is no such file. `run` raises HandlerError when the handler
            does not load, SourceError when the upstream refuses the key or a pattern.
    Edges   While the disk is full, the array that was handled waits, and so do those behind
            it; what comes meanwhile is asked for again from the upstream.
    """

    def __init__(
        self,
        spec: str | os.PathLike[str],
        hub: Hub,
        *,
        upstream: str,
        patterns: str | Sequence[str] = "*",
        into: str | None = None,
        since: Any = None,
        reads: str | os.PathLike[str] | None = None,
        warm: int = 0,
        timeout: float = 1.0,
        memory: int = 512 << 20,
        trusted: bool = False,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
        plain: bool = False,
        tell: Callable[[str], object] = lambda text: None,
    ) -> None:
        self.name = into or name_of(str(spec))
        self.hub, self.upstream = hub, upstream
        self._options: dict[str, Any] = {"patterns": patterns, "token": token, "tls": tls, "plain": plain}
        subscribe(upstream, patterns, since=since, plain=plain).close()  # what cannot be meant is said here
        self._since, self._warm, self._tell = since, warm, tell
        self.handler = Handler(
            spec,
            timeout=timeout,
            memory=memory,
            hub=hub.path if reads is None else reads,
            trusted=trusted,
            on_print=self._printed,
        )
        self.handler.check()
        self.journal = Journal(hub, self.name, upstream=upstream)
        self.service: Service | None = None
        self._subscription: Subscription | None = None
        self._arrived = asyncio.Event()
        self._stopping = asyncio.Event()
        self._news = Once()
        self._served = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    def serve(self, **options: Any) -> Service:
        """Serve what the handler makes: `options` as `penstock.plant.serve` takes them. Call it once."""
        self.service = serve(self.hub, self.name, **options)
        self.service.server.plant.on_ask = self._asked
        return self.service

    def statistics(self) -> NodeStatistics:
        """Counters, and how far the handler is behind."""
        journal = self.journal
        return NodeStatistics(
            journal.handled, journal.waiting, journal.messages, journal.failures, self.handler.statistics()
        )

    def stop(self) -> None:
        """End `run` once what has come is handled, or five seconds are over. In the loop's thread."""
        self._stopping.set()
        self._arrived.set()

    async def start(self) -> None:
        """Load the handler, and warm it up. `run` does it if it was not done."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            await self.handler.start()
            await self._warm_up()

    async def run(self) -> None:
        """Handle messages until `stop`. Cancelled, it drops the array the handler is at: the next run begins there."""
        try:
            await self.start()
            feed = asyncio.create_task(self._feed())
            work = asyncio.create_task(self._work())
            look = asyncio.create_task(self._look())
            stop = asyncio.create_task(self._stopping.wait())
            tasks: list[asyncio.Task[Any]] = [feed, work, look, stop]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                if stop.done():
                    feed.cancel()
                    await asyncio.wait([work], timeout=_DRAIN_S)
                for task in (feed, work, look):
                    if task.done() and not task.cancelled():
                        task.result()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            await self.handler.stop()
            self.journal.close()
            if self.service is not None:
                await asyncio.to_thread(self.service.stop, drain_seconds=1.0)

    # -- upstream

    async def _feed(self) -> None:
        """Messages of the upstream into the journal."""
        while True:
            since: Any = {**self.journal.since, "*": 0} if self.journal.since else self._since
            subscription = subscribe(
                self.upstream, since=since, on_status=self._status, on_lost=self._lost, **self._options
            )
            self._subscription = subscription
            try:
                async with subscription:
                    async for messages in subscription.aframes():
                        assert isinstance(messages, list)
                        take = partial(self.journal.take, messages, subscription.positions)
                        for failure in await self._kept(take):
                            self._report(failure)
                        self._arrived.set()
            except SourceError as error:
                status = getattr(error, "status", None)
                if status == "error" and self.journal.since:
                    error.hint = f"to begin anew: penstock stream drop {self.journal.input.name} --hub {self.hub.path}"
                if status or isinstance(error.__cause__, InvalidURI) or not error.__cause__:
                    raise
                self._say(f"{error}; trying again")
            await asyncio.sleep(_RETRY_S)

    def _status(self, status: dict[str, Any]) -> None:
        streams = status.get("streams")
        if status.get("status") == "success" and isinstance(streams, dict) and not self.journal.since:
            # From here on nothing is missed, even if this node is killed before the first message.
            try:
                self.journal.take([], streams)
            except StorageError as error:
                self._say(str(error))
        elif status.get("status") == "connected" and self._subscription is not None:
            if self._subscription.statistics().connections > 1:
                self._tell(f"connected again to {self.upstream}")

    def _lost(self, text: str) -> None:
        self._tell(f"{text}; looking for it")

    # -- the handler

    async def _warm_up(self) -> None:
        for array in self.journal.before(self._warm):
            outcome = await self.handler(array.messages)
            if outcome.failure is not None:
                self._tell(f"{self.name}, warming up with array {array.number}: {outcome.failure.text}")

    async def _work(self) -> None:
        for array in self.journal.pending():
            if array is None:
                if self._stopping.is_set():
                    return
                await self._arrived.wait()
                if not self._stopping.is_set():
                    self._arrived.clear()
                continue
            outcome = await self.handler(array.messages) if array.messages else None
            for failure in await self._kept(partial(self.journal.settle, array.number, outcome)):
                self._report(failure)
            self._serve_published()

    async def _look(self) -> None:
        """Load the handler's file again when it changed."""
        while True:
            await asyncio.sleep(_LOOK_S)
            outcome = await self.handler.changed()
            if outcome is None:
                continue
            if outcome.failure is not None:
                self._report(
                    Failure("load", f"{outcome.failure.text}; the old definition stays", outcome.failure.trace)
                )
            else:
                self._tell(f"{self.name} was loaded again")
                self._announce("handler_reloaded", f"{self.name} was loaded again")

    # -- questions

    def _asked(self, question: Any, answer: Answer) -> None:
        """In the plant's thread: have it answered in this one."""
        if self._loop is None:
            answer(None, "the handler is not loaded yet")
            return
        try:
            asyncio.run_coroutine_threadsafe(self._answered(question, answer), self._loop)
        except RuntimeError:  # the loop is closed
            answer(None, "the handler has stopped")

    async def _answered(self, question: Any, answer: Answer) -> None:
        value: Any = None
        error: str | None = "the handler has stopped"
        try:
            outcome = await self.handler.ask(question)
            value, error = outcome.answer, outcome.failure.text if outcome.failure is not None else None
            for failure in self.journal.publish(outcome.published):
                self._report(failure)
            self._serve_published()
        finally:
            if self.service is not None:
                with contextlib.suppress(RuntimeError):
                    self.service.call(answer, value, error)

    def _serve_published(self) -> None:
        if self.service is None or len(self.journal.published) == self._served:
            return
        for name in self.journal.published:
            self.service.call(self.service.server.plant.also, name)
        self._served = len(self.journal.published)

    async def _kept(self, keep: Callable[[], list[Failure]]) -> list[Failure]:
        """What `keep` returns, once there is room for it: a disk that is full gets its time."""
        while True:
            try:
                return keep()
            except StorageError as error:
                self._say(f"{error}; trying again")
                await asyncio.sleep(_RETRY_S)

    def _report(self, failure: Failure) -> None:
        text = f"{self.name}: {failure.text}"
        if self._news(text, time.monotonic()):
            self._tell(text)
            self._announce("handler_error", text, failure=failure.kind)

    def _printed(self, line: str) -> None:
        self._tell(f"{self.name} prints: {line}")

    def _say(self, text: str) -> None:
        if self._news(text, time.monotonic()):
            self._tell(text)

    def _announce(self, kind: str, text: str, **facts: Any) -> None:
        if self.service is not None:
            plant = self.service.server.plant
            with contextlib.suppress(RuntimeError):  # it has stopped
                self.service.call(lambda: plant.announce(kind, text, **facts))
