"""A schema as it is given on the command line: a name of ours, or a file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.errors import SourceError, UsageError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["schema_of"]

_NAMED = ("trades", "quotes", "bars")


def schema_of(text: str) -> pa.Schema:
    """The schema of "trades", "quotes" or "bars", or that of a file.

    Takes   text: the name, or the path of a JSON file of columns and types, {"price": "float64", "symbol": "string!"}
            ("!" or " not null": no nulls), also as `penstock stream info --json` prints it; or of a Parquet or Arrow
            file, which is not read any further.
    Raises  UsageError for a name that is none and types that are not known; SourceError for a file that cannot be read.
    """
    if text in _NAMED:
        from penstock import records

        found: pa.Schema = getattr(records, text.upper())
        return found
    path = Path(text).expanduser()
    if not path.is_file():
        raise UsageError(expected=f"{', '.join(_NAMED)} or a file", got=repr(text), where="in --schema")
    return _from_json(path) if path.suffix.lower() == ".json" else _from_data(path)


def _from_json(path: Path) -> pa.Schema:
    import msgspec
    import pyarrow as pa

    try:
        found: Any = msgspec.json.decode(path.read_bytes())
    except (msgspec.DecodeError, OSError) as error:
        raise SourceError(expected="a JSON object", got=str(error), where=f"in {path}") from error
    if isinstance(found, dict) and isinstance(found.get("schema"), dict):
        found = found["schema"]
    if not isinstance(found, dict) or not found or not all(isinstance(kind, str) for kind in found.values()):
        raise SourceError(
            expected='an object of columns and types, such as {"price": "float64", "symbol": "string!"}',
            got=repr(found)[:80],
            where=f"in {path}",
        )
    return pa.schema([_field(name, kind, path) for name, kind in found.items()])


def _field(name: str, text: str, path: Path) -> pa.Field:
    import pyarrow as pa

    kind = text.strip()
    bare = kind.removesuffix("!").removesuffix(" not null").strip()
    zoned = re.fullmatch(r"timestamp\[(s|ms|us|ns), ?tz=([\w/+:-]+)\]", bare)
    try:
        type_ = pa.timestamp(zoned[1], zoned[2]) if zoned else pa.type_for_alias(bare)
    except ValueError:
        raise UsageError(
            expected="a type such as int64, float64, string, bool, date32, timestamp[ns, tz=UTC]",
            got=repr(text),
            where=f"for column {name!r} in {path}",
            hint="for other types give an Arrow or Parquet file that has them",
        ) from None
    return pa.field(name, type_, nullable=bare == kind)


def _from_data(path: Path) -> pa.Schema:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from penstock.connect.files import format_of

    form = format_of(path)
    try:
        if form == "parquet":
            return pq.read_schema(path)
        if form == "arrow":
            with path.open("rb") as file:
                magic = file.read(6)
            with pa.OSFile(str(path)) as source:
                return (pa.ipc.open_file(source) if magic == b"ARROW1" else pa.ipc.open_stream(source)).schema
    except (pa.ArrowException, OSError) as error:
        reason = str(error).split("\n")[0]
        raise SourceError(expected="an Arrow or Parquet file", got=reason, where=f"in {path}") from error
    raise SourceError(
        expected="a schema as JSON, Arrow or Parquet", got=f"a {form or 'file of another kind'}", where=f"at {path}"
    )
