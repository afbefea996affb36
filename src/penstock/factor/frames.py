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

__all__ = ["Labels", "Panel", "as_arrow", "floats", "read"]

_SPARSE = "is each time another one? Round them to the bars' ends, or take fewer symbols or a shorter time at once"
_KINDS = "label a group by texts or by numbers all along; a stream and its snapshots know the texts they were given"

Array = np.ndarray[Any, np.dtype[Any]]
Symbol = str | int

SPARSE = 64
"""Cells of the grid for each row of a frame that are still worth computing, if they are more than `MOST`."""

MOST = 4 << 30
"""Bytes of a sparse frame's grid, inputs and outputs, for which memory is taken."""


class Labels:
    """Numbers for the texts of group inputs (sector, industry), given in order of appearance.

    An input is labelled by texts or by numbers, all along: a number beside texts could be one that a text was given.
    """

    def __init__(self, names: Sequence[str], known: Mapping[str, Sequence[Any]] | None = None) -> None:
        self.codes: dict[str, dict[Any, int]] = {
            name: {label: i for i, label in enumerate((known or {}).get(name, ()))} for name in names
        }
        self._numbered: set[str] = set()

    def encode(self, name: str, values: Sequence[Any]) -> Array:
        """The numbers of `values`; None, NaN and "" are NaN."""
        codes = self.codes[name]
        texts = [v.decode() if isinstance(v, bytes) else v for v in values]
        made = np.array(
            [np.nan if v is None or v == "" or v != v else codes.setdefault(str(v), len(codes)) for v in texts],
            np.float64,
        )
        if codes and name in self._numbered:
            label = next(iter(codes))
            codes.clear()
            raise FactorError(expected=f"numbers for {name!r}, as before", got=repr(label), hint=_KINDS)
        return made

    def numbers(self, name: str, values: Array) -> Array:
        """`values` as they are.   Raises  FactorError if there is one, not NaN, for a group that had texts before."""
        if name in self.codes and name not in self._numbered:
            there = values[~np.isnan(values)]
            if self.codes[name] and there.size:
                known = ", ".join(map(repr, list(self.codes[name])[:4]))
                raise FactorError(
                    expected=f"texts for {name!r}, as before ({known})", got=repr(float(there[0])), hint=_KINDS
                )
            if there.size:
                self._numbered.add(name)
        return values

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
    """`value` as a C-contiguous array of `dtype` in this machine's byte order; texts of a group input as their numbers.

    Numbers are rounded to `dtype`: of whole ones beyond 2 ** 53 (float32: 2 ** 24) the nearest that it holds.
    Raises  FactorError for other kinds (texts, objects, complex, times).
    """
    if isinstance(value, np.ma.MaskedArray):
        value = np.ma.filled(value.astype(np.float64), np.nan)
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:  # rows of unequal length
        raise FactorError(f"{name!r} is no array: {error}", where=where) from error
    if array.dtype.kind in "fiub":
        with np.errstate(over="ignore"):  # beyond float32 is infinite
            return labels.numbers(name, np.asarray(array, dtype, order="C"))
    if array.dtype.kind in "OUST" and name in labels.codes:
        return labels.encode(name, array.reshape(-1).tolist()).reshape(array.shape).astype(dtype)
    if array.dtype.kind == "O":
        try:
            made = np.ascontiguousarray(
                [[_number(v) for v in row] for row in array] if array.ndim == 2 else [_number(v) for v in array], dtype
            )
        except (TypeError, ValueError, OverflowError):
            pass
        else:
            return labels.numbers(name, made)
    sample = _brief(array.reshape(-1)[:1].tolist()[0]) if array.size and array.dtype.kind in "OUST" else None
    raise FactorError(
        expected=f"numbers for {name!r}",
        got=str(array.dtype) if sample is None else f"{array.dtype} ({sample})",
        where=where,
        hint="texts are read as group labels where an input is only used as a group"
        if array.dtype.kind in "OUST"
        else "convert it to float64",
    )


def _brief(value: object) -> str:
    if isinstance(value, int) and value.bit_length() > 1000:  # Python refuses to write it out
        return f"a number of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


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
    outputs: Sequence[str] = (),
) -> Panel:
    """The blocks of a dict of (rows, symbols) arrays, or of a long Arrow, polars or pandas frame.

    Takes   symbols: the columns of the blocks; None for the frame's own, sorted;
            symbol, time: names of the frame's columns; outputs: names that shall stand beside these.
    Raises  FactorError for missing or unfit columns, unequal shapes, two rows of one symbol and time.
    """
    if isinstance(data, Mapping):
        return _read_dict(data, inputs, dtype, labels, symbols)
    where = f"in {type(data).__module__.partition('.')[0]} {type(data).__name__}"
    try:
        table, back = as_arrow(data, [symbol, time, *inputs])
    except FactorError:
        raise
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise FactorError(
            f"this frame cannot be read as Arrow: {' '.join(map(str, error.args))}",
            where=where,
            hint="a column of one type each, a name once",
        ) from error
    for name in (symbol, time):
        if name in outputs:
            raise FactorError(f"{name!r} is a factor and a column of the frame's keys", hint="rename one")
    for name in (symbol, time, *inputs):
        if table.column_names.count(name) > 1:
            raise FactorError(f"there are two columns {name!r}", where=where, hint="rename one")
    missing = [name for name in (symbol, time, *inputs) if name not in table.column_names]
    if missing:
        there = table.column_names if isinstance(data, (pa.Table, pa.RecordBatch)) else getattr(data, "columns", ())
        raise _missing(missing, [str(name) for name in there], where)
    table = _plain(table)
    for name in (symbol, time):
        if table[name].null_count:
            raise FactorError(
                f"column {name!r} has {table[name].null_count} nulls", where=where, hint="drop those rows"
            )
    rows, times = _times(table[time], time, where)
    keys, universe = _keys(table[symbol], symbols, where)
    _not_sparse(len(keys), times, len(universe), dtype.itemsize * (len(inputs) + len(outputs)), where)
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
        try:
            block = np.full((times, len(universe)), np.nan, dtype)
        except MemoryError:
            raise FactorError(
                f"{times} times of {len(universe)} symbols are too much memory for {len(cell)} rows",
                where=where,
                hint=_SPARSE,
            ) from None
        block.reshape(-1)[cell] = _column(table[name], name, dtype, labels, where)
        blocks.append(block)

    def wrap(outputs: dict[str, Array]) -> Any:
        flat = {name: pa.array(np.ascontiguousarray(block.reshape(-1)[cell])) for name, block in outputs.items()}
        return back(pa.table({symbol: table[symbol], time: table[time], **flat}))

    return Panel(blocks, times, universe, wrap)


