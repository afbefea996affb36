"""The pages about operators and libraries, written from the table and the libraries themselves.

`python -m penstock.factor.reference docs` renews docs/operators.md and docs/libraries.md; a test compares them.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from penstock.factor import ops as _ops
from penstock.factor.factors import Factors
from penstock.factor.graph import Node, field, formula, topological
from penstock.factor.libraries import LIBRARIES, alpha158, alpha360, library, ta
from penstock.factor.lookback import endless, lookbacks, own
from penstock.factor.table import TABLE, Kind, Operator

__all__ = ["PAGES", "libraries", "operators", "sections"]

assert _ops  # fills the table

_KINDS = {
    Kind.ELEMENTWISE: "On one row and symbol",
    Kind.WINDOWED: "Along time",
    Kind.CROSS: "Over the symbols of a row",
    Kind.COMPOSITE: "Made of others",
}
_SIGNS = {
    "add": "x + y", "sub": "x - y", "mul": "x * y", "div": "x / y", "neg": "-x", "pow": "x ** y", "lt": "x < y",
    "le": "x <= y", "gt": "x > y", "ge": "x >= y", "eq": "x == y", "ne": "x != y", "and_": "x & y", "or_": "x | y",
    "not_": "~x",
}  # fmt: skip
_WORDS = ("State", "Cost", "Error", "Source", "Unit")
_WORD = re.compile(rf"(?:^|\s{{2,}})({'|'.join(_WORDS)})\s{{2,}}")

_HEAD = """\
# The operators

Written by `python -m penstock.factor.reference docs` from the operator table; a test compares them. In Python an
operator is `f.NAME(...)`, and `help(f.ts_std)` shows its record; in text any of its names will do, in any case. The
guide is [factors.md](factors.md).

Operands (`x`, `y`, `group` …) have a value per row and symbol; other arguments are numbers. What comes out has a value
per row and symbol as well, all in the program's dtype. A window of `n` rows is this row and the `n - 1` before it.
Missing values are NaN. Each entry says

* **NaN**: where the value is NaN, beside the rows before the operator is warm.
* **Warm**: after how many rows a value no longer depends on what was before the first one. It is NaN until then.
* **State**: values kept per symbol. They are rows of the operands, shared by all that look back on the same one.
* **Unit**: u is that of `x`.
* **Cost** per row and symbol.
* **Error**: the most by which a value may differ from the exact one. ε is the dtype's step at 1 (2.2e-16 for float64,
  1.2e-7 for float32); the scale is the larger of the value and the window's largest input, squared where the unit is
  u²; where there is no unit, it is the larger of the value and 1. It holds for windows up to 64 rows and grows with the
  root of their length at most; where deviations are divided by deviations, also with the largest input over the
  spread. "exact" is: each written operation rounds as IEEE 754 says, and nothing else does.

All engines, all ways to cut history, and all numbers of threads give the same bits.
"""


def sections(operator: Operator) -> tuple[str, dict[str, str]]:
    """An operator's docstring as its text and what its sections say: State, Cost, Error, Source, Unit."""
    text: list[str] = []
    found: dict[str, str] = {}
    for line in operator.doc.splitlines():
        parts = _WORD.split(line)
        if len(parts) == 1:
            text.append(line)
            continue
        found.update((word, said.strip()) for word, said in zip(parts[1::2], parts[2::2], strict=True))
    return "\n".join(text).strip(), found


def operators() -> str:
    """The text of docs/operators.md."""
    lines = [_HEAD]
    groups = {kind: [one for one in TABLE.values() if one.kind is kind and _own(one)] for kind in _KINDS}
    for kind, title in _KINDS.items():
        simple = kind is Kind.ELEMENTWISE
        names = ", ".join(f"`{one.name}`" if simple else f"[{one.name}](#{one.name})" for one in groups[kind])
        lines.append(f"* {title}: {names}.")
    for kind, title in _KINDS.items():
        lines.append(f"\n## {title}")
        if kind is Kind.ELEMENTWISE:
            lines += [*_SIMPLE, *map(_row, groups[kind])]
            continue
        for one in groups[kind]:
            lines += ["", *_entry(one)]
    return "\n".join(lines) + "\n"


