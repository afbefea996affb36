"""What a stream is: `meta.json` in its folder, and what the hub tells of it."""

from __future__ import annotations

import base64
import difflib
import os
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa

from penstock.clock import duration_ns, utc
from penstock.errors import CorruptSegment, SchemaMismatch, UsageError
from penstock.log.disk import replacing, storage
from penstock.log.message import schema_of
from penstock.records import event_column, event_times, widen

__all__ = [
    "DOCUMENT_KIND",
    "TABLE_KIND",
    "Meta",
    "Metadata",
    "Options",
    "Retention",
    "check_attributes",
    "check_schema",
]

DOCUMENT_KIND: Final = "stream.document"
TABLE_KIND: Final = "stream.table"
FORMAT: Final = 1
_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Retention:
    """What a stream may forget, in whole sealed segments; the open one always stays.

    age_ns  segments whose last append is older;  max_bytes  oldest segments beyond this size of the stream;
    until   only rows that this group has committed (a roller into the store, say): bounds the other two.
    """

    age_ns: int | None = None
    max_bytes: int | None = None
    until: str | None = None

    @classmethod
    def of(cls, value: Retention | dict[str, Any] | None) -> Retention:
        """From {"age": "7d", "bytes": 10_000_000, "until": "store"}, each part optional."""
        if value is None:
            return cls()
        if isinstance(value, cls):
            return value
        unknown = set(value) - {"age", "bytes", "until"} if isinstance(value, dict) else {repr(value)}
        if unknown:
            raise UsageError(
                expected="a retention of age, bytes, until",
                got=", ".join(sorted(map(str, unknown))),
                where="in retention",
                hint='for example {"age": "7d", "bytes": 10_000_000_000}',
            )
        assert isinstance(value, dict)
        age, limit, until = value.get("age"), value.get("bytes"), value.get("until")
        if limit is not None and (type(limit) is not int or limit < 0):
            raise UsageError(expected="a number of bytes, at least 0", got=repr(limit), where="in retention")
        if until is not None and (not isinstance(until, str) or not until):
            raise UsageError(expected="the name of a group", got=repr(until), where="in retention, until")
        return cls(None if age is None else duration_ns(age, name="retention age"), limit, until)


