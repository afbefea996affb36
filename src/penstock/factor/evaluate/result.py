"""What an evaluation gives: a table that draws itself."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.errors import FactorError

__all__ = ["Result"]

Array = np.ndarray[Any, np.dtype[Any]]


class Result:
    """A table that also draws itself; anything that takes Arrow streams takes it (`polars.DataFrame(result)`).

    `table`: as Arrow; `frame`: in the kind of frame that came in (Arrow for arrays); `result["alpha001"]`: a column.
    """

    def __init__(self, table: pa.Table, kind: str, x: str, drawn: str, split: str | None = None) -> None:
        self.table = table
        self._kind, self._x, self._drawn, self._split = kind, x, drawn, split

    @property
    def frame(self) -> Any:
        """The table as polars, pandas or Arrow, as the data were."""
        if self._kind == "pandas":
            return self.table.to_pandas()
        return importlib.import_module("polars").from_arrow(self.table) if self._kind == "polars" else self.table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)

    def __getitem__(self, name: str) -> Array:
        if name not in self.table.column_names:
            raise KeyError(f"no column {name!r}; there are {', '.join(self.table.column_names)}")
        column: Array = self.table[name].to_numpy(zero_copy_only=False)
        return column

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __repr__(self) -> str:
        return f"Result of {len(self)} rows\n{self.table.slice(0, 10).to_string(preview_cols=8)}"

    def plot(self, ax: Any = None) -> Any:
        """Draw it with matplotlib, into `ax` or a new figure; the axes.

        Correlations and quantile returns are added up along time, turnover is a line, the rest are bars.
        Raises  FactorError if matplotlib is not installed.
        """
        try:
            plotter = importlib.import_module("matplotlib.pyplot")
        except ImportError as error:
            raise FactorError(
                "plot() takes matplotlib, which is not installed", hint="pip install matplotlib"
            ) from error
        ax = plotter.subplots(layout="constrained")[1] if ax is None else ax
        parts = {"": self.table}
        if self._split:
            names = self.table[self._split].unique().to_pylist()
            parts = {f"{name} ": self.table.filter(pa.compute.equal(self.table[self._split], name)) for name in names}
        lines = [(f"{part}{c}", table, c) for part, table in parts.items() for c in table.column_names]
        lines = [line for line in lines if pa.types.is_floating(line[1][line[2]].type)]
        groups = {name: at for at, name in enumerate(self.table[self._x].unique().to_pylist())}
        for i, (label, table, column) in enumerate(lines):
            y = table[column].to_numpy(zero_copy_only=False)
            if self._drawn == "bars":
                at = np.array([groups[name] for name in table[self._x].to_pylist()], float)
                ax.bar(at + (i - (len(lines) - 1) / 2) * 0.8 / len(lines), y, 0.8 / len(lines), label=label)
            else:
                ax.plot(self._along(table), np.nancumsum(y) if self._drawn == "sums" else y, label=label)
        if self._drawn == "bars":
            ax.set_xticks(list(groups.values()), [str(name) for name in groups])
        ax.tick_params("x", rotation=30 if self._drawn != "bars" or len(groups) > 12 else 0)
        ax.set_xlabel(self._x)
        ax.set_ylabel("added up" if self._drawn == "sums" else "")
        beside = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)} if len(lines) > 6 else {}
        ax.legend(fontsize="small", **beside)
        return ax

    def _along(self, table: pa.Table) -> Any:
        """Where the rows stand on a line's axis; whole numbers are ns since the epoch where their column says so."""
        column = table[self._x]
        ns = pa.types.is_integer(column.type) and self._x.startswith("ts_")
        return column.cast(pa.timestamp("ns")).to_numpy() if ns else column.to_pylist()
