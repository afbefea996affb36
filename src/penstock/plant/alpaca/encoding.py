"""Rows and statuses of the plant as Alpaca's messages.

Trades are `t`, quotes `q`, bars `b`; a bar that was revised is `u`, and goes only to those who subscribe to
updatedBars; bars of a stream whose event is D are `d`. Documents keep their fields: `sym` becomes `S`, `ev` `T`.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa

from penstock.plant.alpaca.words import CHANNELS, error, frame, joined, moment, write
from penstock.plant.feed import Burst
from penstock.plant.parcels import Encoding
from penstock.records import BARS, QUOTES, TRADES, decode_document

__all__ = ["AlpacaEncoding"]

_LETTERS: Final = {event: letter for channel, (event, letter) in CHANNELS.items() if channel != "updatedBars"}
_NONE: Final[frozenset[str]] = frozenset()


class AlpacaEncoding(Encoding):
    """How messages are written for one set of bars and updated bars, in MessagePack or JSON.

    Takes   packed: MessagePack; bars, updated: the symbols of which new and revised bars are wanted, "*" all.
    """

    __slots__ = ("bars", "packed", "updated")

    def __init__(self, packed: bool, bars: frozenset[str] = _NONE, updated: frozenset[str] = _NONE) -> None:
        super().__init__()
        self.packed, self.bars, self.updated = packed, bars, updated

    def __hash__(self) -> int:
        return hash((self.packed, self.bars, self.updated))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AlpacaEncoding) and (self.packed, self.bars, self.updated) == (
            other.packed, other.bars, other.updated,
        )  # fmt: skip

    def rows(self, burst: Burst, rows: list[int] | None) -> list[int] | None:
        """Of a lane's rows those that are wanted: new bars, revised bars; never bars without prices."""
        names = burst.batch.schema.names
        if burst.feed.event != "AM" or "revision" not in names or "close" not in names:
            return rows
        empty = burst.batch.column("close").is_null().to_numpy(zero_copy_only=False)
        if self.bars == self.updated and not empty.any():
            return rows
        revised = burst.batch.column("revision").to_numpy() > 0
        return [
            row
            for row in (range(len(burst)) if rows is None else rows)
            if not empty[row] and _has(self.updated if revised[row] else self.bars, burst.symbols[row])
        ]

    def messages(self, burst: Burst) -> list[bytes]:
        """Every row as a message. Made once."""
        return burst.other(("alpaca", self.packed), lambda: self._made(burst))

    def frame(self, messages: list[bytes]) -> bytes:
        """A frame with an array of messages."""
        return joined(messages, self.packed)

    def statuses(self, *found: bytes) -> bytes:
        """What the plant says, as Alpaca would say it; nothing of what Alpaca has no word for."""
        said = [words for words in map(_said, found) if words is not None]
        return frame(*said, packed=self.packed) if said else b""

    def _made(self, burst: Burst) -> list[bytes]:
        make = next((make for known, make in _KINDS if set(known.names) <= set(burst.batch.schema.names)), None)
        if make is None:
            return [write(row, self.packed) for row in _documents(burst, self.packed)]
        letter = _LETTERS.get(burst.feed.event or "", burst.feed.event or "")
        rows = [{"T": letter, **row} for row in make(burst.batch, self.packed)]
        if letter == "b" and make is _bars:
            revisions = burst.batch.column("revision").to_numpy()
            for at in np.flatnonzero(revisions).tolist():
                rows[at] |= {"T": "u", "r": int(revisions[at])}
        return [write(row, self.packed) for row in rows]


def _has(wanted: frozenset[str], symbol: str) -> bool:
    return symbol in wanted or "*" in wanted


def _columns(batch: pa.RecordBatch, names: dict[str, str]) -> list[tuple[str, list[Any]]]:
    """(field, values) of those columns that are there."""
    return [(wire, batch.column(name).to_pylist()) for name, wire in names.items() if name in batch.schema.names]


def _times(batch: pa.RecordBatch, packed: bool) -> list[Any]:
    return [moment(ns, packed) for ns in batch.column("ts_event").to_pylist()]


