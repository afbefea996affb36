"""The operators, one table per kind; importing this package fills `penstock.factor.table.TABLE`."""

from __future__ import annotations

from penstock.factor.ops import composites, cross, elementwise, windowed

__all__ = ["composites", "cross", "elementwise", "windowed"]
