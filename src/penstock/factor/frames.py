"""Data in and out: long frames and dicts of matrices to blocks (rows, symbols), and back to the kind that came.

A long frame has a row per symbol and time: columns `symbol`, `ts_event` and the fields. Its blocks have a row per
distinct time, in order of time, and a column per symbol; what is not in the frame is NaN.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.errors import FactorError

__all__ = ["Labels", "Panel", "floats", "read"]

Array = np.ndarray[Any, np.dtype[Any]]
Symbol = str | int


class Labels:
    """Numbers for the texts of group inputs (sector, industry), given in order of appearance."""

    def __init__(self, names: Sequence[str], known: Mapping[str, Sequence[Any]] | None = None) -> None:
        self.codes: dict[str, dict[Any, int]] = {
            name: {label: i for i, label in enumerate((known or {}).get(name, ()))} for name in names
        }

    def encode(self, name: str, values: Sequence[Any]) -> Array:
        """The numbers of `values`; None and "" are NaN."""
        codes = self.codes[name]
        return np.array(
            [np.nan if v is None or v == "" else codes.setdefault(str(v), len(codes)) for v in values], np.float64
        )

    def saved(self) -> dict[str, list[Any]]:
        return {name: list(codes) for name, codes in self.codes.items()}


@dataclass(frozen=True, slots=True)
class Panel:
    """Blocks (rows, symbols) per input, and how to give the outputs back."""

    inputs: list[Array]
    rows: int
    symbols: list[Symbol] | None
    wrap: Callable[[dict[str, Array]], Any]


def floats(value: object, name: str, dtype: np.dtype[Any], labels: Labels, where: str) -> Array:
    """`value` as a C-contiguous array of `dtype`; texts of a group input as their numbers.

    Raises  FactorError for other kinds (texts, objects, complex, times).
    """
    if isinstance(value, np.ma.MaskedArray):
        value = np.ma.filled(value.astype(np.float64), np.nan)
    array = np.asarray(value)
    if array.dtype.kind in "fiub":
        with np.errstate(over="ignore"):  # beyond float32 is infinite
            return np.asarray(array, dtype, order="C")
    if array.dtype.kind in "OUST" and name in labels.codes:
        return labels.encode(name, array.reshape(-1).tolist()).reshape(array.shape).astype(dtype)
    if array.dtype.kind == "O":
        try:
            return np.ascontiguousarray(
                [[_number(v) for v in row] for row in array] if array.ndim == 2 else [_number(v) for v in array], dtype
            )
        except (TypeError, ValueError):
            pass
    sample = array.reshape(-1)[0].item() if array.size and array.dtype.kind in "OUST" else array.dtype
    raise FactorError(
        expected=f"numbers for {name!r}",
        got=f"{array.dtype} ({sample!r})",
        where=where,
        hint="texts are read as group labels where an input is only used as a group"
        if array.dtype.kind in "OUST"
        else "convert it to float64",
    )


def _number(value: object) -> float:
    if value is None:
        return float("nan")
    if isinstance(value, (str, bytes)):
        raise TypeError
    return float(value)  # type: ignore[arg-type]


def read(
    data: object,
    inputs: Sequence[str],
    dtype: np.dtype[Any],
    labels: Labels,
    *,
    symbols: Sequence[Symbol] | None,
    symbol: str,
    time: str,
) -> Panel:
    """The blocks of a dict of (rows, symbols) arrays, or of a long Arrow, polars or pandas frame.

    Takes   symbols: the columns of the blocks; None for the frame's own, sorted;
            symbol, time: names of the frame's columns.
    Raises  FactorError for missing or unfit columns, unequal shapes, two rows of one symbol and time.
    """
    if isinstance(data, Mapping):
        return _read_dict(data, inputs, dtype, labels, symbols)
    table, back = _as_arrow(data, [symbol, time, *inputs])
    where = f"in {type(data).__module__.partition('.')[0]} {type(data).__name__}"
    missing = [name for name in (symbol, time, *inputs) if name not in table.column_names]
    if missing:
        raise _missing(missing, table.column_names, where)
    for name in (symbol, time):
        if table[name].null_count:
            raise FactorError(
                f"column {name!r} has {table[name].null_count} nulls", where=where, hint="drop those rows"
            )
    rows, times = _times(table[time], time, where)
    keys, universe = _keys(table[symbol], symbols, where)
    cell = rows * len(universe) + keys
    if len(np.unique(cell)) != len(cell):
        order = np.argsort(cell, kind="stable")
        twice = int(order[1:][np.diff(cell[order]) == 0].min())
        raise FactorError(
            f"there are two rows of {universe[keys[twice]]!r} at {table[time][twice].as_py()!r}",
            where=f"{where}, row {twice}",
            hint="keep one row per symbol and time",
        )
    blocks = []
    for name in inputs:
        block = np.full((times, len(universe)), np.nan, dtype)
        block.reshape(-1)[cell] = _column(table[name], name, dtype, labels, where)
        blocks.append(block)

    def wrap(outputs: dict[str, Array]) -> Any:
        flat = {name: pa.array(np.ascontiguousarray(block.reshape(-1)[cell])) for name, block in outputs.items()}
        return back(pa.table({symbol: table[symbol], time: table[time], **flat}))

    return Panel(blocks, times, universe, wrap)


def _missing(missing: Sequence[str], there: Sequence[str], where: str) -> FactorError:
    near = [m for name in missing for m in difflib.get_close_matches(name, there, n=1)]
    return FactorError(
        f"{'fields' if len(missing) > 1 else 'field'} {', '.join(map(repr, missing))} missing",
        where=f"{where} with {', '.join(map(repr, there[:20])) or 'no columns'}",
        hint=f"did you mean {' or '.join(map(repr, near))}" if near else None,
    )


def _read_dict(
    data: Mapping[Any, object],
    inputs: Sequence[str],
    dtype: np.dtype[Any],
    labels: Labels,
    symbols: Sequence[Symbol] | None,
) -> Panel:
    missing = [name for name in inputs if name not in data]
    if missing:
        raise _missing(missing, [str(name) for name in data], "in a dict")
    # A program without inputs still needs a shape: any array's will do.
    names = list(inputs) or [str(name) for name in data][:1]
    blocks: list[Array] = []
    for name in names:
        block = floats(data[name], name, dtype, labels, "in a dict of arrays")
        if block.ndim != 2:
            raise FactorError(
                expected=f"{name!r} of shape (rows, symbols)",
                got=str(block.shape),
                hint="a single series is array.reshape(-1, 1)" if block.ndim == 1 else None,
            )
        if blocks and block.shape != blocks[0].shape:
            raise FactorError(
                expected=f"{name!r} of shape {blocks[0].shape}, as {names[0]!r} has", got=str(block.shape)
            )
        if symbols is not None and block.shape[1] != len(symbols):
            raise FactorError(expected=f"{len(symbols)} symbols in {name!r}", got=str(block.shape[1]))
        blocks.append(block)
    if not blocks:
        raise FactorError("no array in the dict says how many rows and symbols there are", hint="pass one more array")
    rows = len(blocks[0])
    universe: list[Symbol] = [*(range(blocks[0].shape[1]) if symbols is None else symbols)]
    return Panel(blocks[: len(inputs)], rows, universe, lambda outputs: outputs)


def _as_arrow(data: object, columns: Sequence[str]) -> tuple[pa.Table, Callable[[pa.Table], Any]]:
    """The frame as an Arrow table, and the way back to its kind."""
    package = type(data).__module__.partition(".")[0]
    if isinstance(data, pa.Table):
        return data, lambda table: table
    if isinstance(data, pa.RecordBatch):
        return pa.table(data), lambda table: table.combine_chunks().to_batches()[0] if len(table) else _empty(table)
    if package == "pandas" and hasattr(data, "columns"):
        frame: Any = data
        levels = [name for name in frame.index.names if name is not None]
        if any(name in columns and name not in frame.columns for name in levels):
            frame = frame.reset_index()
        wanted = frame[[name for name in columns if name in frame.columns]]
        index = data.index  # type: ignore[attr-defined]

        def to_pandas(table: pa.Table) -> Any:
            made = table.to_pandas()
            made.index = index if frame is data else made.index
            return made.set_index(levels) if frame is not data else made

        return pa.Table.from_pandas(wanted, preserve_index=False), to_pandas
    if package == "polars" and type(data).__name__ == "LazyFrame":
        raise FactorError(expected="a polars DataFrame", got="a LazyFrame", hint="call .collect()")
    if package == "polars" and hasattr(data, "columns"):
        import polars

        frame = data
        wanted = frame.select([name for name in columns if name in frame.columns])
        return wanted.to_arrow(), lambda table: polars.from_arrow(table)
    if hasattr(data, "__arrow_c_stream__"):
        return pa.table(data), lambda table: table
    raise FactorError(
        expected="a dict of (rows, symbols) arrays or a long Arrow, polars or pandas frame",
        got=f"{type(data).__module__}.{type(data).__qualname__}",
    )


def _empty(table: pa.Table) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([], f.type) for f in table.schema], schema=table.schema)


def _times(column: pa.ChunkedArray, name: str, where: str) -> tuple[Array, int]:
    """Per row the number of its time among the distinct ones in order, and how many those are."""
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        raise FactorError(
            expected=f"integers or timestamps in {name!r}",
            got=str(kind),
            where=where,
            hint='name the column: time="date"',
        )
    if pa.types.is_date32(kind):
        column = column.cast(pa.int32())
    values = column.cast(pa.int64()).to_numpy()
    distinct, rows = np.unique(values, return_inverse=True)
    return rows.reshape(-1).astype(np.int64), len(distinct)


def _keys(column: pa.ChunkedArray, symbols: Sequence[Symbol] | None, where: str) -> tuple[Array, list[Symbol]]:
    """Per row the number of its symbol, and the symbols."""
    if not len(column):
        return np.zeros(0, np.int64), list(symbols or ())
    if pa.types.is_dictionary(column.type):
        encoded = pa.concat_arrays(column.unify_dictionaries().chunks)
    else:
        encoded = pa.concat_arrays(column.chunks).dictionary_encode()
    names = encoded.dictionary.to_pylist()
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    used = set(np.unique(codes).tolist())
    universe = list(symbols) if symbols is not None else sorted(names[i] for i in used)
    place = {name: i for i, name in enumerate(universe)}
    strange = [names[i] for i in used if names[i] not in place]
    if strange:
        raise FactorError(
            f"{len(strange)} symbols are not the stream's, {strange[0]!r} first",
            where=where,
            hint="add them with live.add_symbols([...]), or drop their rows",
        )
    translate = np.array([place.get(name, -1) for name in names], np.int64)
    return translate[codes], universe


def _column(column: pa.ChunkedArray, name: str, dtype: np.dtype[Any], labels: Labels, where: str) -> Array:
    """A column as numbers, nulls as NaN."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = kind.value_type
    if pa.types.is_boolean(kind):
        column = column.cast(pa.uint8())
    elif name in labels.codes and (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    ):
        return labels.encode(name, column.to_pylist()).astype(dtype)
    elif not (
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind)
    ):
        raise FactorError(
            expected=f"numbers for {name!r}",
            got=str(kind),
            where=where,
            hint="texts are read as group labels where an input is only used as a group",
        )
    values = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):  # beyond float32 is infinite
        return np.asarray(values, dtype)
