"""How a table is laid out: which columns identify a row, how it is cut into files, and what types files hold.

A row's identity is (key, time) and the further `identity` columns. Of several rows with one identity the last known is
the value, and the earlier ones are its history. Every stored row has two more columns:

    ts_known   int64 ns UTC: when the row was known; its append time unless the writer said otherwise
    _offset    int64: its place in the table's stream, which decides between rows known at the same time
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import types

from penstock.errors import SchemaMismatch, UsageError
from penstock.records.describe import near, type_name
from penstock.store.columns import carrier, delta_struct, delta_type, values_type

__all__ = ["KNOWN", "OFFSET", "TIME", "Layout", "delta_schema", "stored", "taken_name"]

KNOWN: Final = "ts_known"
OFFSET: Final = "_offset"
TIME: Final = "_time"  # while rows are merged: the event time, int64 ns, whatever its own column holds
PARTITIONS: Final = {"day": "D", "month": "M", "year": "Y", "none": ""}
_RESERVED: Final = (OFFSET, TIME)


@dataclass(frozen=True, slots=True)
class Layout:
    """What is said when a table is made, and never changes.

    key        text column that keys are; time  event time column (int64 ns, a timestamp, or a date: midnight in UTC)
    identity   columns that, with key and time, tell rows apart: ("sequence",) for trades
    rows       "latest": of rows with one identity the last known counts; "all": every row stands for itself
    partition  of files: "day", "month", "year" (UTC, of the event time) or "none"
    date       the column that holds the start of the partition, for other readers of the table
    """

    key: str = "symbol"
    time: str = "ts_event"
    identity: tuple[str, ...] = ()
    rows: str = "latest"
    partition: str = "day"
    date: str = "date"

    def __post_init__(self) -> None:
        for option, known in (("rows", ("latest", "all")), ("partition", tuple(PARTITIONS))):
            if getattr(self, option) not in known:
                raise UsageError(
                    expected=", ".join(map(repr, known)), got=repr(getattr(self, option)), where=f"in {option}"
                )

    @classmethod
    def of(cls, schema: pa.Schema, table: str, **options: Any) -> Layout:
        """A layout for rows of `schema`. Raises UsageError, SchemaMismatch."""
        identity = options.get("identity", ())
        if isinstance(identity, str) or not all(isinstance(name, str) for name in identity):
            raise UsageError(expected="a list of column names", got=repr(identity), where=f"in identity of {table!r}")
        options["identity"] = tuple(identity)
        found = cls(**{name: value for name, value in options.items() if value is not None})
        for role, name in (("key", found.key), ("time", found.time), *(("identity", n) for n in found.identity)):
            if name not in schema.names:
                close = near(name, schema.names)
                raise SchemaMismatch(
                    expected=f"a {role} column `{name}`",
                    got=f"columns {', '.join(schema.names)}",
                    where=f"in table {table!r}",
                    hint=f"set {role}=" + (f"{close!r}" if close else f"one of {', '.join(schema.names) or 'none'}"),
                    column=name,
                )
        found._check_types(schema, table)
        date = "date" if "date" not in schema.names else "_date"
        return cls(found.key, found.time, found.identity, found.rows, found.partition, date)

    def _check_types(self, schema: pa.Schema, table: str) -> None:
        key, time = values_type(schema.field(self.key).type), schema.field(self.time).type
        if not (types.is_string(key) or types.is_large_string(key) or types.is_string_view(key)):
            raise self._wrong(self.key, "text", key, table, "cast the column to string")
        if not (types.is_int64(time) or types.is_timestamp(time) or types.is_date32(time)):
            raise self._wrong(
                self.time, "int64 nanoseconds, a timestamp or a date", time, table, "cast the column to int64"
            )
        for name in self.identity:
            type_ = schema.field(name).type
            if types.is_floating(type_) or types.is_nested(type_):
                raise self._wrong(name, "a column of whole numbers, text or times", type_, table, "choose another")
        self.check_names(schema, table)
        for field in schema:
            carrier(field, table)

    def check_names(self, schema: pa.Schema, table: str) -> None:
        """Columns of other names than the store's own, also when case does not count: to Delta it does not.

        Raises  SchemaMismatch.
        """
        seen: dict[str, str] = {}
        for field in schema:
            other = seen.setdefault(field.name.lower(), field.name)
            if other != field.name:
                expected = f"names that differ in more than case, as `{other}` does not"
                raise self._wrong(field.name, expected, field.type, table, "rename one of them")
            if field.name in _RESERVED:
                raise taken_name(field, table)
            if field.name == KNOWN and not types.is_int64(field.type):
                raise self._wrong(KNOWN, "int64 nanoseconds", field.type, table, "cast it, or rename it")

    def _wrong(self, name: str, expected: str, got: pa.DataType, table: str, hint: str) -> SchemaMismatch:
        place = f"at `{name}`, in table {table!r}"
        return SchemaMismatch(expected=expected, got=type_name(got), where=place, hint=hint, column=name)

    @property
    def partition_columns(self) -> list[str]:
        """[date], or none."""
        return [] if self.partition == "none" else [self.date]

    def partitions(self, times: NDArray[np.int64]) -> NDArray[Any]:
        """The start of each time's partition, as datetime64[D]."""
        unit = PARTITIONS[self.partition]
        if not unit:
            return np.zeros(len(times), "datetime64[D]")
        if unit == "D":
            return (times // 86_400_000_000_000).astype("datetime64[D]")
        return times.view("datetime64[ns]").astype(f"datetime64[{unit}]").astype("datetime64[D]")

    def following(self, starts: NDArray[Any]) -> NDArray[Any]:
        """The start of the partition after each, as datetime64[D]."""
        unit: Any = PARTITIONS[self.partition]
        return (starts.astype(f"datetime64[{unit}]") + np.timedelta64(1, unit)).astype("datetime64[D]")

    def as_dict(self) -> dict[str, Any]:
        """In JSON's types; `Layout.from_dict` reads it back."""
        return {**asdict(self), "identity": list(self.identity)}

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> Layout:
        """What `as_dict` gave."""
        return cls(**{**found, "identity": tuple(found["identity"])})


def taken_name(field: pa.Field, table: str) -> SchemaMismatch:
    """The error for a column whose name the store needs."""
    return SchemaMismatch(
        expected="a column name that the store does not use",
        got=repr(field.name),
        where=f"in table {table!r}",
        hint="rename it",
        column=field.name,
    )


def stored(schema: pa.Schema, layout: Layout) -> pa.Schema:
    """Columns of a data file, for rows of `schema`."""
    fields = []
    for field in schema:
        if field.name == KNOWN:
            continue
        type_ = pa.int64() if field.name == layout.time else carrier(field)
        fields.append(pa.field(field.name, type_, field.name not in (layout.key, layout.time)))
    return pa.schema([*fields, pa.field(KNOWN, pa.int64(), False), pa.field(OFFSET, pa.int64(), False)])


def delta_schema(files: pa.Schema, layout: Layout) -> str:
    """Delta's text for a table whose files have schema `files`."""
    # Nothing is "not null" there: a Delta writer must then enforce it, for which it needs a newer protocol.
    fields = [(field.name, delta_type(field.type), True) for field in files]
    return json.dumps(delta_struct(fields + [(name, "date", True) for name in layout.partition_columns]))
