"""What a read gives: Arrow, or the frame of another library when it is installed."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from penstock.errors import UsageError

__all__ = ["converted", "library", "row_bytes"]


def library(name: str, purpose: str) -> Any:
    """Import an optional package. Raises UsageError that says how to get it."""
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise UsageError(
            expected=f"{name} for {purpose}",
            got=f"{error}",
            where="in the store",
            hint=f"pip install {name}",
        ) from error


def converted(table: pa.Table, to: str) -> Any:
    """`table` as "arrow" (itself), "polars" or "pandas". Cost: no copy for polars, one for pandas."""
    if to == "arrow":
        return table
    if to == "polars":
        return library("polars", 'to="polars"').from_arrow(table)
    if to == "pandas":
        library("pandas", 'to="pandas"')
        return table.to_pandas()
    raise UsageError(expected="'arrow', 'polars' or 'pandas'", got=repr(to), where="in to")


def row_bytes(schema: pa.Schema) -> int:
    """About how many bytes a row takes in memory: fixed widths, and 24 for what has none."""
    total = 0
    for field in schema:
        try:
            total += (int(field.type.bit_width) + 7) // 8
        except ValueError:
            total += 24
    return total