@dataclass(frozen=True, slots=True)
class Options:
    """How a stream is kept; the same for all who write to it.

    durability      "os": an append survives a killed process; "group": an fdatasync shared by a few ms of appends;
                    "always": an fdatasync each. The last two survive a lost power supply.
    segment_bytes   size at which the next segment begins
    max_row_bytes   the largest single row; max_batch_bytes  larger tables are appended in pieces
    """

    durability: str = "os"
    segment_bytes: int = 256 * _MIB
    max_row_bytes: int = 64 * _MIB
    max_batch_bytes: int = 16 * _MIB
    retention: Retention = field(default_factory=Retention)

    def __post_init__(self) -> None:
        if self.durability not in ("os", "group", "always"):
            raise UsageError(
                expected='durability "os", "group" or "always"',
                got=repr(self.durability),
                where="in the stream's options",
            )
        for name in ("segment_bytes", "max_row_bytes", "max_batch_bytes"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise UsageError(
                    expected=f"{name} of at least 1", got=repr(getattr(self, name)), where="in the stream's options"
                )

    def changed(self, **changes: Any) -> Options:
        """These options with those given (not None) in their place."""
        given = {name: value for name, value in changes.items() if value is not None}
        known = {one.name for one in fields(self)}
        for name in given:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                raise UsageError(
                    expected=f"an option of {', '.join(sorted(known))}",
                    got=f"{name}={given[name]!r}",
                    where="in the stream's options",
                    hint=f"did you mean {near[0]!r}?" if near else None,
                )
        if "retention" in given:
            given["retention"] = Retention.of(given["retention"])
        return replace(self, **given)


@dataclass(frozen=True, slots=True)
class Meta:
    """The contents of `meta.json`."""

    name: str
    kind: str
    created_ns: int
    schema: pa.Schema
    attributes: dict[str, Any]
    options: Options

    def is_same(self, other: Meta) -> bool:
        """Whether nothing differs, metadata of the schema included."""
        return self == other and self.schema.equals(other.schema, check_metadata=True)

    def changed(
        self,
        schema: pa.Schema | None,
        attributes: dict[str, Any] | None,
        options: dict[str, Any],
        *,
        holds_rows: bool,
    ) -> Meta:
        """This description with a schema that both fit, attributes set (None removes one), options that are not None.

        Raises  SchemaMismatch, UsageError.
        """
        new = replace(self, options=self.options.changed(**options))
        if attributes:
            merged = {**self.attributes, **attributes}
            new = replace(new, attributes={k: v for k, v in merged.items() if v is not None})
        if schema is None:
            return new
        if self.kind != DOCUMENT_KIND:
            return replace(new, schema=widen(self.schema, schema, stream=self.name))
        if schema.equals(self.schema):
            return new
        if holds_rows:
            raise SchemaMismatch(
                expected="JSON documents",
                got=f"a schema with columns {', '.join(schema.names)}",
                where=f"in stream {self.name!r}",
                hint="it holds documents already; use another name for the table",
                stream=self.name,
                column=None,
            )
        return replace(new, schema=schema, kind=TABLE_KIND)

    @classmethod
    def load(cls, folder: Path) -> Meta:
        """Read it. Raises FileNotFoundError when there is no stream, CorruptSegment when it cannot be understood."""
        path = folder / "meta.json"
        data = path.read_bytes()
        try:
            found = msgspec.json.decode(data)
            if found["format"] != FORMAT:
                raise ValueError(f"format {found['format']!r}")
            if found["kind"] not in (DOCUMENT_KIND, TABLE_KIND):
                raise ValueError(f"kind {found['kind']!r}")
            schema = schema_of(base64.b64decode(found["schema"]))
            if list(found["columns"]) != schema.names:
                raise ValueError(f"the schema's columns are {', '.join(schema.names)}")
            options = dict(found["options"])
            options["retention"] = Retention(**options["retention"])
            return cls(
                found["name"],
                found["kind"],
                found["created_ns"],
                schema,
                found["attributes"],
                Options(**options),
            )
        except (msgspec.DecodeError, KeyError, TypeError, ValueError) as error:
            raise CorruptSegment(
                expected=f"the description of a stream, format {FORMAT}",
                got=f"{error}",
                where=f"in {path}",
                hint="restore the file; the rows beside it are plain Arrow streams",
                file=str(path),
                position=0,
                first=0,
                stop=0,
            ) from error

    def save(self, folder: Path) -> None:
        """Replace the file in one step, durably. Raises DiskFull, ReadOnly."""
        content = {
            "format": FORMAT,
            "name": self.name,
            "kind": self.kind,
            "created_ns": self.created_ns,
            "columns": {f.name: str(f.type) + ("" if f.nullable else " not null") for f in self.schema},
            "schema": base64.b64encode(self.schema.serialize().to_pybytes()).decode(),
            "attributes": self.attributes,
            "options": msgspec.to_builtins(self.options),
        }
        temporary = folder / f"meta.json.{os.getpid()}.new"
        with storage(folder, "the description of a stream"):
            with replacing(folder / "meta.json", temporary) as file:
                file.write(msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")


@dataclass(frozen=True, slots=True)
class Metadata:
    """What `hub.streams.metadata(name)` tells. Offsets count rows; `bytes` is the size on disk."""

    name: str
    kind: str
    created_ns: int
    schema: pa.Schema
    attributes: dict[str, Any]
    first_offset: int
    next_offset: int
    bytes: int
    segments: int
    groups: dict[str, int]

    @property
    def rows(self) -> int:
        """Rows kept."""
        return self.next_offset - self.first_offset

    @property
    def created(self) -> Any:
        """When the stream was made, an aware datetime."""
        return utc(self.created_ns)

    def as_dict(self) -> dict[str, Any]:
        """All of it in JSON's types."""
        return {
            "name": self.name,
            "kind": self.kind,
            "created": self.created.isoformat(),
            "schema": {f.name: str(f.type) + ("" if f.nullable else " not null") for f in self.schema},
            "attributes": self.attributes,
            "first_offset": self.first_offset,
            "next_offset": self.next_offset,
            "rows": self.rows,
            "bytes": self.bytes,
            "segments": self.segments,
            "groups": self.groups,
        }


def check_schema(schema: Any, name: str) -> None:
    """A schema that a stream can have: columns, each name once, an event time that is a time.

    Raises  UsageError for what is no such schema, SchemaMismatch for its columns.
    """
    if not isinstance(schema, pa.Schema):
        raise UsageError(
            expected="a pyarrow.Schema",
            got=f"{type(schema).__name__} {schema!r}"[:200],
            where=f"in schema of stream {name!r}",
            hint="for example penstock.records.TRADES, or pa.schema({'price': pa.float64()})",
        )
    if not len(schema):
        raise UsageError(expected="a schema with columns", got="an empty one", where=f"of stream {name!r}")
    widen(schema, schema, stream=name)
    column = event_column(schema)
    if column is None:
        return
    try:
        event_times(schema.empty_table(), column)
    except SchemaMismatch as error:
        error.where = f"in stream {name!r}"
        error.hint = "give the event time as int64 nanoseconds or a timestamp, or rename the column if it is none"
        raise


def check_attributes(attributes: Any, name: str) -> None:
    """Attributes are a dict of JSON values. Raises UsageError."""
    if attributes is None:
        return
    good = isinstance(attributes, dict) and all(isinstance(key, str) for key in attributes)
    if good:
        try:
            good = msgspec.json.decode(msgspec.json.encode(attributes)) == attributes
        except (TypeError, ValueError, RecursionError):
            good = False
    if not good:
        raise UsageError(
            expected="attributes: a dict of JSON values",
            got=repr(attributes)[:100],
            where=f"of stream {name!r}",
            hint="use text, numbers, true/false, lists and dicts",
        )
