"""Bars: trades, quotes or smaller bars to open, high, low, close, volume, amount and vwap per symbol and interval."""

from __future__ import annotations

from penstock.window.bars.bars import Bars, BarsStatistics
from penstock.window.bars.emitter import BarWindow

__all__ = ["BarWindow", "Bars", "BarsStatistics"]
