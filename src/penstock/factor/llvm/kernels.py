"""All functions over whole rows."""

from __future__ import annotations

from penstock.factor.llvm.groups import Groups
from penstock.factor.llvm.orders import Orders
from penstock.factor.llvm.sums import Sums

__all__ = ["Kernels"]


class Kernels(Sums, Orders, Groups):
    """The functions that a module needs, by name; `need(name)` writes one."""
