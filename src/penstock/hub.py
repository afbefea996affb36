"""Where streams live: `penstock.open("data")`, and `hub.streams`.

This file joins the log and the windows: `streams.get(name)` is a stream, `streams.get(name, lazy=True, ...)` the same
stream as windows for a function.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, overload

import pyarrow as pa

from penstock.errors import UnknownStream, UsageError
from penstock.log import Folder, Metadata, Retention, Stream
from penstock.window.history import marks_of
from penstock.window.streaming import STREAMING_OPTIONS, Streaming

__all__ = ["Hub", "Streams", "open"]

DEFAULT_FOLDER = "penstock-data"


def open(url: str | os.PathLike[str] | None = None, *, create: bool = True) -> Hub:
    """Open a hub.

    Takes   url: a folder, made at first use; None: $PENSTOCK_HUB, or ./penstock-data.
            create: False to refuse a folder that is no hub yet.
    Raises  UsageError for a URL of another kind, StorageError, ReadOnly, UnknownStream when not `create`.

    >>> hub = open("data")
    """
    where = url if url is not None else os.environ.get("PENSTOCK_HUB") or DEFAULT_FOLDER
    if isinstance(where, os.PathLike):
        where = os.fspath(where)
    if not isinstance(where, str) or not where or "\0" in where:
        raise UsageError(
            expected="the path of a folder",
            got=repr(where),
            where="in penstock.open",
            hint='such as penstock.open("data")',
        )
    if where.startswith("file://"):
        where = where.removeprefix("file://")
    elif "://" in where:
        raise UsageError(
            expected="the path of a folder",
            got=repr(where),
            where="in penstock.open",
            hint="this version keeps streams in folders",
        )
    return Hub(Path(where).expanduser(), create=create)


class Hub:
    """A folder of streams. Threads and processes may share one; `with` closes it."""

    def __init__(self, path: Path, *, create: bool = True) -> None:
        self._folder = Folder(path, create=create)
        self.streams = Streams(self._folder)

    @property
    def path(self) -> Path:
        """The hub's folder."""
        return self._folder.path

    def close(self) -> None:
        """Give open files back."""
        self._folder.close()

    def __enter__(self) -> Hub:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Hub({str(self.path)!r})"


class Streams:
    """The streams of a hub, by name."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    @overload
    def get(
        self,
        name: str,
        *,
        lazy: Literal[False] = False,
        schema: pa.Schema | None = None,
        attributes: dict[str, Any] | None = None,
        create: bool = True,
        durability: str | None = None,
        retention: Retention | dict[str, Any] | None = None,
        segment_bytes: int | None = None,
        max_row_bytes: int | None = None,
        max_batch_bytes: int | None = None,
    ) -> Stream: ...

    @overload
    def get(self, name: str, *, lazy: Literal[True], **options: Any) -> Streaming: ...

    def get(
        self,
        name: str,
        *,
        lazy: bool = False,
        schema: pa.Schema | None = None,
        attributes: dict[str, Any] | None = None,
        create: bool = True,
        durability: str | None = None,
        retention: Retention | dict[str, Any] | None = None,
        segment_bytes: int | None = None,
        max_row_bytes: int | None = None,
        max_batch_bytes: int | None = None,
        **windows: Any,
    ) -> Stream | Streaming:
        """A stream, made at first access.

        Takes   schema: columns of its rows; without one, rows are JSON documents, or, when the first thing appended is
                a table, that table's;
                attributes: JSON values kept with the stream;
                lazy: as windows for a function; the options then are `size=`, `interval=`, `relaxed=`, `by=`,
                `emitter=`, `group=`, `into=`, … (see `Streaming`);
                durability "os" | "group" | "always", retention {"age", "bytes", "until"}, segment_bytes, max_row_bytes,
                max_batch_bytes: how the stream is kept, for all who use it (see `penstock.log.Options`);
                create: False to raise UnknownStream instead of making it.
        Raises  UsageError for a bad name or an unknown option, SchemaMismatch, UnknownStream.
        """
        if windows and not lazy:
            option = sorted(windows)[0]
            known = option in STREAMING_OPTIONS
            raise UsageError(
                expected="an option of a stream",
                got=f"{option}={windows[option]!r}",
                where=f"in streams.get({name!r})",
                hint=f"windows need lazy=True: get({name!r}, lazy=True, {option}=…)" if known else _near(option),
            )
        stream = self._folder.stream(
            name,
            schema=schema,
            attributes=attributes,
            create=create,
            durability=durability,
            retention=retention,
            segment_bytes=segment_bytes,
            max_row_bytes=max_row_bytes,
            max_batch_bytes=max_batch_bytes,
        )
        return Streaming(stream, self._folder.stream, **windows) if lazy else stream

    def put(self, data: Any, name: str) -> Stream:
        """Append `data` to the stream of that name; returns the stream."""
        if callable(data) and not hasattr(data, "__arrow_c_stream__"):
            raise UsageError(
                expected="rows",
                got=f"the function {getattr(data, '__qualname__', data)!r}",
                where=f"in streams.put(…, {name!r})",
                hint=f"to run it on windows: streams.get({name!r}, lazy=True, …).apply(function)",
            )
        stream = self._folder.stream(name)
        stream.append(data)
        return stream

    def metadata(self, name: str) -> Metadata:
        """Kind, created, schema, attributes, offsets, bytes and groups of a stream. Raises UnknownStream."""
        return self._folder.stream(name, create=False).metadata()

    def list(self, pattern: str = "*") -> list[str]:
        """Names that match a shell pattern, such as "m*", sorted."""
        return self._folder.names(pattern)

    def exists(self, name: str) -> bool:
        """Whether there is a stream of that name."""
        return self._folder.exists(name)

    async def aput(self, data: Any, name: str) -> Stream:
        """As `put`. Cancelled, it may still have appended."""
        return await asyncio.to_thread(self.put, data, name)

    def path(self, name: str) -> Path:
        """The folder of a stream, whose files are plain Arrow. Raises UnknownStream."""
        return self._folder.path_of(name)

    def drop(self, name: str) -> None:
        """Remove a stream, its rows and its groups. Raises UnknownStream."""
        self._folder.drop(name)
        for marks in self._folder.names("_marks/*"):
            if marks.startswith(marks_of(name)):
                with contextlib.suppress(UnknownStream):
                    self._folder.drop(marks)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.exists(name)

    def __repr__(self) -> str:
        return f"Streams({self._folder.path}: {', '.join(self.list()) or 'none'})"


def _near(option: str) -> str:
    names = ["schema", "attributes", "create", "durability", "retention", "segment_bytes", "max_row_bytes"]
    names += ["max_batch_bytes", "lazy", *sorted(STREAMING_OPTIONS)]
    near = difflib.get_close_matches(option, names, 1)
    return f"did you mean {near[0]!r}?" if near else f"options are {', '.join(names[:9])}"


_default: tuple[str, str, Hub] | None = None


def __getattr__(name: str) -> Any:
    """`streams` of the default hub: $PENSTOCK_HUB, or ./penstock-data, as it is now."""
    if name != "streams":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    global _default
    url, here = os.environ.get("PENSTOCK_HUB") or DEFAULT_FOLDER, os.getcwd()
    if _default is None or _default[:2] != (url, here):
        _default = (url, here, open(url))
    return _default[2].streams
