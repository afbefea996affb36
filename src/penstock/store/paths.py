"""Names of tables and keys: paths that cannot lead out of the store.

`historical/minute/AAPL` is key AAPL of table `historical/minute`. No table lies inside another one, so a path has one
meaning. A table is a folder of that name; a key is never a file, so it may be any printable text.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from penstock.errors import UsageError

__all__ = ["check_key", "check_path", "check_table", "has_wildcard", "inside", "near_all"]

PATH_LENGTH: Final = 1000
_TABLE_BYTES: Final = 180
_HINT: Final = 'for example "historical/minute" for a table, "historical/minute/AAPL" for a key of it'


def check_path(path: Any) -> str:
    """`path` if it can name a table, a key, or several by `*`.

    Raises  UsageError: not text, empty, over 1,000 characters, absolute, with empty, `.` or `..` parts, backslashes,
            or characters that cannot be printed (NUL among them).
    """
    if not isinstance(path, str):
        raise _bad("a path as text", repr(path)[:100])
    if len(path) > PATH_LENGTH:
        raise _bad(f"a path of at most {PATH_LENGTH} characters", f"{len(path)} characters")
    shown = repr(path)[:120]
    if not path or path != path.strip():
        raise _bad("a path without blanks at its ends", shown)
    if path.startswith(("/", "~")) or "\\" in path or "://" in path:
        raise _bad("a path inside the store", shown)
    if not path.isprintable():
        raise _bad("a path of printable characters", shown)
    for part in path.split("/"):
        if part in ("", ".", ".."):
            raise _bad("a path without empty parts, `.` and `..`", shown)
    return path


def check_table(name: Any) -> str:
    """`name` if a table can have it: parts of letters, digits and `-_.+`, the first a letter or digit.

    Raises  UsageError.
    """
    path = check_path(name)
    for part in path.split("/"):
        if not part[0].isalnum() or not all(c.isalnum() or c in "-_.+" for c in part) or part.endswith(".parquet"):
            raise _bad("a table name of letters, digits and -_.+ between slashes", repr(path)[:120])
    if len(quote(path, safe="")) > _TABLE_BYTES:
        raise _bad(f"a table name of at most {_TABLE_BYTES} bytes", f"{len(quote(path, safe=''))} bytes")
    return path


def check_key(key: Any, where: str) -> str:
    """`key` if a row can have it: what a path can end with. Raises UsageError."""
    if isinstance(key, str) and 0 < len(key) <= 200 and key.isprintable() and key == key.strip():
        if all(part not in ("", ".", "..") for part in key.split("/")) and "\\" not in key:
            return key
    raise UsageError(
        expected="a key of 1 to 200 printable characters, without `..` and backslashes",
        got=repr(key)[:100],
        where=where,
        hint="rename it, or drop such rows",
    )


def has_wildcard(path: str) -> bool:
    """Whether a path names several keys by `*`, `?` or `[…]`."""
    return any(c in path for c in "*?[")


def inside(root: Path, folder: Path) -> Path:
    """`folder` if it lies in `root` when all links are followed. Raises UsageError."""
    if not folder.resolve().is_relative_to(root.resolve()):
        raise UsageError(
            expected=f"a table inside {root}",
            got=f"a link to {folder.resolve()}",
            where=f"at {folder}",
            hint="move the folder into the store",
        )
    return folder


def near_all(name: str, names: Sequence[str]) -> list[str]:
    """Up to three names like `name`."""
    import difflib

    return difflib.get_close_matches(name, names, 3)


def _bad(expected: str, got: str) -> UsageError:
    return UsageError(expected=expected, got=got, where="in the store", hint=_HINT)
