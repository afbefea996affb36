"""A plant in a thread of its own: for programs that are not async."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

from penstock.errors import UsageError
from penstock.hub import Hub
from penstock.plant.plant import Plant
from penstock.plant.protocol import Code
from penstock.plant.server import Server

__all__ = ["Service", "serve"]

_PLANT = ("policy", "limits", "check", "clock")


def serve(hub: Hub, streams: str | Sequence[str] = "*", **options: Any) -> Service:
    """Serve streams of a hub; returns when clients can connect.

    Takes   hub, streams, and `policy`, `limits`, `check`, `clock` as `Plant` does; `host`, `port`, `tokens`,
            `certificate`, `origins`, `compression`, `ping_seconds`, `linger_ms` as `Server` does.
    Returns a Service: `url`, `stop()`, `wait()`; a context manager.
    Raises  UsageError, UnknownStream; OSError when the port is taken.

    >>> with serve(hub, "bars", port=0) as service: ...
    """
    plant = Plant(hub, streams, **{name: options.pop(name) for name in _PLANT if name in options})
    try:
        server = Server(plant, **options)
    except TypeError as error:
        raise UsageError(f"{error}", where="in plant.serve") from None
    return Service(server)


class Service:
    """A server that runs in its own thread."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._started = threading.Event()
        self._error: BaseException | None = None
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._code, self._drain = Code.RESTART, 0.0
        self._thread = threading.Thread(target=self._run, name="plant", daemon=True)
        self._thread.start()
        self._started.wait()
        if self._error is not None:
            raise self._error

    @property
    def url(self) -> str:
        """Where clients connect."""
        return self.server.url

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self.server.port

    def call(self, function: Any, *args: Any) -> Any:
        """Run a function in the plant's thread and return what it returns: a plant is for one thread."""

        async def run() -> Any:
            return function(*args)

        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    def stop(self, *, code: Code = Code.RESTART, drain_seconds: float = 0.0) -> None:
        """Publish what is in the log, close all connections, end the thread. A second call does nothing."""
        self._code, self._drain = code, drain_seconds
        if self._thread.is_alive() and self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it has stopped; False when `seconds` are over."""
        if seconds is None:
            # Not for ever at once: a signal may wake another thread, and this one is to hear of it.
            while self._thread.is_alive():
                self._thread.join(0.5)
        else:
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            await self.server.start()
        except BaseException as error:
            self._error = error
            return
        finally:
            self._started.set()
        await self._stop.wait()
        await self.server.stop(code=self._code, drain_seconds=self._drain)
