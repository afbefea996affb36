"""pandas frames to record batches, without importing pandas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import types

from penstock.errors import SchemaMismatch, TypeMismatch
from penstock.records.describe import place, value_text

__all__ = ["frame_batches", "is_pandas"]


def is_pandas(data: Any, kind: str) -> bool:
    """Whether the data is a pandas `kind`, told by name: who does not use pandas does not import it here."""
    return any(base.__name__ == kind and base.__module__.partition(".")[0] == "pandas" for base in type(data).__mro__)


def frame_batches(frame: Any, schema: pa.Schema | None, where: str) -> list[pa.RecordBatch]:
    """The columns of a pandas frame, and the named levels of its index, as batches of the frame's own types.

    Takes   frame: n rows; schema: the wanted one, which says where NaN is a missing value (any column but float).
    Returns batches of n rows in all, without pandas' metadata.
    Raises  TypeMismatch for a column of mixed types and for an unnamed index that is more than row numbers;
            SchemaMismatch for column names that are no text or not unique.
    """
    columns = [(name, frame.iloc[:, i]) for i, name in enumerate(frame.columns)]
    index = frame.index
    if any(name is not None for name in index.names):
        columns = [*_levels(index, where), *columns]
    elif index.nlevels > 1 or index.dtype.kind not in "iu":
        raise TypeMismatch(
            expected="a named index, or one of row numbers",
            got=f"an unnamed index of {index.dtype}",
            where=place(where, None),
            hint='name it with frame.index.name = "ts", or drop it with frame.reset_index(drop=True)',
        )
    names = [name for name, _ in columns]
    for name in names:
        if not isinstance(name, str) or names.count(name) > 1:
            raise SchemaMismatch(
                expected="column names that are text, each once",
                got=value_text(name) if not isinstance(name, str) else f"`{name}` more than once",
                where=place(where, None),
                hint="rename the columns of the frame (and its index)",
                column=name,
            )
    arrays, fields = [], []
    for name, series in columns:
        array = _series(name, series, schema, where)
        arrays.append(array)
        fields.append(pa.field(name, array.type))
    table = pa.Table.from_arrays(
        [pa.chunked_array([array]) if isinstance(array, pa.Array) else array for array in arrays],
        schema=pa.schema(fields),
    )
    return table.to_batches()  # type: ignore[no-any-return]


def _levels(index: Any, where: str) -> list[tuple[Any, Any]]:
    if any(name is None for name in index.names):
        raise TypeMismatch(
            expected="a name for each level of the index",
            got=f"names {list(index.names)!r}",
            where=place(where, None),
            hint="name them with frame.index.names = [...], or use frame.reset_index()",
        )
    return [(name, index.get_level_values(i)) for i, name in enumerate(index.names)]


def _series(name: str, series: Any, schema: pa.Schema | None, where: str) -> Any:
    dtype = series.dtype
    target = schema.field(name).type if schema is not None and name in schema.names else None
    try:
        if isinstance(dtype, np.dtype) and dtype.kind == "f" and (target is None or types.is_floating(target)):
            return pa.array(series.to_numpy(), from_pandas=False)
        return pa.array(series, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise TypeMismatch(
            expected=f"one type for `{name}`",
            got=f"{dtype} ({str(error)[:200]})",
            where=place(where, None, name),
            hint="convert the column of the frame, such as frame[name].astype(...)",
            column=name,
        ) from error
