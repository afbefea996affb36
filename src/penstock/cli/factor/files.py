"""Files of factors: Python, TOML, and lines `name = expression`."""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from penstock.errors import FactorError, PenstockError, SourceError, UsageError

if TYPE_CHECKING:
    from penstock.factor import Factors, Node

__all__ = ["NAMED", "SUFFIXES", "from_file"]

NAMED = re.compile(r"\s*([^\W\d][\w.]*)\s*=(?!=)(.*)\Z", re.DOTALL)
"""`name = expression`."""

SUFFIXES = (".py", ".toml", ".factors", ".txt")
"""What files of factors are named."""


def from_file(path: Path, chosen: str, files: dict[Path, ModuleType]) -> Factors:
    """The factors of a file, or those of `chosen`, names with commas; `files`: modules that were run already.

    Raises  UsageError for a file or names there are not; FactorError and SourceError, with the line, for what is in it.
    """
    from penstock.factor import Factors

    if not path.is_file():
        near = []
        if path.parent.is_dir():
            near = difflib.get_close_matches(path.name, [p.name for p in path.parent.iterdir()], n=3)
        what = "a folder" if path.is_dir() else "none of that name"
        hint = f"did you mean {' or '.join(near)}" if near and not path.is_dir() else None
        raise UsageError(expected="a file of factors", got=what, where=f"at {path}", hint=hint)
    suffix = path.suffix.lower()
    if suffix == ".py":
        return _python(path, chosen, files)
    if suffix not in SUFFIXES:
        raise UsageError(expected=f"a file named {', '.join(SUFFIXES)}", got=repr(path.name), where=f"at {path}")
    texts = _toml(path) if suffix == ".toml" else _lines(path)
    made = Factors(_parsed(texts, path))
    return _chosen(made, chosen, path) if chosen else made


def _chosen(made: Factors, chosen: str, path: Path) -> Factors:
    from penstock.factor import Factors

    names = [name.strip() for name in chosen.split(",") if name.strip()]
    for name in names:
        if name not in made:
            near = difflib.get_close_matches(name, made, n=3)
            hint = f"did you mean {' or '.join(near)}" if near else f"it has {', '.join([*made][:10])}"
            raise UsageError(f"there is no factor {name!r}", where=f"in {path}", hint=hint)
    return Factors({name: made[name] for name in names})


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise SourceError(
            expected="text in UTF-8", got=f"byte {error.object[error.start]:#04x}", where=f"at {path}"
        ) from error


# ---- texts ----


def _lines(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line, name, expression) of `name = expression`; an indented line goes on, `#` begins a comment."""
    held: list[Any] = []
    for number, raw in enumerate(_read(path).splitlines(), 1):
        line = raw.partition("#")[0].rstrip()
        if not line.strip():
            continue
        if line[0].isspace():
            if not held:
                raise FactorError(expected="name = expression", got=repr(line), where=f"at {path}:{number}")
            held[2] += " " + line.strip()
            continue
        named = NAMED.match(line)
        if named is None:
            raise FactorError(
                expected="name = expression",
                got=repr(line),
                where=f"at {path}:{number}",
                hint="indent a line that goes on; # begins a comment",
            )
        if held:
            yield held[0], held[1], held[2]
        held = [number, named[1], named[2].strip()]
    if held:
        yield held[0], held[1], held[2]


def _toml(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line, name, expression) of `name = "expression"`, below `[factors]` if there is such a table."""
    import tomllib

    text = _read(path)
    try:
        data: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SourceError(f"the file is no TOML: {error}", where=f"at {path}") from error
    if isinstance(data.get("factors"), dict):
        data = data["factors"]
    for name, value in data.items():
        found = re.search(rf"^\s*[\"']?{re.escape(name)}[\"']?\s*=", text, re.MULTILINE)
        line = 1 if found is None else text.count("\n", 0, found.end()) + 1
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            got = "a table" if isinstance(value, dict) else repr(value)
            raise FactorError(expected=f"an expression for {name!r}", got=got, where=f"at {path}:{line}")
        yield line, name, str(value)


