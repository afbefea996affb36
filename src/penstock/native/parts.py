"""A module's text as several that call each other, so that threads can translate it side by side."""

from __future__ import annotations

import re

__all__ = ["split"]

_NAME = re.compile(r"@([\w.]+)")


def split(text: str, count: int) -> list[str]:
    """The same functions in the same order in so many modules of about the same size.

    Takes   text: functions (`define … {`, `}` alone in a line), tables (`@x = internal constant [n x t] …`)
            and what all of them may want: declarations, attributes, numbered metadata.
    Returns the modules. What one takes from another is declared there and no longer internal.
    """
    head, *rest = text.split("\ndefine ")
    others, functions = head.split("\n"), []
    for one in rest:
        body, _, after = one.partition("\n}")
        functions.append(f"define {body}\n}}")
        others += after.split("\n")
    tables = {_named(line): line for line in others if line.startswith("@")}
    common = [line for line in others if line and not line.startswith("@")]
    heads = {_named(one): one.partition("\n")[0] for one in functions}
    parts: list[list[str]] = [[] for _ in range(count)]
    total, seen = sum(map(len, functions)), 0
    for one in functions:
        parts[seen * count // total].append(one)
        seen += len(one)
    # Tables are the first one's.
    wants = [{name for one in part for name in _NAME.findall(one)} for part in parts]
    wants[0].update(name for line in tables.values() for name in _NAME.findall(line))
    made = []
    for i, part in enumerate(parts):
        there = {_named(one) for one in part} | (set(tables) if i == 0 else set())
        asked = set().union(*(names for j, names in enumerate(wants) if j != i))
        lines = list(common)
        lines += [_declared(heads[name]) for name in heads if name in wants[i] and name not in there]
        for name, line in tables.items():
            if i == 0:
                lines.append(line.replace("= internal ", "= ", 1) if name in asked else line)
            elif name in wants[i]:
                lines.append(line.partition("]")[0].replace("= internal ", "= external ", 1) + "]")
        lines += [one.replace("define internal ", "define ", 1) if _named(one) in asked else one for one in part]
        made.append("\n".join([*lines, ""]))
    return made


def _named(line: str) -> str:
    found = _NAME.search(line)
    assert found is not None
    return found[1]


def _declared(head: str) -> str:
    return head.replace("define internal ", "declare ", 1).replace("define ", "declare ", 1).rstrip(" {")
