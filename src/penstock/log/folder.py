"""A folder of streams: names to folders, making, finding and dropping them.

<root>/hub.json                 what this folder is
<root>/hub.sqlite               group positions
<root>/streams/<quoted name>/   meta.json, lock, bell, N.arrow, N.idx, groups/
"""

from __future__ import annotations

import contextlib
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
from penstock.errors import StorageError, UnknownStream, UsageError
from penstock.log.disk import storage
from penstock.log.lock import FileLock, at_fork
from penstock.log.meta import DOCUMENT_KIND, TABLE_KIND, Meta, Options, check_attributes, check_schema
from penstock.log.positions import Catalogue
from penstock.log.stream import Stream
from penstock.records import DOCUMENT

__all__ = ["Folder"]

FORMAT: Final = 1
_NAME_BYTES: Final = 200
_GRAVE: Final = ".dropped-"


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
        self.after_fork()
        at_fork(self)
        mark = self.path / "hub.json"
        if mark.exists():
            found = _read_mark(mark)
            if found != FORMAT:
                raise StorageError(
                    expected=f"a hub of format {FORMAT}",
                    got=f"{found!r}",
                    where=f"in {mark}",
                    hint="use another folder",
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
        with storage(self.path, "a new hub"):
            if self.path.is_dir() and any(self.path.iterdir()) and not self._streams.exists():
                raise StorageError(
                    expected="an empty folder or a hub",
                    got="a folder with other things in it",
                    where=f"at {self.path}",
                    hint="give a folder of its own, such as its sub-folder 'hub'",
                )
            try:
                self._streams.mkdir(parents=True, exist_ok=True)
            except (FileNotFoundError, NotADirectoryError) as error:  # a part of the path is a file, or /proc
                raise StorageError(
                    expected="a folder that can be made",
                    got=error.strerror,
                    where=f"at {error.filename}",
                    hint="give another path",
                ) from error
            temporary = self.path / f"hub.json.{os.getpid()}.new"
            try:
                temporary.write_bytes(msgspec.json.encode({"format": FORMAT}) + b"\n")
                temporary.rename(mark)
            finally:
                temporary.unlink(missing_ok=True)

    def after_fork(self) -> None:
        self._mutex = threading.Lock()

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
        if schema is not None:
            check_schema(schema, name)
        with self._mutex:
            stream = self._open.get(name)
            while stream is None or not stream.is_there:
                if not (folder / "meta.json").exists():
                    if not create:
                        raise self._unknown(name)
                    self._make(folder, name, schema, attributes, Options().changed(**options))
                with contextlib.suppress(UnknownStream):  # dropped by another process meanwhile: look again
                    stream = Stream(folder, self.catalogue)
                    if stream.is_dropped:  # by one that was killed before it had removed the folder
                        self._remove(stream, name)
            self._open[name] = stream
        if schema is not None or attributes or any(value is not None for value in options.values()):
            stream.change(schema=schema, attributes=attributes, **options)
        return stream

    def _make(
        self, folder: Path, name: str, schema: pa.Schema | None, attributes: dict[str, Any] | None, options: Options
    ) -> None:
        check_attributes(attributes, name)
        given = DOCUMENT if schema is None else schema
        kind = DOCUMENT_KIND if given.equals(DOCUMENT) else TABLE_KIND
        with storage(self.path, "a new stream"):
            folder.mkdir(parents=True, exist_ok=True)
            # Suppressed: it was dropped since the line above.
            with contextlib.suppress(FileNotFoundError), FileLock.held(folder / "lock") as lock:
                # else another process was faster, to make it or to drop it
                if lock.is_current() and not (folder / "meta.json").exists():
                    Meta(name, kind, WALL.now_ns(), given, dict(attributes or {}), options).save(folder)

    def exists(self, name: str) -> bool:
        """Whether there is such a stream."""
        return (self._folder(name) / "meta.json").exists()

    def path_of(self, name: str) -> Path:
        """The folder of a stream, which a repair may need when the stream cannot be opened. Raises UnknownStream."""
        folder = self._folder(name)
        if not folder.is_dir():
            raise self._unknown(name)
        return folder

    def names(self, pattern: str = "*") -> list[str]:
        """Names that match a shell pattern, sorted. Those that begin with "_" (the package's own) only if it does."""
        try:
            found = [
                unquote(entry.name)
                for entry in os.scandir(self._streams)
                if entry.name[0] != "." and (Path(entry) / "meta.json").exists()
            ]
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
        try:
            self._remove(stream, name)
        except UnknownStream:
            raise self._unknown(name) from None

    def _remove(self, stream: Stream, name: str) -> None:
        # A rename takes the stream away in one step; a grave whose digger was killed is cleared by the next one.
        grave = self._streams / f"{_GRAVE}{WALL.now_ns()}-{os.getpid()}"
        stream.mark_dropped(lambda: os.rename(self._folder(name), grave))
        self._open.pop(name, None)
        self.catalogue.forget(name)
        for found in self._streams.glob(f"{_GRAVE}*"):
            shutil.rmtree(found, ignore_errors=True)

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