def _parsed(texts: Iterator[tuple[int, str, str]], path: Path) -> dict[str, Node]:
    """Expressions, which may use those before them by name; a name that begins with _ is such a part only."""
    from penstock.factor import Factors, parse

    known: dict[str, Node] = {}
    for line, name, text in texts:
        where = f"at {path}:{line}"
        if name in known:
            raise FactorError(f"there are two factors called {name!r}", where=where, hint="rename one")
        known[name] = parse(text, names=known, where=where)
        try:
            Factors({name: known[name]})
        except FactorError as error:
            error.where = where
            raise
    made = {name: node for name, node in known.items() if not name.startswith("_")}
    if not made:
        raise FactorError("there is no factor in the file", where=f"at {path}", hint="name = expression")
    return made


# ---- Python ----


def _python(path: Path, chosen: str, files: dict[Path, ModuleType]) -> Factors:
    from penstock.factor import Factors
    from penstock.factor.libraries import Library

    place = path.resolve()
    if place not in files:
        files[place] = _loaded(path)
    names = vars(files[place])
    if not chosen:
        mine = [x for n, x in names.items() if isinstance(x, Factors) and not isinstance(x, Library) and n[0] != "_"]
        if not mine:
            hint = "mine = f.Factors(name=expression, ...) at its top level; a library is named: mine.py:name"
            raise UsageError("there is no Factors in the file", where=f"at {path}", hint=hint)
        joined = Factors()
        for one in dict.fromkeys(map(id, mine)):
            joined = joined | next(x for x in mine if id(x) == one)
        return joined
    joined = Factors()
    for name in filter(None, map(str.strip, chosen.split(","))):
        joined = joined | _object(names, name, path)
    return joined


def _object(names: Mapping[str, Any], name: str, path: Path) -> Factors:
    from penstock.factor import Factors, Node

    there = {n: x for n, x in names.items() if isinstance(x, (Factors, Node)) or (isinstance(x, dict) and n[0] != "_")}
    if name not in there:
        near = difflib.get_close_matches(name, there, n=3)
        hint = f"did you mean {' or '.join(near)}" if near else f"it has {', '.join(there) or 'no factors'}"
        got = f"a {type(names[name]).__name__}" if name in names else "nothing of that name"
        raise UsageError(expected=f"factors called {name!r}", got=got, where=f"in {path}", hint=hint)
    found = there[name]
    return Factors({name: found}) if isinstance(found, Node) else Factors(found)


def _loaded(path: Path) -> ModuleType:
    """The file, run as Python runs a script: it imports what lies beside it."""
    name = f"penstock_factors_{re.sub(r'[^0-9A-Za-z_]', '_', path.stem)}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    sys.modules[name] = module
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what it prints is no result of ours
            spec.loader.exec_module(module)
    except SyntaxError as error:
        file = path if error.filename is None or _same(error.filename, path) else error.filename
        where = f"at {file}:{error.lineno}"
        raise SourceError(f"the file is no Python: {error.msg}", where=where) from error
    except (Exception, SystemExit) as error:
        line = _line(error, path)
        where = f"at {path}:{line}" if line else f"at {path}"
        if isinstance(error, PenstockError):
            error.where = f"{error.where}, {where}" if error.where else where
            raise
        raise SourceError(f"the file raised {type(error).__name__}: {error}", where=where) from error
    finally:
        sys.path.remove(folder)
    return module


def _same(name: str, path: Path) -> bool:
    return Path(name).resolve() == path.resolve()


def _line(error: BaseException, path: Path) -> int | None:
    """The last line of the file that led to the error."""
    trace, line = error.__traceback__, None
    while trace is not None:
        if _same(trace.tb_frame.f_code.co_filename, path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