def _own(operator: Operator) -> bool:
    """Whether it is one of ours: a user may have added others in this process."""
    return str(operator.step.__module__).startswith("penstock.factor.ops.")


_SIMPLE = [
    "",
    "Warm at once, without state, O(1).",
    "",
    "| call | also | value | NaN | error |",
    "|---|---|---|---|---|",
]


def _row(operator: Operator) -> str:
    text, said = sections(operator)
    call = f"`{operator.usage()}`" + (f", `{_SIGNS[operator.name]}`" if operator.name in _SIGNS else "")
    names = ", ".join(f"`{name}`" for name in operator.aliases)
    cells = [call, names, " ".join(text.split()), _nan(operator), _error(operator, said)]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _nan(operator: Operator) -> str:
    return operator.nan.removeprefix("NaN ")


def _entry(operator: Operator) -> Iterator[str]:
    text, said = sections(operator)
    names = ", ".join(f"`{name}`" for name in operator.aliases)
    yield f"### {operator.name}"
    yield ""
    yield f"`{operator.usage()}`{f'; also {names}' if names else ''}{_bounds(operator)}"
    yield ""
    yield text
    yield ""
    yield f"* **NaN**: {_nan(operator)}. **Warm**: {_warm(operator)}. **State**: {_state(operator)}."
    cost = said.get("Cost", _cost(operator)).rstrip(".").removesuffix(" per row")
    unit = said.get("Unit", _unit(operator)).rstrip(".")
    yield f"* **Unit**: {unit}. **Cost**: {cost}. **Error**: {_error(operator, said)}."
    if operator.kind is Kind.COMPOSITE:
        made = formula(operator.step(*_bare(operator, 10).args, **_attributes(operator, 10)))
        yield f"* **Is** `{made}`{_for(operator)}."
    if "Source" in said:
        yield f"* **Source**: {said['Source'].rstrip('.')}."


def _bounds(operator: Operator) -> str:
    least = [(p.name, p.least if p.least is not None else 1) for p in operator.attributes if p.kind == "Rows"]
    parts = [f"`{name}` at least {number:g}" for name, number in least]
    parts += [f"`{p.name}` from 0 to 1" for p in operator.attributes if p.kind == "Share"]
    return f". {', '.join(parts)}." if parts else "."


def _attributes(operator: Operator, n: int) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for p in operator.attributes:
        made[p.name] = n if p.kind == "Rows" else 0.25 if p.kind == "Share" and p.required else p.default
    return made


def _bare(operator: Operator, n: int) -> Node:
    return operator(*[field(p.name) for p in operator.operands], **_attributes(operator, n))


def _for(operator: Operator) -> str:
    rows = [p.name for p in operator.attributes if p.kind == "Rows"]
    return f" for {rows[0]} = 10" if rows else ""


def _parts(operator: Operator, n: int) -> list[Node]:
    import numpy as np

    from penstock.factor.passes import expand

    return list(topological(expand(Factors(x=_bare(operator, n)), np.dtype(np.float64)).values()))


def _line(operator: Operator, low: int, high: int) -> str:
    """What is `low` for 10 rows and `high` for 20, as a text of n."""
    name = next((p.name for p in operator.attributes if p.kind == "Rows"), "n")
    slope, rest = divmod(high - low, 10)
    assert rest == 0, operator.name
    offset = low - 10 * slope
    if not slope:
        return str(offset)
    return f"{'' if slope == 1 else f'{slope} '}{name}" + (
        f" {'+' if offset > 0 else '-'} {abs(offset)}" if offset else ""
    )


def _warm(operator: Operator) -> str:
    few, many = (_parts(operator, n) for n in (10, 20))
    if any(endless(node) for node in few):
        return "from the first value on, and it never forgets"
    low, high = (max(lookbacks(nodes).values()) for nodes in (few, many))
    if not low and not high:
        return "at once"
    backs = own(few[-1]) if operator.kind is Kind.WINDOWED else (low,)
    which = f" of `{operator.operands[0].name}`" if len(set(backs)) > 1 else ""
    return f"after {_line(operator, low, high)} rows{which}"