def _rows(columns: list[tuple[str, list[Any]]]) -> list[dict[str, Any]]:
    fields = [field for field, _ in columns]
    return [dict(zip(fields, values, strict=True)) for values in zip(*(values for _, values in columns), strict=True)]


_TRADE: Final = {
    "symbol": "S", "trade_id": "i", "exchange": "x", "price": "p", "size": "s", "conditions": "c", "tape": "z",
}  # fmt: skip
_QUOTE: Final = {
    "symbol": "S", "ask_exchange": "ax", "ask_px": "ap", "ask_sz": "as", "bid_exchange": "bx", "bid_px": "bp",
    "bid_sz": "bs", "condition": "c", "tape": "z",
}  # fmt: skip
_BAR: Final = {
    "symbol": "S", "open": "o", "high": "h", "low": "l", "close": "c", "volume": "v", "trade_count": "n", "vwap": "vw",
}  # fmt: skip


def _trades(batch: pa.RecordBatch, packed: bool) -> list[dict[str, Any]]:
    names = dict(_TRADE) if "trade_id" in batch.schema.names else {**_TRADE, "sequence": "i"}
    rows = _rows([*_columns(batch, names), ("t", _times(batch, packed))])
    return [_worded({name: value for name, value in row.items() if value is not None}) for row in rows]


def _quotes(batch: pa.RecordBatch, packed: bool) -> list[dict[str, Any]]:
    rows = _rows([*_columns(batch, _QUOTE), ("t", _times(batch, packed))])
    # A side that is absent is 0 there.
    return [_worded({**row, **{name: row[name] or 0 for name in ("ap", "as", "bp", "bs")}}) for row in rows]


def _bars(batch: pa.RecordBatch, packed: bool) -> list[dict[str, Any]]:
    return _rows([*_columns(batch, _BAR), ("t", _times(batch, packed))])


_KINDS: Final = ((BARS, _bars), (TRADES, _trades), (QUOTES, _quotes))


def _documents(burst: Burst, packed: bool) -> list[dict[str, Any]]:
    """Documents, and rows of any other table."""
    found = []
    is_mixed = burst.feed.is_mixed
    for row, (event, symbol) in zip(burst.batch.to_pylist(), burst.keys(), strict=True):
        fields = decode_document(row["document"]) if is_mixed else row
        for name in ("ev", "sym", "T", "S"):
            fields.pop(name, None)
        if event in ("AM", "D"):
            begin, volume = fields.pop("s", None), fields.get("v")
            fields = {"n": _number(volume, fields.pop("z", None)), "vw": None, "t": begin, **fields}
            fields.pop("e", None)
        if type(fields.get("t")) is int:
            fields["t"] = moment(fields["t"] * 1_000_000, packed)  # the market's other protocol counts in ms
        letter = "u" if event == "AM" and fields.get("revision") else _LETTERS.get(event, event)
        found.append({"T": letter, "S": symbol, **(_worded(fields) if event in ("T", "Q") else fields)})
    return found


def _number(volume: Any, size: Any) -> int:
    """Trades of a bar, by its volume and their mean size."""
    plain = isinstance(volume, int | float) and isinstance(size, int | float)
    return round(volume / size) if plain and size else 0


def _worded(fields: dict[str, Any]) -> dict[str, Any]:
    """Exchanges, tapes and conditions as text, as Alpaca has them; ids as numbers."""
    for name in ("x", "z", "ax", "bx"):
        if isinstance(fields.get(name), int):
            fields[name] = str(fields[name])
    conditions = fields.get("c")
    if conditions is not None:
        fields["c"] = [str(found) for found in (conditions if isinstance(conditions, list) else [conditions])]
    number = fields.get("i")
    if isinstance(number, str) and number.isascii() and number.isdigit():
        fields["i"] = int(number)
    return fields


def _said(status: bytes) -> dict[str, Any] | None:
    found = msgspec.json.decode(status)
    kind, text = found["status"], found["message"]
    if kind == "connected":
        return {"T": "success", "msg": "connected"}
    if kind == "auth_success":
        return {"T": "success", "msg": "authenticated"}
    if kind == "auth_failed":
        return error(402)
    if kind == "max_connections":
        return error(406)
    if kind in ("slow_consumer", "conflated"):
        return error(407, text)
    return error(500, text) if kind in ("error", "unreadable") else None
