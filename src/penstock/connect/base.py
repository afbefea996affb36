"""What a source and a sink are, how one is run, and which ones are installed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterable, Iterable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol, runtime_checkable

from penstock.errors import SourceError
from penstock.records.describe import near

__all__ = ["Plugin", "Sink", "Source", "Target", "aattach", "attach", "resume_at", "sink", "sinks", "source", "sources"]

BUILT_IN = {
    "penstock.sources": {
        "dataset": "penstock.connect.dataset:Dataset",
        "websocket": "penstock.connect.websocket:WebSocket",
    },
    "penstock.sinks": {
        "file": "penstock.connect.filesink:FileSink",
        "websocket": "penstock.connect.websocketsink:WebSocketSink",
    },
}


class Target(Protocol):
    """What a source appends to: a stream, or anything with its `append`.

    origin: (source, position) that the rows were made from; `last_origin(source)` gives the last one back.
    """

    def append(self, data: Any, *, origin: tuple[str, int] | None = None) -> object: ...

    def last_origin(self, who: str) -> tuple[int, int] | None: ...


@runtime_checkable
class Source(Protocol):
    """Appends rows to a stream until it has no more, or `stopping` is set.

    An iterable or async iterable of rows, batches or frames is a source too: `attach` takes either.
    """

    def stream(self, stream: Any, *, stopping: threading.Event | None = None) -> object: ...


@runtime_checkable
class Sink(Protocol):
    """Takes windows or batches: when `put` returns, they are where they belong."""

    def put(self, window_or_batch: Any) -> object: ...


def resume_at(stream: Target, name: str) -> int:
    """The position after what `stream` has of source `name`; 0 if nothing.   Cost  a scan of the stream's index."""
    found = stream.last_origin(name)
    return 0 if found is None else found[0]


def attach(source: Any, stream: Target, *, stopping: threading.Event | None = None) -> None:
    """Run `source` into `stream`; blocks until it ends, or `stopping` is set.

    Takes   source: a Source, or an iterable or async iterable of what `stream.append` takes. Every item is appended
            as it comes, in order; `stopping` is looked at between two items.
    Raises  SourceError if `source` is none of these, RuntimeError for an async iterable inside a running event loop
            (use `aattach` there), and whatever the source raises: rows appended before stay.
    """
    if isinstance(source, Source):
        _run(source, stream, stopping)
    elif isinstance(source, AsyncIterable):
        asyncio.run(aattach(source, stream, stopping=stopping))
    else:
        for item in _items(source):
            if stopping is not None and stopping.is_set():
                return
            stream.append(item)


async def aattach(source: Any, stream: Target, *, stopping: threading.Event | None = None) -> None:
    """As `attach`. Cancelled, it leaves what was appended; what is not async runs in a thread, to its next item."""
    if not isinstance(source, AsyncIterable):
        halt = stopping or threading.Event()
        task = asyncio.ensure_future(asyncio.to_thread(attach, source, stream, stopping=halt))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            halt.set()
            await asyncio.wait([task])
            raise
        return
    async for item in source:
        if stopping is not None and stopping.is_set():
            return
        await asyncio.to_thread(stream.append, item)


def _run(source: Source, stream: Target, stopping: threading.Event | None) -> None:
    if stopping is None:
        source.stream(stream)  # a source that cannot be stopped needs no such parameter
    else:
        source.stream(stream, stopping=stopping)


def _items(source: Any) -> Iterable[Any]:
    if not isinstance(source, Iterable) or isinstance(source, str | bytes | dict) or hasattr(source, "columns"):
        hint = "wrap data that is there already: connect.Dataset(...)"
        raise SourceError(
            expected="an object with stream(stream), or an iterable or async iterable of rows",
            got=type(source).__name__,
            where="in attach",
            hint=hint,
        )
    return source


@dataclass(frozen=True, slots=True)
class Plugin:
    """One installed source or sink: `factory` makes it, or `error` says why it does not load."""

    name: str
    target: str
    package: str
    version: str
    factory: Any
    error: str | None


def sources() -> dict[str, Plugin]:
    """Installed sources by name: built in, and entry points `penstock.sources`; broken ones with their error."""
    return _installed("penstock.sources")


def sinks() -> dict[str, Plugin]:
    """Installed sinks by name: built in, and entry points `penstock.sinks`; broken ones with their error."""
    return _installed("penstock.sinks")


def source(name: str) -> Any:
    """The class or function that makes source `name`.   Raises  SourceError if there is none, or it does not load."""
    return _factory("source", name, sources())


def sink(name: str) -> Any:
    """The class or function that makes sink `name`.   Raises  SourceError if there is none, or it does not load."""
    return _factory("sink", name, sinks())


def _factory(kind: str, name: str, found: dict[str, Plugin]) -> Any:
    plugin = found.get(name)
    if plugin is None:
        close = near(name, found)
        hint = f"did you mean {close!r}?" if close else "install the package that brings it"
        raise SourceError(f"no {kind} named {name!r}: there are {', '.join(sorted(found))}", hint=hint)
    if plugin.error is not None:
        remedy = "update it, or remove it" if plugin.package != "penstock" else None
        where = f"in {plugin.package} {plugin.version} ({plugin.target})"
        raise SourceError(f"the {kind} {name!r} does not load: {plugin.error}", where=where, hint=remedy)
    return plugin.factory


def _installed(group: str) -> dict[str, Plugin]:
    from penstock import __version__

    found = {
        name: _loaded(EntryPoint(name, target, group), "penstock", __version__)
        for name, target in BUILT_IN[group].items()
    }
    for entry in sorted(entry_points(group=group), key=lambda e: (e.name, e.value)):
        package, version = (str(entry.dist.name), str(entry.dist.version)) if entry.dist is not None else ("?", "?")
        if package == "penstock":
            continue
        plugin = _loaded(entry, package, version)
        if entry.name in found:
            # Whoever came first keeps the name; the other is shown, never silently taken.
            held = found[entry.name].package
            name = f"{package}:{entry.name}"
            plugin = Plugin(name, entry.value, package, version, None, f"{held} has the name {entry.name!r} already")
        found[plugin.name] = plugin
    return found


def _loaded(entry: EntryPoint, package: str, version: str) -> Plugin:
    module, _, attribute = entry.value.partition(":")
    try:
        made: Any = import_module(module)
        for part in attribute.split(".") if attribute else ():
            made = getattr(made, part)
    except Exception as error:  # whatever a foreign package raises at import, the others must still be listed
        return Plugin(entry.name, entry.value, package, version, None, f"{type(error).__name__}: {error}")
    return Plugin(entry.name, entry.value, package, version, made, None)