def _state(operator: Operator) -> str:
    from penstock.factor.program import compile

    low, high = (compile({"out": _bare(operator, n)}, engine="numpy").layout.rows for n in (10, 20))
    text = _line(operator, low, high)
    return ("1 value" if text == "1" else f"{text} values") if low else "none"


def _cost(operator: Operator) -> str:
    return "that of its parts" if operator.kind is Kind.COMPOSITE else "O(1)"


def _unit(operator: Operator) -> str:
    return {0: "none", 1: "u", 2: "u²"}[operator.degree]


def _error(operator: Operator, said: dict[str, str]) -> str:
    if not operator.tolerance:
        return "exact"
    scale = "" if operator.kind is Kind.ELEMENTWISE else " of the scale"
    more = f"; {said['Error'].rstrip('.')}" if "Error" in said else ""
    return f"{operator.tolerance:g} ε{scale}{more}"


# ---- libraries ----

_LIBRARIES = """\
# The libraries

Written by `python -m penstock.factor.reference docs` from the libraries themselves; a test compares them.
`f.library(NAME)` gives one, `f.library(NAME)["FACTOR"]` a factor, `.select("A", "B")` some of them, `.explain("A")` its
formula and how it is read. On the command line: `penstock factor list NAME`. The guide is [factors.md](factors.md).
"""


def libraries() -> str:
    """The text of docs/libraries.md."""
    from penstock.factor.program import compile

    lines = [_LIBRARIES, "| library | factors | what it is | warm after |", "|---|---|---|---|"]
    for name, text in LIBRARIES.items():
        made = library(name)
        program = compile(made, engine="numpy")
        forever = f", {len(program.endless)} never forget" if program.endless else ""
        lines.append(f"| `{name}` | {len(made)} | {text} | {program.warmup} rows{forever} |")
    lines += [
        "",
        "## alpha101",
        "",
        "[alpha101.md](alpha101.md) has each formula, how it is read, and where others differ.",
        "",
    ]
    lines += ["## alpha158", "", _about(alpha158), "", "| factor | formula |", "|---|---|"]
    lines += [f"| `{name}` | `{text}` |" for name, text in alpha158.BARS.items()]
    days = ", ".join(map(str, alpha158.WINDOWS))
    lines += ["", f"And families over d rows, {days} unless others are asked for (`ROC5`, `ROC10` …):", ""]
    lines += ["| family | formula |", "|---|---|"]
    lines += [f"| `{name}` | `{text}` |" for name, text in alpha158.ROLLING.items()]
    lines += ["", "## alpha360", "", _about(alpha360), "", "## ta", "", _about(ta), ""]
    lines += ['As functions, with TA-Lib\'s defaults; `f.library("ta")` has each of them at these:', ""]
    lines += ["| function | what it is |", "|---|---|"]
    for name in ta.__all__:
        made = getattr(ta, name)
        if inspect.isfunction(made) and name != "build":
            lines.append(f"| `{_signature(name, made)}` | {str(made.__doc__).partition(chr(10))[0]} |")
    parts = [name for name in library("ta") if name not in ta.__all__]
    lines += ["", f"Those with several results are, in the library, {', '.join(f'`{name}`' for name in parts)}."]
    return "\n".join(lines) + "\n"


def _about(module: Any) -> str:
    """A module's docstring as Markdown: its first line, and what follows the code below it."""
    text = inspect.cleandoc(str(module.__doc__))
    blocks = text.split("\n\n")
    code = [block for block in blocks if block.startswith("    ")]
    words = [block for block in blocks if not block.startswith("    ")]
    made = [words[0]]
    made += [f"```python no-run\n{inspect.cleandoc(chr(10) + block)}\n```" for block in code]
    return "\n\n".join([*made, *words[1:]])


def _signature(name: str, function: Any) -> str:
    given = inspect.signature(function).parameters.values()
    parts = [p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in given]
    return f"{name}({', '.join(parts)})"


PAGES = {"operators.md": operators, "libraries.md": libraries}
"""By file of docs/, what writes it."""


if __name__ == "__main__":
    for page, render in PAGES.items():
        (Path(sys.argv[1] if len(sys.argv) > 1 else "docs") / page).write_text(render(), "utf-8")
