"""Rows to messages of the market's protocol: one JSON object per row, encoded once.

Columns of the market schemas get the protocol's names (`FIELDS`), times become ms since 1970. Any other table keeps its
column names, with `sym` for its key column. Documents pass as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa

from penstock.errors import UsageError
from penstock.records import BARS, QUOTES, TRADES, decode_document, is_document
from penstock.records.describe import near

__all__ = ["FIELDS", "OWN", "Made", "Mapper", "apart", "event_of", "mapper"]

_BARS: Final = {
    "symbol": "sym", "volume": "v", "day_volume": "av", "day_open": "op", "vwap": "vw", "open": "o", "close": "c",
    "high": "h", "low": "l", "day_vwap": "a", "average_size": "z", "ts_event": "s", "ts_close": "e",
    "trade_count": "n", "revision": "revision",
}  # fmt: skip
_TRADES: Final = {
    "symbol": "sym", "trade_id": "i", "exchange": "x", "price": "p", "size": "s", "conditions": "c", "ts_event": "t",
    "sequence": "q", "tape": "z", "side": "side",
}  # fmt: skip
_QUOTES: Final = {
    "symbol": "sym", "bid_exchange": "bx", "bid_px": "bp", "bid_sz": "bs", "ask_exchange": "ax", "ask_px": "ap",
    "ask_sz": "as", "condition": "c", "indicators": "i", "ts_event": "t", "sequence": "q", "tape": "z",
}  # fmt: skip
FIELDS: Final[Mapping[str, Mapping[str, str]]] = {"AM": _BARS, "T": _TRADES, "Q": _QUOTES}
"""Names on the wire by column, for streams of bars, trades and quotes. Columns a stream lacks are left out, and so are
nulls; further columns of a stream go out under their own names."""

OWN: Final = ("seq", "stream")
"""The plant's own fields, of those who ask for `seq`. A message's own of such a name are "seq_" and "stream_" then."""

_RESERVED: Final = (*OWN, "ev")

_SILENT: Final = {"AM": {"amount"}, "T": {"ts_recv"}, "Q": {"ts_recv"}}
_KINDS: Final = (("AM", BARS), ("T", TRADES), ("Q", QUOTES))
_TIMES: Final = {"ts_event", "ts_close"}
_KEYS: Final = ("symbol", "sym", "key")
_FEW: Final = 64
_encoder = msgspec.json.Encoder(decimal_format="string", enc_hook=str)


class _Head(msgspec.Struct):
    """What routes a document: its event, and where the market's protocol keeps the symbol."""

    ev: Any = None
    sym: Any = None
    pair: Any = None
    T: Any = None
    p: Any = None


_head = msgspec.json.Decoder(_Head).decode

Made = tuple[list[str] | None, list[str], Callable[[], list[bytes]]]
"""Of a batch: the event of each row (None: the feed's own), its symbol, and what makes the messages when wanted."""

Mapper = Callable[[pa.RecordBatch], Made]


def event_of(schema: pa.Schema, attributes: Mapping[str, Any], name: str) -> str | None:
    """The event that a stream's messages have: attribute `event`, else what its columns are; None: each its own."""
    event = attributes.get("event")
    if event is not None:
        if not isinstance(event, str) or not event or "." in event or "*" in event or "," in event:
            raise UsageError(
                expected="attribute `event` to be a text such as 'AM'", got=repr(event), where=f"in stream {name!r}"
            )
        return event
    if is_document(schema):
        return None
    return _kind(schema) or name


def _kind(schema: pa.Schema) -> str | None:
    return next((kind for kind, known in _KINDS if set(known.names) <= set(schema.names)), None)


def mapper(schema: pa.Schema, event: str | None, attributes: Mapping[str, Any], name: str) -> Mapper:
    """What makes messages of the rows of a stream.

    Takes   attributes: of the stream; `key` names the column of the symbol, `fields` gives columns other names on
            the wire, or None to leave one out.
    Raises  UsageError for a `key` or `fields` that names no column.
    """
    if is_document(schema):
        return _documents(event, name)
    kind = _kind(schema)
    key = attributes.get("key") or next((column for column in _KEYS if column in schema.names), None)
    names = {column: column for column in schema.names}
    if kind is not None:
        known = FIELDS[kind]
        order = [column for column in known if column in names]
        order += [column for column in names if column not in known]
        names = {column: known.get(column, column) for column in order if column not in _SILENT[kind]}
    elif key is not None:
        names = {key: "sym", **{column: wire for column, wire in names.items() if column != key}}
    own = attributes.get("fields") or {}
    for column in [key, *own]:
        if column is not None and column not in schema.names:
            close = near(str(column), schema.names)
            raise UsageError(
                expected=f"a column of {', '.join(schema.names)}",
                got=repr(column),
                where=f"in attributes `key` and `fields` of stream {name!r}",
                hint=f"did you mean {close!r}?" if close else None,
            )
    names.update(own)
    names = {column: f"{wire}_" if wire in _RESERVED else wire for column, wire in names.items()}
    return _rows(schema, event or name, key, {column: wire for column, wire in names.items() if wire}, kind)


