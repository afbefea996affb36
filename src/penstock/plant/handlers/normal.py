"""What a handler returns, as messages: JSON values and nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["Unfit", "messages", "plain"]

_DEEP = 32


class Unfit(Exception):
    """A result that is not messages; its text says where and why."""


def messages(result: Any) -> list[dict[str, Any]]:
    """A handler's result as messages.

    A mapping is one message, a sequence of mappings several; None, 0, an empty sequence and Klong's undefined are none.
    In a message arrays become lists, numbers of NumPy plain ones, NaN, infinities and undefined null.
    Raises  Unfit for anything else: other results, keys that are not text, values that JSON has no form for.
    """
    if _nothing(result):
        return []
    if isinstance(result, Mapping):
        return [_message(result, "the result")]
    if isinstance(result, np.ndarray) and result.dtype == object and result.ndim == 1:
        result = result.tolist()
    if isinstance(result, (list, tuple)):
        for number, one in enumerate(result):
            if not isinstance(one, Mapping):
                raise Unfit(f"expected a message, a list of messages or nothing, got {_name(one)} at [{number}]")
        return [_message(one, f"[{number}]") for number, one in enumerate(result)]
    raise Unfit(f"expected a message, a list of messages or nothing, got {_name(result)}")


def plain(value: Any) -> Any:
    """Any value as JSON has it: what stands in a message.   Raises  Unfit."""
    return _value(value, "the value", 0)


def _nothing(result: Any) -> bool:
    if result is None or _undefined(result):
        return True
    if isinstance(result, (int, np.integer)) and not isinstance(result, bool):
        return result == 0
    if isinstance(result, np.ndarray):
        return result.size == 0 or (result.ndim == 0 and result.dtype.kind in "iu" and result == 0)
    return isinstance(result, (list, tuple)) and not result


def _undefined(value: Any) -> bool:
    return type(value).__name__ == "KGUndefined"  # by name: klongpy is not imported for handlers in Python


def _name(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def _message(given: Mapping[Any, Any], where: str) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in given.items():
        if not isinstance(key, str):
            raise Unfit(f"expected text as a key, got {_name(key)} in {where}")
        made[str(key)] = _value(value, f"{where}.{key}", 0)
    return made


def _value(value: Any, where: str, depth: int) -> Any:
    if depth > _DEEP:
        raise Unfit(f"expected values nested at most {_DEEP} deep, got more at {where}")
    if value is None or isinstance(value, bool) or _undefined(value):
        return value if isinstance(value, bool) else None
    if isinstance(value, np.generic):
        value = value.item()
        if isinstance(value, bool):
            return value
    if isinstance(value, str):
        return str(value)  # Klong's symbols and characters are kinds of str
    if isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            raise Unfit(f"expected an integer of 64 bits, got {_name(value)} at {where}")
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(k): _value(v, f"{where}.{k}", depth + 1) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview)):
        return [_value(v, f"{where}[{i}]", depth + 1) for i, v in enumerate(value)]
    if not isinstance(value, (list, dict)):
        if np.isscalar(value) and isinstance(value, (int, float)):
            return value
        raise Unfit(f"expected a number, text, a list or a map, got {_name(value)} at {where}")
    return value
