"""What bars are made of: trades, quotes or smaller bars, read from a batch into plain arrays.

Everything that can be wrong with a batch is found here, before any bar has changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from penstock.errors import RecordError, SchemaMismatch, TypeMismatch
from penstock.records import event_times
from penstock.window.grid import Int64

if TYPE_CHECKING:
    from penstock.window.bars.kernel import Kernel

__all__ = ["Float64", "Reader", "Rows", "place"]

Float64 = NDArray[np.float64]
_ORDER, _PRICE, _SIZE = 1, 2, 4  # what a scan may find
_PRICES = ("open", "high", "low", "close")


@dataclass(slots=True)
class Rows:
    """One batch: arrays of its n rows. `usable` are the rows with price and size, None when all are.

    `volume` is None when there is none (quotes), `amount` when it is price x volume, `trades` when each row counts
    one. `ordered` says whether times never decrease, `most` is the greatest integer size; None: nobody has looked.
    """

    time: Int64
    open: Float64
    high: Float64
    low: Float64
    close: Float64
    volume: NDArray[Any] | None
    amount: Float64 | None
    trades: Int64 | None
    usable: Int64 | None
    revised: int
    ordered: bool | None = None
    most: int | None = None

    def take(self, rows: Int64) -> Rows:
        """The rows of these numbers."""
        price = self.open[rows]
        one = self.high is self.open
        return Rows(
            self.time[rows],
            price,
            price if one else self.high[rows],
            price if one else self.low[rows],
            price if one else self.close[rows],
            None if self.volume is None else self.volume[rows],
            None if self.amount is None else self.amount[rows],
            None if self.trades is None else self.trades[rows],
            None,
            0,
        )


class Reader:
    """Reads batches of one shape: `kind` is "trades", "quotes" or "bars", found in the first batch."""

    def __init__(self, *, price: str, size: str | None, time: str) -> None:
        self.price = price
        self.size = size
        self.time = time
        self.kind = ""
        self.volume = ""  # "int64", "float64"; "" until the first batch
        self._seen = ("", "")

    def read(self, batch: pa.RecordBatch, first: int, kernel: Kernel | None = None) -> Rows:
        """The arrays of a batch whose row 0 is row `first` of the stream.

        Raises  SchemaMismatch for a column that is not there or of another kind than before, TypeMismatch for one
                that is not numeric or a missing time, RecordError for a negative size.
        """
        names = batch.schema.names
        kind = self._kind(names)
        if self.kind not in ("", kind):
            raise SchemaMismatch(
                expected=f"{self.kind}, as in the batches before",
                got=f"{kind}: columns {', '.join(names)}",
                where=place(first, ""),
                hint="use one Bars per kind of input",
            )
        time = event_times(batch, self.time)
        if kind == "bars":
            rows, volume = self._bars(batch, time, first)
        elif kind == "quotes":
            price = self._number(batch, "bid_px", first) + self._number(batch, "ask_px", first)
            price *= 0.5
            rows, volume = Rows(time, price, price, price, price, None, None, None, _finite(price), 0), "int64"
        else:
            rows, volume = self._trades(batch, time, first, kernel)
        if self.volume not in ("", volume):
            raise TypeMismatch(
                expected=f"{self.volume} sizes, as in the batches before",
                got=volume,
                where=place(first, self.size or "volume"),
                hint="cast the column before it comes here",
            )
        self._seen = kind, volume
        return rows

    def keep(self) -> None:
        """The batch just read was taken in: those after it must be like it."""
        self.kind, self.volume = self._seen

    def _kind(self, names: Sequence[str]) -> str:
        if self.price in names:
            if self.size is None or self.size in names:
                return "trades"
            raise SchemaMismatch(
                expected=f"a column `{self.size}` beside `{self.price}`",
                got=f"columns {', '.join(names)}",
                where="in Bars",
                hint="name the column with size=, or give size=None for prices without one",
                column=self.size,
            )
        if self.price == "mid" and "bid_px" in names and "ask_px" in names:
            return "quotes"
        if all(name in names for name in (*_PRICES, "volume")):
            return "bars"
        raise SchemaMismatch(
            expected=f"a column `{self.price}`, or open, high, low, close and volume, or bid_px and ask_px "
            "with price='mid'",
            got=f"columns {', '.join(names)}",
            where="in Bars",
            hint="name the column with price=",
            column=self.price,
        )

    def _trades(self, batch: Any, time: Int64, first: int, kernel: Kernel | None) -> tuple[Rows, str]:
        price = self._number(batch, self.price, first)
        size, present = (None, None) if self.size is None else self._sizes(batch, self.size, first)
        ordered, most, odd = None, None, _PRICE | _SIZE
        if kernel is not None:
            odd, most = kernel.scan(time, price, size)
            ordered = not odd & _ORDER
        usable = _both(present, _finite(price)) if odd & _PRICE else present
        if size is not None and odd & _SIZE:
            usable = _both(usable, self._good(size, self.size or "", first))
        rows = Rows(time, price, price, price, price, size, None, None, usable, 0, ordered, most)
        return rows, "int64" if size is None or size.dtype == np.int64 else "float64"

    def _bars(self, batch: Any, time: Int64, first: int) -> tuple[Rows, str]:
        names = batch.schema.names
        prices = [self._number(batch, name, first) for name in _PRICES]
        opens, highs, lows, closes = prices
        usable = None
        for price in prices:
            usable = _both(usable, _finite(price))
        volume, present = self._size(batch, "volume", first)
        usable = _both(usable, present)
        if "amount" in names:
            amount = self._number(batch, "amount", first)
        elif "vwap" in names:
            # A bar without volume may have no vwap; its amount is 0 all the same.
            amount = np.where(volume == 0, 0.0, self._number(batch, "vwap", first) * volume)
        else:
            amount = np.full(len(time), np.nan)
        trades, revised = None, 0
        if "trade_count" in names:
            trades, _ = self._size(batch, "trade_count", first)
            if trades.dtype != np.int64:
                raise TypeMismatch(expected="integers", got=str(trades.dtype), where=place(first, "trade_count"))
            if len(trades) and int(trades.min()) == 0:
                # Nothing was traded: a filled bar, whose prices belong to an earlier one.
                usable = _both(usable, np.flatnonzero(trades))
        if "revision" in names:
            revision, _ = self._size(batch, "revision", first)
            if revision.any():
                usable = _both(usable, np.flatnonzero(revision == 0))
                revised = int(np.count_nonzero(revision))
        return Rows(time, opens, highs, lows, closes, volume, amount, trades, usable, revised), str(volume.dtype)

    def _number(self, batch: Any, name: str, first: int) -> Float64:
        column = batch.column(name)
        kind = column.type
        if pa.types.is_decimal(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
            if pa.types.is_float16(kind):
                return column.to_numpy(zero_copy_only=False).astype(np.float64)  # type: ignore[no-any-return]
            if kind != pa.float64():
                column = column.cast(pa.float64(), safe=False)
            return column.to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]
        raise TypeMismatch(
            expected=f"numbers for `{name}`",
            got=str(kind),
            where=place(first, name),
            hint="cast the column before it comes here",
            column=name,
        )

    def _size(self, batch: Any, name: str, first: int) -> tuple[NDArray[Any], Int64 | None]:
        """Sizes as int64 or float64, all at least 0, and the rows that have one (None: all)."""
        size, present = self._sizes(batch, name, first)
        return size, _both(present, self._good(size, name, first))

    def _sizes(self, batch: Any, name: str, first: int) -> tuple[NDArray[Any], Int64 | None]:
        """Sizes as they are, and the rows that have one (None: all); NaN and infinity may be among floats."""
        column = batch.column(name)
        present = None
        if pa.types.is_integer(column.type):
            if column.null_count:
                present = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
                column = column.fill_null(0)
            try:
                if column.type != pa.int64():
                    column = column.cast(pa.int64())
                size = column.to_numpy(zero_copy_only=False)
            except pa.ArrowInvalid as error:
                raise TypeMismatch(
                    expected="sizes within int64", got=str(error), where=place(first, name), column=name
                ) from error
        else:
            size = self._number(batch, name, first)
        return size, present

    def _good(self, size: NDArray[Any], name: str, first: int) -> Int64 | None:
        """The rows with a finite size, None for all; RecordError for one below 0."""
        present = _finite(size) if size.dtype == np.float64 else None
        if len(size) and not size.min() >= 0 and (low := size < 0).any():
            row = int(low.argmax())
            raise RecordError(
                expected=f"{name} of at least 0",
                got=str(size[row]),
                where=place(first + row, name),
                hint="cancellations are not sizes: filter such rows out before they come here",
                row=first + row,
            )
        return present


def _finite(values: Float64) -> Int64 | None:
    """Rows with a finite number; None for all of them."""
    good = np.isfinite(values)
    return None if good.all() else np.flatnonzero(good)


def _both(one: Int64 | None, other: Int64 | None) -> Int64 | None:
    if one is None or other is None:
        return other if one is None else one
    return np.intersect1d(one, other, assume_unique=True)


def place(row: int, column: str) -> str:
    """Where a message points."""
    return f"at row {row}.{column}" if column else f"at row {row}"
