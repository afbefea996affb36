"""Data to evaluate: frames and arrays to blocks (rows, symbols) of float64, with what stands beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.errors import FactorError
from penstock.factor import frames

__all__ = ["FLOAT", "Panel", "as_block", "as_table", "by_time", "read", "whole"]

Array = np.ndarray[Any, np.dtype[Any]]
FLOAT = np.dtype("float64")


@dataclass(frozen=True, slots=True)
class Panel:
    """Blocks (rows, symbols) by name, what the rows and symbols are called, and the kind of the data."""

    blocks: dict[str, Array]
    times: pa.Array
    time: str
    symbols: list[Any]
    kind: str


def whole(name: str, value: object, least: int) -> None:
    """Refuse what is no whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise FactorError(expected=f"{name} a whole number of at least {least}", got=repr(value), where="in evaluate")


def by_time(panel: Panel, columns: Mapping[str, Any]) -> pa.Table:
    """A table with a row per time."""
    if panel.time in columns:
        raise FactorError(
            f"a factor is called {panel.time!r}, as the column that says which row it is", hint="rename it"
        )
    return pa.table({panel.time: panel.times, **columns})


def as_table(data: Any) -> tuple[pa.Table, str]:
    """A frame as Arrow, and the kind it is."""
    package = type(data).__module__.partition(".")[0]
    names = [str(name) for name in getattr(data, "columns", ())] if package == "pandas" else []
    if package == "pandas" and names:
        levels = [name for name in data.index.names if name is not None and name not in names]
        data = data.reset_index(levels) if levels else data
        return pa.Table.from_pandas(data, preserve_index=False), "pandas"
    if package == "polars" and hasattr(data, "to_arrow"):
        return data.to_arrow(), "polars"
    if isinstance(data, pa.RecordBatch) or hasattr(data, "__arrow_c_stream__"):
        return pa.table(data), "arrow"
    raise FactorError(
        expected="a long Arrow, polars or pandas frame, a dict of (rows, symbols) arrays, or one",
        got=f"{type(data).__module__}.{type(data).__qualname__}",
        where="in evaluate",
        hint="call .collect()" if type(data).__name__ == "LazyFrame" else None,
    )


def read(
    data: Any,
    other: Any,
    what: str,
    *,
    factors: Sequence[str] | None = None,
    symbol: str = "symbol",
    time: str = "ts_event",
    codes: bool = False,
    **strange: object,
) -> tuple[Panel, Any]:
    """The factors as a panel, and beside them `other` (returns, prices or labels): a column's name or an array."""
    if strange:
        name = next(iter(strange))
        raise FactorError(f"there is no option {name!r}", where="in evaluate", hint="factors, symbol and time are some")
    wanted = [factors] if isinstance(factors, str) else factors
    if isinstance(data, (np.ndarray, Mapping)):
        return _read_arrays(data, other, what, wanted, codes)
    table, kind = as_table(data)
    if other is not None and not isinstance(other, str):
        raise FactorError(
            expected=f"the name of the column of {what}",
            got=type(other).__name__,
            where="in evaluate",
            hint="join it to the frame by symbol and time",
        )
    taken = {symbol, time, other}
    if wanted is None:
        numeric = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean)
        wanted = [f.name for f in table.schema if f.name not in taken and any(test(f.type) for test in numeric)]
    _some(wanted, table.column_names)
    beside = [] if other is None or codes else [other]
    read = frames.read(table, [*wanted, *beside], FLOAT, frames.Labels([]), symbols=None, symbol=symbol, time=time)
    times = pa.compute.unique(table[time]).sort()
    assert read.symbols is not None
    panel = Panel(dict(zip(wanted, read.inputs, strict=False)), times, time, list(read.symbols), kind)
    if not codes:
        return panel, read.inputs[-1] if beside else None
    names, code = _coded(_column(table, other))
    block = np.full((len(times), len(panel.symbols)), -1)
    row = pa.compute.index_in(table[time], times).to_numpy(zero_copy_only=False)
    keys = _column(table, symbol)
    key = pa.compute.index_in(keys, pa.array(panel.symbols, keys.type))
    block[row, key.to_numpy(zero_copy_only=False)] = code
    return panel, (names, block)


def _column(table: pa.Table, name: Any) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise FactorError(f"there is no column {name!r}", where=f"in a frame with {', '.join(table.column_names)}")
    kind = table[name].type
    return table[name].cast(kind.value_type) if pa.types.is_dictionary(kind) else table[name]


def _coded(labels: Any) -> tuple[pa.Array, Array]:
    """The labels there are, sorted, and per cell the number of its own; -1 where it is missing."""
    try:
        names = labels.unique().drop_null().sort()
    except pa.ArrowNotImplementedError:
        raise FactorError(
            expected="labels that are texts, numbers or dates",
            got=str(labels.type),
            where="in aggregate",
            hint="make texts of them",
        ) from None
    code = pa.compute.index_in(labels, names, skip_nulls=True).fill_null(-1)
    return names, code.to_numpy(zero_copy_only=False)


def _read_arrays(data: Any, other: Any, what: str, wanted: Sequence[str] | None, codes: bool) -> tuple[Panel, Any]:
    given = {"factor": data} if isinstance(data, np.ndarray) else dict(data)
    if isinstance(other, str):
        if other not in given:
            raise FactorError(
                f"there is no {other!r} among {', '.join(map(repr, given))}",
                where="in evaluate",
                hint=f"give the array of {what}, or the name it has in the dict",
            )
        beside: Any = given.pop(other)
    else:
        beside = other
    names = list(given) if wanted is None else list(wanted)
    _some(names, list(given))
    blocks: dict[str, Array] = {}
    for name in names:
        if name not in given:
            raise FactorError(f"there is no {name!r} among {', '.join(map(repr, given))}", where="in evaluate")
        blocks[name] = as_block(given[name], name, next(iter(blocks.values())).shape if blocks else None)
    shape = next(iter(blocks.values())).shape
    panel = Panel(blocks, pa.array(np.arange(shape[0])), "row", list(range(shape[1])), "arrow")
    if beside is None:
        return panel, None
    if not codes:
        return panel, as_block(beside, what, shape)
    labels = np.asarray(beside)
    if labels.shape not in (shape, shape[:1]):
        raise FactorError(
            expected=f"labels of shape {shape} or {shape[:1]}", got=str(labels.shape), where="in aggregate"
        )
    flat = labels.reshape(-1)
    try:
        given = pa.array(flat.tolist() if flat.dtype.kind == "O" else flat, from_pandas=True)
    except (pa.ArrowException, TypeError) as error:
        raise FactorError(
            f"these labels are not of one kind: {error}", where="in aggregate", hint="texts, numbers or dates alone"
        ) from error
    there, code = _coded(given)
    return panel, (there, np.broadcast_to(code.reshape(*labels.shape, *[1] * (2 - labels.ndim)), shape))


def as_block(value: Any, name: str, shape: tuple[int, ...] | None) -> Array:
    """An array as a block of that shape, or of any."""
    block = frames.floats(value, name, FLOAT, frames.Labels([]), "in evaluate")
    if block.ndim != 2 or (shape is not None and block.shape != shape):
        raise FactorError(
            expected=f"{name!r} of shape {shape or '(rows, symbols)'}", got=str(block.shape), where="in evaluate"
        )
    return block


def _some(names: Sequence[str], there: Sequence[str]) -> None:
    if not names:
        raise FactorError(
            "there is no factor to evaluate", where=f"in data with {', '.join(map(str, there)) or 'nothing'}"
        )
