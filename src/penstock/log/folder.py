"""A folder of streams: names to folders, making, finding and dropping them.

    <root>/hub.json                 what this folder is
    <root>/hub.sqlite               group positions
    <root>/streams/<quoted name>/   meta.json, lock, bell, N.arrow, N.idx, groups/
"""

from __future__ import annotations

import difflib
import fnmatch
import os
import shutil
import threading
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote

import msgspec
import pyarrow as pa

from penstock.clock import WALL
from penstock.errors import ReadOnly, StorageError, UnknownStream, UsageError
from penstock.log.lock import FileLock
from penstock.log.meta import DOCUMENT_KIND, TABLE_KIND, Meta, Options, check_attributes
from penstock.log.positions import Catalogue
from penstock.log.stream import Stream
from penstock.records import DOCUMENT

__all__ = ["Folder"]

FORMAT: Final = 1
_NAME_BYTES: Final = 200


class Folder:
    """The streams of one folder, made at first use.

    Takes   create: make the folder when it is not there; else UnknownStream.
    Raises  StorageError when the folder holds something else, ReadOnly when it cannot be made.
    """

    def __init__(self, path: Path, *, create: bool = True) -> None:
        self.path = path.absolute()
        self._streams = self.path / "streams"
        self.catalogue = Catalogue(self.path / "hub.sqlite")
        self._open: dict[str, Stream] = {}
        self._mutex = threading.Lock()
        mark = self.path / "hub.json"
        if mark.exists():
            found = _read_mark(mark)
            if found != FORMAT:
                raise StorageError(
                    expected=f"a hub of format {FORMAT}", got=f"{found!r}", where=f"in {mark}", hint="use another folder"
                )
            return
        if not create:
            raise UnknownStream(
                expected="a hub",
                got="no hub.json",
                where=f"in {self.path}",
                hint="give the hub's folder, or append to a stream first",
            )
        if self.path.exists() and not self.path.is_dir():
            raise StorageError(expected="a folder", got="a file", where=f"at {self.path}", hint="give another path")
        if self.path.is_dir() and any(self.path.iterdir()) and not self._streams.exists():
            raise StorageError(
                expected="an empty folder or a hub",
                got="a folder with other things in it",
                where=f"at {self.path}",
                hint="give a folder of its own, such as its sub-folder 'hub'",
            )
        try:
            self._streams.mkdir(parents=True, exist_ok=True)
            temporary = self.path / f"hub.json.{os.getpid()}.new"
            temporary.write_bytes(msgspec.json.encode({"format": FORMAT}) + b"\n")
            temporary.rename(mark)
        except OSError as error:
            raise ReadOnly(
                expected="a writable folder", got=str(error), where=f"at {self.path}", hint="give another path"
            ) from error

    def stream(
        self,
        name: str,
        *,
        schema: pa.Schema | None = None,
        attributes: dict[str, Any] | None = None,
        create: bool = True,
        **options: Any,
    ) -> Stream:
        """The stream of that name, made when it is not there.

        Takes   schema: columns of its rows (None: documents, or that of the first table appended); on a stream that has
                one it must be equal, narrower, or a widening, which then takes effect;
                attributes: JSON values, merged into those it has; options: see `Options`.
        Raises  UsageError for a bad name or option, SchemaMismatch, UnknownStream when not `create`.
        """
        folder = self._folder(name)
        with self._mutex:
            stream = self._open.get(name)
            if stream is not None and not stream.is_there:
                stream = None
            if stream is None:
                if not (folder / "meta.json").exists():
                    if not create:
                        raise self._unknown(name)
                    self._make(folder, name, schema, attributes, Options().changed(**options))
                stream = self._open[name] = Stream(folder, self.catalogue)
        if schema is not None or attributes or any(value is not None for value in options.values()):
            stream.change(schema=schema, attributes=attributes, **options)
        return stream

    def _make(
        self, folder: Path, name: str, schema: pa.Schema | None, attributes: dict[str, Any] | None, options: Options
    ) -> None:
        if schema is not None and not isinstance(schema, pa.Schema):
            raise UsageError(
                expected="a pyarrow.Schema",
                got=f"{type(schema).__name__} {schema!r}",
                where=f"in schema of stream {name!r}",
                hint="for example penstock.records.TRADES, or pa.schema({'price': pa.float64()})",
            )
        if schema is not None and not len(schema):
            raise UsageError(expected="a schema with columns", got="an empty one", where=f"of stream {name!r}")
        check_attributes(attributes, name)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / "lock")
        except OSError as error:
            raise ReadOnly(
                expected="a writable hub", got=str(error), where=f"at {self.path}", hint="give another path"
            ) from error
        try:
            lock.acquire()
            if not (folder / "meta.json").exists():  # else another process was faster
                given = DOCUMENT if schema is None else schema
                kind = DOCUMENT_KIND if given.equals(DOCUMENT) else TABLE_KIND
                Meta(name, kind, WALL.now_ns(), given, dict(attributes or {}), options).save(folder)
        except OSError as error:
            raise StorageError(
                expected="room for a new stream", got=str(error), where=f"in {folder}", hint="free some space"
            ) from error
        finally:
            lock.release()
            lock.close()

    def exists(self, name: str) -> bool:
        """Whether there is such a stream."""
        return (self._folder(name) / "meta.json").exists()

    def names(self, pattern: str = "*") -> list[str]:
        """Names that match a shell pattern, sorted. Those that begin with "_" (the package's own) only if it does."""
        try:
            found = [unquote(entry.name) for entry in os.scandir(self._streams) if (Path(entry) / "meta.json").exists()]
        except FileNotFoundError:
            return []
        return sorted(
            name
            for name in found
            if fnmatch.fnmatchcase(name, pattern) and (pattern.startswith("_") or not name.startswith("_"))
        )

    def drop(self, name: str) -> None:
        """Remove a stream and all its rows, now and for every process. Raises UnknownStream."""
        stream = self.stream(name, create=False)
        stream.mark_dropped()
        with self._mutex:
            self._open.pop(name, None)
        folder = self._folder(name)
        grave = self._streams / f".dropped-{WALL.now_ns()}-{os.getpid()}"
        try:
            folder.rename(grave)
        except FileNotFoundError:
            raise self._unknown(name) from None
        self.catalogue.forget(name)
        shutil.rmtree(grave, ignore_errors=True)

    def close(self) -> None:
        """Give open files back."""
        with self._mutex:
            for stream in self._open.values():
                stream.close()
            self._open.clear()
        self.catalogue.close()

    def _folder(self, name: str) -> Path:
        if not isinstance(name, str) or not name or not name.isprintable() or name != name.strip():
            raise UsageError(
                expected="a stream name: printable text without blanks at its ends",
                got=repr(name),
                where=f"in hub {self.path}",
                hint='for example "trades" or "historical/minute"',
            )
        quoted = quote(name, safe=" ,;=+@!~")
        if quoted.startswith("."):
            quoted = "%2E" + quoted[1:]
        if len(quoted) > _NAME_BYTES:
            raise UsageError(
                expected=f"a stream name of at most {_NAME_BYTES} bytes",
                got=f"{len(quoted)} bytes",
                where=f"in hub {self.path}",
                hint="use a shorter name, and an attribute for the rest",
            )
        return self._streams / quoted

    def _unknown(self, name: str) -> UnknownStream:
        names = self.names()
        near = difflib.get_close_matches(name, names, 3)
        return UnknownStream(
            f"no stream {name!r}",
            where=f"in hub {self.path}",
            hint=f"did you mean {' or '.join(map(repr, near))}?" if near else "see `penstock stream ls`",
            near=near,
        )


def _read_mark(path: Path) -> Any:
    try:
        return msgspec.json.decode(path.read_bytes())["format"]
    except (msgspec.DecodeError, KeyError, TypeError, OSError) as error:
        return error
