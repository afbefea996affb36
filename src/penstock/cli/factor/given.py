"""FACTORS as they are typed: a library, a choice of it, a file, or an expression."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from penstock.cli.factor.files import NAMED, SUFFIXES, from_file
from penstock.errors import FactorError, UsageError

if TYPE_CHECKING:
    from penstock.factor import Factors

__all__ = ["FORMS", "factors_of", "sources_of"]

FORMS = "a library (alpha101, alpha158, alpha360, ta), LIBRARY:NAME,NAME, a .py, .toml or .factors file, an expression"
_EXPRESSION = re.compile(r"[()+*/<>=?$&|^\s]|^-")


def factors_of(given: Sequence[str], expressions: Sequence[str] = ()) -> Factors:
    """The factors of all that was given, in that order.

    Takes   given: words, each one of FORMS; expressions: texts that are expressions, or `name = expression`.
    Returns factors by name; an expression without a name is `factor`, or `factor1`, `factor2` … if there are several.
    Raises  UsageError for words that are nothing and for texts that cannot be read; FactorError and SourceError for
            files, with their line.
    """
    from penstock.factor import Factors

    found = Factors()
    files: dict[Path, ModuleType] = {}
    texts = [text for text in given if _is_expression(text)] + [*expressions]
    unnamed = sum(NAMED.match(text) is None for text in texts)
    count = 0
    for text in given:
        if _is_expression(text):
            count += NAMED.match(text) is None
            found = found | _inline(text, count, unnamed)
        else:
            found = found | _word(text, files)
    for text in expressions:
        count += NAMED.match(text) is None
        found = found | _inline(text, count, unnamed)
    if not found:
        raise UsageError("no factors are given", hint=f"give {FORMS}")
    return found


def sources_of(given: Sequence[str]) -> dict[str, str]:
    """For factors of libraries, by name, the formula as it was published."""
    from penstock.factor import library
    from penstock.factor.libraries import LIBRARIES

    found: dict[str, str] = {}
    for text in given:
        name = text.partition(":")[0]
        if name in LIBRARIES:
            whole = library(name)
            found.update((one, whole.source(one)) for one in whole)
    return found


def _is_expression(text: str) -> bool:
    from penstock.factor.libraries import LIBRARIES

    name = text.partition(":")[0]
    if name in LIBRARIES or Path(name).suffix.lower() in SUFFIXES or Path(text).exists():
        return False
    return _EXPRESSION.search(text) is not None


def _inline(text: str, number: int, of: int) -> Factors:
    from penstock.factor import Factors

    named = NAMED.match(text)
    name = named[1] if named else "factor" if of == 1 else f"factor{number}"
    try:
        return Factors({name: named[2] if named else text})
    except FactorError as error:
        raise UsageError(
            error.problem, expected=error.expected, got=error.got, where=error.where, hint=error.hint
        ) from error


def _word(text: str, files: dict[Path, ModuleType]) -> Factors:
    from penstock.factor.libraries import LIBRARIES

    name, _, chosen = text.partition(":")
    if name in LIBRARIES:
        return _library(name, chosen)
    path = Path(name).expanduser()
    if path.suffix.lower() in SUFFIXES or path.exists():
        return from_file(path, chosen, files)
    near = difflib.get_close_matches(name, LIBRARIES, n=2)
    beside = difflib.get_close_matches(
        name, [p.name for p in Path().iterdir() if p.suffix in SUFFIXES], n=2, cutoff=0.5
    )
    hint = f"did you mean {' or '.join(near + beside)}" if near or beside else f"give {FORMS}"
    if not near and text.isidentifier():
        hint += f'; an input column alone is -e "{text}"'
    raise UsageError(expected="factors", got=repr(text), hint=hint)


def _library(name: str, chosen: str) -> Factors:
    from penstock.factor import library

    whole = library(name)
    names: list[str] = []
    for word in filter(None, map(str.strip, chosen.split(","))):
        like = [one for one in whole if fnmatchcase(one, word)] if any(c in word for c in "*?[") else [word]
        if not like:
            raise UsageError(f"library {name!r} has no factor like {word!r}", hint=f"penstock factor list {name}")
        names += like
    if not names:
        return whole
    try:
        return whole.select(*dict.fromkeys(names))
    except FactorError as error:
        raise UsageError(error.problem, hint=error.hint) from error
