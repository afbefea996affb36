"""NumPy functions in a program: called with one row after the other, their results checked, their failures kept.

Engines compute chunks of rows operator by operator, and in threads. What is raised is yet what would have been raised
row by row: a failure is kept, with NaN in its row's place, rows before it are still computed, and of all failures the
earliest row's earliest is raised when the engine is done. So a message depends on neither engine, chunk nor thread.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.errors import FactorError
from penstock.factor.graph import Node, topological
from penstock.factor.plan import Plan
from penstock.factor.table import TABLE

if TYPE_CHECKING:
    from penstock.factor.machine_numpy import NumpyMachine

__all__ = ["Functions", "is_function"]

Array = np.ndarray[Any, np.dtype[Any]]

_BEFORE_ALL = (-1, -1)


def is_function(node: Node) -> bool:
    """Whether a node's operator is a NumPy function of a user's (`f.cross_numpy`)."""
    return node.op in TABLE and TABLE[node.op].numpy


class Functions:
    """The functions that a plan calls, for one engine.

    `nodes`: in the order in which a row is computed; `numbers`: their places in it.
    """

    def __init__(self, plan: Plan, dtype: np.dtype[Any], keys: int) -> None:
        self.nodes = tuple(node for node in plan.nodes if is_function(node))
        self.numbers = {node: i for i, node in enumerate(self.nodes)}
        self.dtype, self.keys = dtype, keys
        self._steps = [(TABLE[node.op].step, dict(node.attrs)) for node in self.nodes]
        self._outputs = tuple(zip(plan.names, plan.outputs, strict=True))
        self._missing = np.full(keys, np.nan, dtype)
        self._lock = threading.Lock()
        self._failed: tuple[tuple[int, int], BaseException] | None = None

    def row(self, number: int, ordinal: int, rows: Sequence[Array]) -> Array:
        """What a function gives for a row, (keys,) in the program's dtype; NaN if it fails, or a row before it did.

        Takes   rows: an array (keys,) per operand, which the function may keep or change. Never raises. A row without
                keys is not worth a call.
        """
        try:
            if not self.keys or (self._failed is not None and self._failed[0] < (ordinal, number)):
                return self._missing
            for x in rows:
                x[np.isnan(x)] = np.nan  # one NaN: payload and sign differ between engines
            return self._checked(number, ordinal, self._called(number, ordinal, rows))
        except FactorError as error:
            self._keep((ordinal, number), error)
        except BaseException as error:
            self.stop(error)
        return self._missing

    def stop(self, error: BaseException) -> None:
        """Keep what is no failure of a function (Ctrl-C, no memory): nothing else is worth while then."""
        self._keep(_BEFORE_ALL, error)

    def rows(self, number: int, machine: NumpyMachine, *xs: Any, **_: Any) -> Array:
        """A step of the NumPy machine: all rows of its chunk."""
        blocks = [machine.block(x) for x in xs]
        out = np.empty((machine.rows, machine.keys), machine.dtype)
        for i in range(machine.rows):
            out[i] = self.row(number, machine.ordinal + i, [np.array(x[i]) for x in blocks])
        return out

    def _called(self, number: int, ordinal: int, rows: Sequence[Array]) -> Any:
        step, attributes = self._steps[number]
        try:
            with np.errstate(all="ignore"):
                return step(*rows, **attributes)
        except Exception as error:
            problem = f"{self.nodes[number].op} raised {type(error).__name__}: {error}"
            raise self._error(number, ordinal, problem=problem) from error

    def _checked(self, number: int, ordinal: int, made: Any) -> Array:
        """A function's result in the program's dtype."""
        expected = f"an array of shape ({self.keys},) from {self.nodes[number].op}"
        if not hasattr(made, "__array__") or isinstance(made, np.ma.MaskedArray):
            hint = "return made.filled(np.nan)" if isinstance(made, np.ma.MaskedArray) else None
            raise self._error(number, ordinal, expected=expected, got=type(made).__name__, hint=hint)
        array = np.asarray(made)
        if array.shape != (self.keys,):
            hint = "one number for all is np.full_like(x, number)" if array.shape == () else None
            raise self._error(number, ordinal, expected=expected, got=f"shape {array.shape}", hint=hint)
        if array.dtype.kind not in "fiub":
            raise self._error(number, ordinal, expected=f"{expected}, of real numbers", got=f"dtype {array.dtype}")
        with np.errstate(all="ignore"):
            out = array.astype(self.dtype)
        out[np.isnan(out)] = np.nan
        return out

    def _error(self, number: int, ordinal: int, **parts: Any) -> FactorError:
        node = self.nodes[number]
        factor = next(name for name, root in self._outputs if any(one is node for one in topological([root])))
        where = f"in row {ordinal} of factor {factor!r}"
        return FactorError(**parts, where=where, operator=node.op, factor=factor, row=ordinal)

    def _keep(self, at: tuple[int, int], error: BaseException) -> None:
        with self._lock:
            if self._failed is None or at < self._failed[0]:
                self._failed = at, error

    def check(self) -> None:
        """Raise what failed first since the last check.

        Raises  FactorError with the function, factor and row as `operator`, `factor`, `row`, the cause chained; what
                is no `Exception`, as KeyboardInterrupt, as it is.
        """
        if self._failed is not None:
            (_, error), self._failed = self._failed, None
            raise error
