"""Handlers in Python: `module:function`, `file.py:function`, `file.py` (its `onmsg`, or `oncols`)."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["ENTRIES", "answer", "load"]

ENTRIES = ("onmsg", "oncols")
"""Of messages (a list of dicts), and of columns (a dict of arrays)."""


def load(spec: str, source: bytes | None = None) -> tuple[Callable[[Any], Any], bool]:
    """The function, and whether it takes columns: it is `oncols`, or its only parameter is named `col…`.

    Takes   spec: as above. A file is run afresh each time, a module imported (again); source: what is in
            the file, None to read it.
    Raises  LookupError, TypeError, and whatever the file itself raises.
    """
    place, _, name = spec.rpartition(":") if ":" in spec else (spec, "", "")
    namespace = _file(Path(place), source) if place.endswith(".py") else _module(place)
    if not name:
        name = next((entry for entry in ENTRIES if callable(namespace.get(entry))), "")
        if not name:
            raise LookupError(f"{place} defines neither onmsg nor oncols")
    found = namespace.get(name)
    if found is None:
        raise LookupError(f"{place} defines no {name!r}")
    if not callable(found):
        raise TypeError(f"{name!r} of {place} is {type(found).__name__}, not a function")
    return found, name == "oncols" or _takes_columns(found)


def answer(spec: str) -> Callable[[Any], Any] | None:
    """The function `onask` beside the handler that `load` has just found, if there is one."""
    place = spec.rpartition(":")[0] if ":" in spec else spec
    module = sys.modules.get("penstock_handler" if place.endswith(".py") else place)
    found = getattr(module, "onask", None)
    return found if callable(found) else None


def _takes_columns(function: Callable[..., Any]) -> bool:
    try:
        names = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return False
    return len(names) == 1 and names[0].startswith("col")


def _file(path: Path, source: bytes | None) -> dict[str, Any]:
    code = compile(path.read_bytes() if source is None else source, str(path), "exec")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    spec = importlib.util.spec_from_loader("penstock_handler", loader=None, origin=str(path))
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = str(path)
    sys.modules["penstock_handler"] = module  # dataclasses look their module up
    exec(code, module.__dict__)
    return module.__dict__


def _module(name: str) -> dict[str, Any]:
    known = sys.modules.get(name)
    return (importlib.reload(known) if known is not None else importlib.import_module(name)).__dict__
