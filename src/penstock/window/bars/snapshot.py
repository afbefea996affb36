"""The state of Bars as bytes: one MessagePack map of plain values and array bytes, and its digest.

8 bytes    xxh3-64 of the rest, little endian
the rest   {"format": 1, "parameters": {…}, "arrays": {name: [dtype, bytes]}, …}
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa
import xxhash

from penstock.errors import WindowError
from penstock.window.bars.cells import EMPTY, Bar, Cells

if TYPE_CHECKING:
    from penstock.window.bars.bars import Bars

__all__ = ["load", "save"]

_FORMAT = 1


def save(bars: Bars) -> bytes:
    """The bytes of `bars`. Cost: about 105 bytes per bar, open or kept for revisions, and the symbols."""
    arrays: dict[str, Any] = {}
    volume = bars._reader.volume
    _put(arrays, "open", bars._open.peek())
    _put(arrays, "closed", Bar.join(list(bars._history.closed), volume))
    revised = sorted(bars._history.revised.items())
    _put(arrays, "revised", Bar.join([bar for _, (bar, _) in revised], volume))
    arrays["revision"] = np.array([revision for _, (_, revision) in revised], np.int64)
    fills = bars._fills
    if fills:
        count = len(bars._symbols)
        fills.widen(count)
        for name in ("since", "close", "latest"):
            arrays[f"fill.{name}"] = getattr(fills, name)[:count]
    side = []
    for batch in bars._side:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        side.append(sink.getvalue().to_pybytes())
    body = msgspec.msgpack.encode(
        {
            "format": _FORMAT,
            "parameters": bars.options.shown(),
            "arrays": {name: [str(a.dtype), a.tobytes()] for name, a in arrays.items()},
            "symbols": bars._symbols.array().to_pylist(),
            "symbol": bars._symbols.kind,
            "kind": bars._reader.kind,
            "volume": volume,
            "clock": bars._clock,
            "next": fills.next if fills else None,
            "side": side,
            "counts": bars._counts,
            "traded": bars._traded,
        }
    )
    return xxhash.xxh3_64_digest(body)[::-1] + body


def load(bars: Bars, data: bytes) -> None:
    """Put what `save` gave into `bars`; WindowError for other parameters, another format, other bytes."""
    body = memoryview(data)[8:]
    if len(data) < 9 or xxhash.xxh3_64_digest(body)[::-1] != data[:8]:
        raise WindowError(
            expected="a snapshot of Bars",
            got=f"{len(data)} bytes that are none, or were damaged",
            where="in Bars.restore",
            hint="rebuild the state from the stream",
        )
    state = msgspec.msgpack.decode(body)
    if state["format"] != _FORMAT:
        raise WindowError(
            expected=f"a snapshot of format {_FORMAT}",
            got=f"format {state['format']}",
            where="in Bars.restore",
            hint="rebuild the state from the stream, or use the version that made it",
        )
    theirs, ours = state["parameters"], bars.options.shown()
    other = [name for name in ours if theirs.get(name) != ours[name]]
    if other:
        raise WindowError(
            problem=f"snapshot was made for Bars({_named(theirs, other)}), this one has {_named(ours, other)}",
            where="in Bars.restore",
            hint="rebuild the state from the stream, or use the parameters of the snapshot",
        )
    arrays = {name: np.frombuffer(raw, kind).copy() for name, (kind, raw) in state["arrays"].items()}
    bars._symbols.load(state["symbol"], state["symbols"])
    bars._reader.kind, bars._reader.volume = state["kind"], state["volume"]
    bars._clock = state["clock"]
    bars._counts = state["counts"]
    bars._traded = state["traded"]
    bars._side = [pa.ipc.open_stream(raw).read_next_batch() for raw in state["side"]]
    bars.positions = np.empty(0, np.int64)
    bars._open.load(_bar(arrays, "open"), len(bars._symbols), state["volume"])
    closed, revised = _bar(arrays, "closed"), _bar(arrays, "revised")
    bars._history.closed.clear()
    bars._history.add(closed)
    bars._history.revised = {
        (int(revised.start[i]), int(revised.symbol[i])): (revised.take(slice(i, i + 1)), int(count))
        for i, count in enumerate(arrays["revision"])
    }
    if bars._fills:
        bars._fills.next = state["next"]
        for name in ("since", "close", "latest"):
            setattr(bars._fills, name, arrays[f"fill.{name}"])


def _put(arrays: dict[str, Any], name: str, bars: Bar) -> None:
    for field in ("symbol", "start", "end", "due"):
        arrays[f"{name}.{field}"] = getattr(bars, field)
    for field in EMPTY:
        arrays[f"{name}.{field}"] = getattr(bars.cells, field)


def _bar(arrays: dict[str, Any], name: str) -> Bar:
    cells = Cells.of({field: arrays[f"{name}.{field}"] for field in EMPTY})
    symbol, start, end, due = (arrays[f"{name}.{field}"] for field in ("symbol", "start", "end", "due"))
    return Bar(symbol, start, end, due, cells)


def _named(parameters: dict[str, Any], names: list[str]) -> str:
    return ", ".join(f"{name}={parameters.get(name)!r}" for name in names)
