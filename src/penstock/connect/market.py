"""Messages of market data servers as rows: which field is which column of BARS, TRADES and QUOTES.

Bars come without `amount`: it is volume times vwap, NaN where there is no vwap. Massive's come without the number of
trades: it is volume by mean size, rounded. Further fields are left out, unless the stream has a column for them:
`day_volume`, `day_open`, `day_vwap`, `average_size` of bars; `trade_id`, `exchange`, `conditions`, `tape` of trades;
`bid_exchange`, `ask_exchange`, `condition`, `indicators`, `tape` of quotes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from penstock.clock import time_ns
from penstock.errors import UsageError
from penstock.records import BARS, QUOTES, TRADES

__all__ = ["ALPACA", "CHANNELS", "MASSIVE", "Kind", "Message"]

Message = dict[str, Any]
_MINUTE: Final = 60_000_000_000
_DAY: Final = 24 * 60 * _MINUTE


@dataclass(frozen=True, slots=True)
class Kind:
    """A sort of message: the schema of its rows, and `row(message, now)`, where `now` is when it came, in ns.

    A value of a wrong type stays as it is: whoever makes a batch of the rows refuses it.
    """

    name: str
    schema: pa.Schema
    row: Callable[[Message, int], dict[str, Any]]


def _amount(volume: Any, vwap: Any) -> Any:
    try:
        return float(volume) * float(vwap)
    except (TypeError, ValueError):
        return float("nan")


def _count(volume: Any, size: Any) -> Any:
    try:
        return round(volume / size) if size else 0
    except (TypeError, OverflowError, ValueError):
        return 0


# ---- Massive, formerly Polygon: `ev`, times in ms ----------------------------------------------------------------


def _ms(value: Any) -> Any:
    return value * 1_000_000 if type(value) is int else value


def _bar(symbol: str) -> Callable[[Message, int], dict[str, Any]]:
    def row(m: Message, now: int) -> dict[str, Any]:
        get = m.get
        volume, vwap = get("v"), get("vw")
        return {
            "symbol": get(symbol), "ts_event": _ms(get("s")), "ts_close": _ms(get("e")),
            "open": get("o"), "high": get("h"), "low": get("l"), "close": get("c"),
            "volume": volume, "amount": _amount(volume, vwap), "vwap": vwap,
            "trade_count": get("n") if "n" in m else _count(volume, get("z")), "revision": get("revision", 0),
            "day_volume": get("av"), "day_open": get("op"), "day_vwap": get("a"), "average_size": get("z"),
        }  # fmt: skip

    return row


def _trade(symbol: str) -> Callable[[Message, int], dict[str, Any]]:
    def row(m: Message, now: int) -> dict[str, Any]:
        get = m.get
        return {
            "symbol": get(symbol), "ts_event": _ms(get("t")), "ts_recv": now, "price": get("p"), "size": get("s"),
            "side": get("side"), "sequence": get("q"),
            "trade_id": get("i"), "exchange": get("x"), "conditions": get("c"), "tape": get("z"),
        }  # fmt: skip

    return row


def _quote(symbol: str) -> Callable[[Message, int], dict[str, Any]]:
    def row(m: Message, now: int) -> dict[str, Any]:
        get = m.get
        return {
            "symbol": get(symbol), "ts_event": _ms(get("t")), "ts_recv": now, "bid_px": get("bp"), "ask_px": get("ap"),
            "bid_sz": get("bs"), "ask_sz": get("as"), "sequence": get("q"),
            "bid_exchange": get("bx"), "ask_exchange": get("ax"), "condition": get("c"), "indicators": get("i"),
            "tape": get("z"),
        }  # fmt: skip

    return row


def _forex(m: Message, now: int) -> dict[str, Any]:
    return {
        "symbol": m.get("p"), "ts_event": _ms(m.get("t")), "ts_recv": now, "bid_px": m.get("b"), "ask_px": m.get("a"),
    }  # fmt: skip


MASSIVE: Final[Mapping[str, Kind]] = {
    **{event: Kind("bars", BARS, _bar("sym")) for event in ("AM", "A")},
    **{event: Kind("bars", BARS, _bar("pair")) for event in ("XA", "XAS", "CA", "CAS")},
    "T": Kind("trades", TRADES, _trade("sym")),
    "XT": Kind("trades", TRADES, _trade("pair")),
    "Q": Kind("quotes", QUOTES, _quote("sym")),
    "XQ": Kind("quotes", QUOTES, _quote("pair")),
    "C": Kind("quotes", QUOTES, _forex),
}
"""By `ev`."""


# ---- Alpaca: `T`, times in ns (MessagePack) or as text (JSON) ----------------------------------------------------


def _ns(value: Any) -> Any:
    if isinstance(value, int):
        return int(value)
    if not isinstance(value, str):
        return value
    try:
        return time_ns(value)
    except UsageError:
        return value


def _alpaca_bar(span: int, revision: int) -> Callable[[Message, int], dict[str, Any]]:
    def row(m: Message, now: int) -> dict[str, Any]:
        get = m.get
        begin, volume, vwap = _ns(get("t")), get("v"), get("vw")
        return {
            "symbol": get("S"), "ts_event": begin, "ts_close": begin + span if type(begin) is int else begin,
            "open": get("o"), "high": get("h"), "low": get("l"), "close": get("c"),
            "volume": volume, "amount": _amount(volume, vwap), "vwap": vwap,
            "trade_count": get("n", 0), "revision": get("r", revision),
        }  # fmt: skip

    return row


def _alpaca_trade(m: Message, now: int) -> dict[str, Any]:
    get = m.get
    return {
        "symbol": get("S"), "ts_event": _ns(get("t")), "ts_recv": now, "price": get("p"), "size": get("s"),
        "trade_id": get("i"), "exchange": get("x"), "conditions": get("c"), "tape": get("z"),
    }  # fmt: skip


def _alpaca_quote(m: Message, now: int) -> dict[str, Any]:
    get = m.get
    return {
        "symbol": get("S"), "ts_event": _ns(get("t")), "ts_recv": now, "bid_px": get("bp"), "ask_px": get("ap"),
        "bid_sz": get("bs"), "ask_sz": get("as"), "bid_exchange": get("bx"), "ask_exchange": get("ax"),
        "condition": get("c"), "tape": get("z"),
    }  # fmt: skip


ALPACA: Final[Mapping[str, Kind]] = {
    "t": Kind("trades", TRADES, _alpaca_trade),
    "q": Kind("quotes", QUOTES, _alpaca_quote),
    "b": Kind("bars", BARS, _alpaca_bar(_MINUTE, 0)),
    "u": Kind("bars", BARS, _alpaca_bar(_MINUTE, 1)),
    "d": Kind("bars", BARS, _alpaca_bar(_DAY, 0)),
}
"""By `T`. An updated bar (`u`) is revision 1 of its minute, unless it says which (`r`, as our own plant does)."""

CHANNELS: Final[Mapping[str, str]] = {
    "trades": "t", "quotes": "q", "bars": "b", "updatedBars": "u", "dailyBars": "d", "statuses": "s", "lulds": "l",
    "news": "n", "orderbooks": "o", "corrections": "c", "cancelErrors": "x",
}  # fmt: skip
"""Alpaca's channels, and the `T` of their messages."""