def _not_sparse(rows: int, times: int, symbols: int, cell: int, where: str) -> None:
    """Refuse a frame of few rows whose grid of times and symbols, of so many bytes per cell, would be huge."""
    if times * symbols * cell > MOST and times * symbols > SPARSE * rows:
        raise FactorError(
            f"{times:,} times of {symbols:,} symbols are a grid of {times * symbols * cell / 2**30:,.1f} GiB"
            f" for {rows:,} rows",
            where=where,
            hint=_SPARSE,
        )


def _missing(missing: Sequence[str], there: Sequence[str], where: str) -> FactorError:
    near = [m for name in missing for m in difflib.get_close_matches(str(name), there, n=1)]
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


def as_arrow(data: object, columns: Sequence[str]) -> tuple[pa.Table, Callable[[pa.Table], Any]]:
    """The frame as an Arrow table, and the way back to its kind."""
    package = type(data).__module__.partition(".")[0]
    if isinstance(data, pa.Table):
        return data, lambda table: table
    if isinstance(data, pa.RecordBatch):
        return pa.table(data), lambda table: table.combine_chunks().to_batches()[0] if len(table) else _empty(table)
    if package == "pandas" and hasattr(data, "columns"):
        given: Any = data
        levels = [name for name in given.index.names if name in columns and name not in given.columns]
        named = given.reset_index(levels) if levels else given
        wanted = named[[name for name in columns if name in named.columns]]

        def to_pandas(table: pa.Table) -> Any:
            made = table.drop_columns(levels).to_pandas().set_axis(given.index)
            # Arrow knows fewer kinds of columns: what came is given back as it was.
            return made.assign(**{name: given[name] for name in made.columns if name in columns[:2]})

        return pa.Table.from_pandas(wanted, preserve_index=False), to_pandas
    if package == "polars" and type(data).__name__ == "LazyFrame":
        raise FactorError(expected="a polars DataFrame", got="a LazyFrame", hint="call .collect()")
    if package == "polars" and hasattr(data, "columns"):
        import polars

        frame: Any = data
        wanted = frame.select([name for name in columns if name in frame.columns])

        def to_polars(table: pa.Table) -> Any:
            made: Any = polars.from_arrow(table)
            # Arrow knows no Enum and no ordered Categorical: what came is given back as it was.
            return made.with_columns([frame[name] for name in made.columns if name in columns[:2]])

        return wanted.to_arrow(), to_polars
    if hasattr(data, "__arrow_c_stream__"):
        return pa.table(data), lambda table: table
    raise FactorError(
        expected="a dict of (rows, symbols) arrays or a long Arrow, polars or pandas frame",
        got=f"{type(data).__module__}.{type(data).__qualname__}",
    )


def _plain(table: pa.Table) -> pa.Table:
    """The table with run-end encoded columns written out."""
    for at, one in enumerate(table.schema):
        if pa.types.is_run_end_encoded(one.type):
            table = table.set_column(at, one.name, pa.compute.run_end_decode(table.column(at)))
    return table


def _empty(table: pa.Table) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([], f.type) for f in table.schema], schema=table.schema)


def _times(column: pa.ChunkedArray, name: str, where: str) -> tuple[Array, int]:
    """Per row the number of its time among the distinct ones in order, and how many those are."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        raise FactorError(
            expected=f"integers or timestamps in {name!r}",
            got=str(kind),
            where=where,
            hint='convert it, or name another column: time="date"',
        )
    if pa.types.is_date32(kind):
        column = column.cast(pa.int32())
    if pa.types.is_uint64(kind) and len(column) and pa.compute.max(column).as_py() >= 1 << 63:
        raise FactorError(expected=f"times below 2 ** 63 in {name!r}", got="larger ones", where=where)
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
        try:
            encoded = pa.concat_arrays(column.chunks).dictionary_encode()
        except pa.ArrowNotImplementedError:
            raise FactorError(
                expected="symbols that are texts or whole numbers", got=str(column.type), where=where
            ) from None
    names = encoded.dictionary.to_pylist()
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    used = set(np.unique(codes).tolist())
    if any(names[i] is None for i in used):
        raise FactorError("a symbol of the dictionary is null", where=where, hint="drop those rows")
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
        return labels.numbers(name, np.asarray(values, dtype))
