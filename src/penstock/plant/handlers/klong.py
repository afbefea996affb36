"""Handlers in Klong: a program that defines `onmsg` (of messages) or `oncols` (of columns).

    onmsg::{[a d];d:::{};d,["ev" "AVG"];a::{x?"c"}'x;d,"a",+/a%#a}

Verbs that leave the program (files, Python, processes, sockets, timers) are refused unless the handler is trusted;
that is hardening, the border is the process. `.l` loads programs beside this one. Functions are strict: they assign to
their own variables and to globals that exist. The functions of `bindings.py` are there as `ps_read` … and `ps.read` …:
Klong's names have no underscore, so that the first is rewritten into the second, outside of text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Program", "inside"]

SAFE = frozenset(".E .bkd .cerr .cout .d .e .fl .gradcheck .jacobian .module .p .pc .rn .strict .tc .unsafe .w".split())
"""Verbs that stay inside the program; `.l` is replaced by one that stays in its folder."""

ENTRIES = ("onmsg", "oncols")
_PARAMETERS: tuple[Callable[[Callable[[], Any]], Any], ...] = (
    lambda f: lambda: f(),
    lambda f: lambda x: f(),
    lambda f: lambda x, y: f(),
    lambda f: lambda x, y, z: f(),
)
"""Functions of 0 to 3 arguments: Klong reads the names of parameters."""


_SPELLING = re.compile(r'("(?:[^"]|"")*")|\bps_(?=[a-z])')


def _spelled(source: str) -> str:
    return _SPELLING.sub(lambda found: found[1] or "ps.", source)


class Program:
    """A loaded program. One interpreter, one thread.

    Takes   path: the `.kg` file; source: what is in it, None to read it;
            trusted: all of Klong's verbs, Python and sockets among them;
            extra: functions to add as ps.NAME, with parameters named x, y, z.
    Raises  LookupError if it defines no entry, and what reading it raises.
    """

    def __init__(
        self,
        path: Path,
        source: bytes | None = None,
        *,
        trusted: bool = False,
        extra: Mapping[str, Callable[..., Any]] | None = None,
    ) -> None:
        from klongpy.core import KGCall, KGSym

        self.path = path
        self._call, self._sym = KGCall, KGSym
        self._klong = self._interpreter(trusted)
        for name, function in (extra or {}).items():
            self._klong[f"ps.{name}"] = function
        self._klong(".strict()")
        self._klong(_spelled((path.read_bytes() if source is None else source).decode()))
        found = [name for name in (*ENTRIES, "onask") if self._defines(name)]
        self.entry = next((name for name in ENTRIES if name in found), "")
        self.answers = "onask" in found
        if not found:
            raise LookupError(f"{path} defines neither onmsg nor oncols")

    def _interpreter(self, trusted: bool) -> Any:
        from klongpy import KlongInterpreter

        if trusted:
            from klongpy.repl import create_repl

            return create_repl()[0]
        klong = KlongInterpreter()
        from klongpy.utils import ReadonlyDict

        # The last map of the chain holds the system's verbs; there is no public way to them (klongpy 0.7.1).
        chain = klong._context._context
        verbs = dict(chain[-1])
        for name in verbs:
            if str(name) not in SAFE:
                verbs[name] = self._refused(str(name), verbs[name])
        verbs[self._sym(".l")] = self._wrap(self._load)
        chain[-1] = ReadonlyDict(verbs)
        return klong

    def _wrap(self, function: Callable[..., Any]) -> Any:
        from klongpy.core import KGLambda

        made = KGLambda(function)
        return self._call(made, args=None, arity=made.get_arity())

    def _refused(self, name: str, verb: Any) -> Any:
        def refuse() -> Any:
            raise PermissionError(f"{name} is not available in a handler; run it with --trusted if you trust it")

        arity = min(3, int(getattr(verb, "arity", 0) or 0))
        return self._wrap(_PARAMETERS[arity](refuse))

    def _load(self, x: Any) -> Any:
        folder = self.path.resolve().parent
        asked = str(x)
        for path in (folder / asked, folder / f"{asked}.kg"):
            if path.is_file():
                if not path.resolve().is_relative_to(folder):
                    raise PermissionError(f".l({asked!r}) lies outside {folder}")
                # What it defines belongs beside what the caller defines, not into the scope of this call.
                scope = self._klong._context.pop()
                try:
                    return self._klong(_spelled(path.read_text(encoding="utf-8")))
                finally:
                    self._klong._context.push(scope)
        raise FileNotFoundError(f".l({asked!r}): there is no such program in {folder}")

    def _defines(self, name: str) -> bool:
        from klongpy.core import KGFn

        try:
            return isinstance(self._klong._context[self._sym(name)], KGFn)
        except KeyError:
            return False

    @property
    def columns(self) -> bool:
        return self.entry == "oncols"

    def __call__(self, given: Any) -> Any:
        """What the entry returns for a list of messages, or a dict of columns."""
        return self._apply(self.entry, _columns(given) if self.columns else _messages(given))

    def answer(self, given: Any) -> Any:
        """What `onask` returns."""
        return self._apply("onask", inside(given))

    def _apply(self, name: str, given: Any) -> Any:
        # A function handle would infer the number of arguments, and takes {#x} for a function of none.
        return self._klong.call(self._call(self._sym(name), [given], 1))


def _messages(given: list[dict[str, Any]]) -> Any:
    made = np.empty(len(given), object)
    for i, one in enumerate(given):
        made[i] = {key: inside(value) for key, value in one.items()}
    return made


def _columns(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: np.asarray(column) for name, column in given.items()}


def inside(value: Any) -> Any:
    """A JSON value as Klong has it: a Python list would be taken for a program."""
    if value is None:
        from klongpy.types import KLONG_UNDEFINED

        return KLONG_UNDEFINED
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, Mapping):
        return {key: inside(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        if value and all(isinstance(one, Mapping) for one in value):
            return _messages(list(value))
        plain = all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in value)
        if plain:
            return np.asarray(value)
        made = np.empty(len(value), object)
        for i, one in enumerate(value):
            made[i] = inside(one)
        return made
    return value