def _rows(schema: pa.Schema, event: str, key: str | None, names: Mapping[str, str], kind: str | None) -> Mapper:
    columns = list(names)
    wires = [names[column] for column in columns]
    if kind == "AM" and "average_size" not in columns and "z" not in wires:
        columns.append("")  # made of volume and trade count
        wires.append("z")
    # `ev` is the tag, and so stands first. Field names of a class must be identifiers, names on the wire need not.
    times = _TIMES if kind is not None else set[str]()
    fields = [(f"f{at}", Any, 0 if column == "revision" else None) for at, column in enumerate(columns)]
    rename = {f"f{at}": wire for at, wire in enumerate(wires)}
    made = msgspec.defstruct(
        "Message", fields, tag=event, tag_field="ev", rename=rename, omit_defaults=True, gc=False, frozen=False
    )

    readers = [_reader(schema, column, column in times) if column else _sizes for column in columns]
    symbol = None if key is None else _reader(schema, key, False)
    is_text = key is not None and pa.types.is_string(schema.field(key).type)
    key_at = columns.index(key) if is_text and key in columns else None

    def of(batch: pa.RecordBatch) -> Made:
        symbols = [""] * batch.num_rows if symbol is None else symbol(batch)
        are_values = is_text and batch.column(key).null_count == 0
        if not are_values:
            symbols = ["" if name is None else str(name) for name in symbols]

        def messages() -> list[bytes]:
            values = [symbols if at == key_at and are_values else read(batch) for at, read in enumerate(readers)]
            # One pass of the encoder over all rows, then cut: JSON text holds no bare line feed.
            lines: list[bytes] = _encoder.encode_lines(list(map(made, *values))).split(b"\n")
            lines.pop()
            return lines

        return None, symbols, messages

    return of


def _reader(schema: pa.Schema, name: str, to_ms: bool) -> Callable[[pa.RecordBatch], list[Any]]:
    """What reads a column of batches of that schema, as ms if it is a time in ns."""
    at = schema.get_field_index(name)
    kind = schema.field(at).type
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind)

    def read(batch: pa.RecordBatch) -> list[Any]:
        column = batch.column(at)
        # Of a few rows arrays cost more than they save.
        if is_number and batch.num_rows > _FEW and column.null_count == 0:
            array = column.to_numpy(zero_copy_only=False)
            return (array // 1_000_000 if to_ms else array).tolist()  # type: ignore[no-any-return]
        values: list[Any] = column.to_pylist()
        return [None if v is None else v // 1_000_000 for v in values] if to_ms else values

    return read


def _sizes(batch: pa.RecordBatch) -> list[int]:
    """Mean size of a bar's trades, as the protocol has it: an integer."""
    volume, count = batch.column("volume").to_numpy(), batch.column("trade_count").to_numpy()
    return (volume // np.maximum(count, 1)).tolist()  # type: ignore[no-any-return]


def _documents(event: str | None, name: str) -> Mapper:
    own = event or name
    missing = b'{"ev":' + msgspec.json.encode(own) + b","

    def of(batch: pa.RecordBatch) -> Made:
        texts: list[bytes] = batch.column(0).view(pa.binary()).to_pylist()  # the same bytes: no copy
        events, symbols = [], []
        for at, text in enumerate(texts):
            if b'"$' in text:
                texts[at] = text = _plain(text)
            head = _head(text)
            if type(head.ev) is str and head.ev:
                events.append(head.ev)
            else:
                events.append(own)
                texts[at] = missing + text[1:] if head.ev is None and b'"ev"' not in text else _with_event(text, own)
            symbol = head.sym if type(head.sym) is str else head.pair
            if type(symbol) is not str:
                symbol = head.T if type(head.T) is str else head.p
            symbols.append(symbol if type(symbol) is str else "")
        return events, symbols, lambda: texts

    return of


def apart(texts: list[bytes]) -> list[bytes]:
    """Messages that may get fields of the plant: their own of such names have "_" behind."""
    return [_apart(text) if b'"seq"' in text or b'"stream"' in text else text for text in texts]


def _apart(text: bytes) -> bytes:
    found = msgspec.json.decode(text)
    if not any(name in found for name in OWN):
        return text
    return _encoder.encode({f"{name}_" if name in OWN else name: value for name, value in found.items()})


def _plain(text: bytes) -> bytes:
    """A document that has more than JSON has: numbers that are none become null, times and bytes text."""
    return _encoder.encode(decode_document(text))


def _with_event(text: bytes, event: str) -> bytes:
    found = msgspec.json.decode(text)
    found.pop("ev", None)
    return _encoder.encode({"ev": event, **found})
