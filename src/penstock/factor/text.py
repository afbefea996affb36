"""Text to graph: `"-1 * correlation(rank(open), rank(volume), 10)"`, `"Mean($close, 5) / $close"`.

Operators, loosest first: `c ? a : b`, `||`, `&&`, `!`, comparison, `+ -`, `* /`, unary `-`, `^` or `**`. A name is an
input column (`$close` and `close` are the same), a call is an operator under its name or an alias, in any case
(`Ts_Rank`). Some spellings mean in text what they mean in their sources: `max(x, 5)` and `min(x, 5)` with a whole
number are `ts_max` and `ts_min` (WorldQuant); `Max`, `Min` and `Rank` of two arguments are over time (Qlib; the rank is
a share).
"""

from __future__ import annotations

import difflib
import inspect
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, NoReturn

from penstock.errors import FactorError
from penstock.factor import ops as _ops
from penstock.factor.graph import Node, constant, field, operand
from penstock.factor.table import ALIASES, TABLE, Operator

__all__ = ["parse"]

assert _ops  # fills the table

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>\$?[^\W\d]\w*(?:\.[^\W\d]\w*)*)"
    r"|(?P<sign>\*\*|<=|>=|==|!=|&&|\|\||[-+*/^<>!~&|?:(),=]))"
)
_OTHERS = {"and": "&&", "or": "||", "not": "!", "=": "=="}
_COMPARE = {"<": "lt", "<=": "le", ">": "gt", ">=": "ge", "==": "eq", "!=": "ne"}
_DEEP = 64  # a level of parentheses takes ten frames of a stack of a thousand


def parse(
    text: str,
    *,
    names: Mapping[str, Node] | None = None,
    functions: Mapping[str, Callable[..., Node]] | None = None,
    fractional: Literal["refuse", "floor"] = "refuse",
    where: str | None = None,
) -> Node:
    """The expression that `text` describes.

    Takes   names: what a name stands for if not an input column (`{"adv20": f.ts_mean(amount, 20)}`);
            functions: what a call stands for, in lower case, before the table is asked; it is given nodes;
            fractional: what to do with windows such as 8.93, "floor" being the convention of WorldQuant's paper;
            where: place for error messages.
    Raises  FactorError with the column of what cannot be read.
    """
    if not isinstance(text, str):
        raise FactorError(expected="the text of an expression", got=type(text).__name__, where=where)
    if fractional not in ("refuse", "floor"):
        raise FactorError(expected="fractional 'refuse' or 'floor'", got=repr(fractional), where=where)
    return _Parser(text, dict(names or {}), dict(functions or {}), fractional, where).whole()


class _Parser:
    """One pass over the tokens, one method per level of the grammar."""

    def __init__(
        self,
        text: str,
        names: dict[str, Node],
        functions: dict[str, Callable[..., Node]],
        fractional: str,
        where: str | None,
    ) -> None:
        self.text, self.names, self.functions, self.fractional, self.where = text, names, functions, fractional, where
        self.tokens: list[tuple[str, str, int]] = []
        self.at = 0
        self.depth = 0
        position = 0
        while position < len(text.rstrip()):
            match = _TOKEN.match(text, position)
            if match is None:
                start = position + len(text[position:]) - len(text[position:].lstrip())
                self.fail(f"cannot read {text[start]!r}", start)
            kind = str(match.lastgroup)
            self.tokens.append((kind, match[kind], match.start(kind)))
            position = match.end()
        self.tokens.append(("end", "the end", len(text)))

    def fail(self, problem: str, column: int | None = None, hint: str | None = None) -> NoReturn:
        column = self.tokens[self.at][2] if column is None else column
        around = self.text[max(0, column - 30) : column + 30]
        place = f"at column {column + 1}, near {around!r}"
        raise FactorError(
            problem, where=f"{self.where}, {place}" if self.where else place, hint=hint, column=column + 1
        )

    def peek(self, *signs: str) -> bool:
        kind, value, _ = self.tokens[self.at]
        return kind == "sign" and value in signs

    def take(self, *signs: str) -> str | None:
        if self.peek(*signs):
            self.at += 1
            return self.tokens[self.at - 1][1]
        return None

    def expect(self, sign: str) -> None:
        if not self.take(sign):
            self.fail(f"expected {sign!r}, got {self.tokens[self.at][1]!r}")

    def whole(self) -> Node:
        if len(self.tokens) == 1:
            self.fail("the expression is empty", 0)
        node = self.ternary()
        if self.tokens[self.at][0] != "end":
            self.fail(f"expected an operator or the end, got {self.tokens[self.at][1]!r}", hint=self.meant())
        return node

    def meant(self) -> str | None:
        """How to write what stands here, or just before, in another language."""
        near = [value for _, value, _ in self.tokens[max(0, self.at - 1) : self.at + 1]]
        return next((f"write {_OTHERS[value]}" for value in reversed(near) if value in _OTHERS), None)

    def ternary(self) -> Node:
        self.depth += 1
        if self.depth > _DEEP:
            self.fail(f"nested more than {_DEEP} deep", hint="name the parts in Python")
        node = self.either()
        if self.take("?"):
            first = self.ternary()
            self.expect(":")
            node = Node("where", (node, first, self.ternary()))
        self.depth -= 1
        return node

    def either(self) -> Node:
        node = self.both()
        while self.take("||", "|"):
            node = Node("or_", (node, self.both()))
        return node

    def both(self) -> Node:
        node = self.negated()
        while self.take("&&", "&"):
            node = Node("and_", (node, self.negated()))
        return node

    def negated(self) -> Node:
        count = 0
        while self.take("!", "~"):
            count += 1
        node = self.comparison()
        for _ in range(count):
            node = Node("not_", (node,))
        return node

    def comparison(self) -> Node:
        node = self.sum()
        sign = self.take(*_COMPARE)
        if sign:
            node = Node(_COMPARE[sign], (node, self.sum()))
            if self.peek(*_COMPARE):
                self.fail("a comparison of a comparison", hint="write (a < b) & (b < c)")
        return node

    def sum(self) -> Node:
        node = self.product()
        while sign := self.take("+", "-"):
            node = Node("add" if sign == "+" else "sub", (node, self.product()))
        return node

    def product(self) -> Node:
        node = self.unary()
        while sign := self.take("*", "/"):
            node = Node("mul" if sign == "*" else "div", (node, self.unary()))
        return node

    def unary(self) -> Node:
        signs: list[int] = [0]  # minuses before the first ~, between it and the next, …
        while sign := self.take("-", "+", "~"):
            if sign == "~":
                signs.append(0)
            else:
                signs[-1] += sign == "-"
        node = self._minus(self.power(), signs[-1])
        for count in reversed(signs[:-1]):
            node = self._minus(Node("not_", (node,)), count)
        return node

    @staticmethod
    def _minus(node: Node, signs: int) -> Node:
        if signs and node.op == "const":
            return constant(float(node.attrs[0][1]) * (-1) ** signs)
        for _ in range(signs):
            node = Node("neg", (node,))
        return node

    def power(self) -> Node:
        node = self.primary()
        if self.take("^", "**"):
            self.depth += 1
            if self.depth > _DEEP:
                self.fail(f"nested more than {_DEEP} deep", hint="name the parts in Python")
            node = Node("pow", (node, self.unary()))
            self.depth -= 1
        return node

    def primary(self) -> Node:
        kind, value, column = self.tokens[self.at]
        if self.take("("):
            node = self.ternary()
            self.expect(")")
            return node
        self.at += 1
        if kind == "number":
            if math.isinf(float(value)):
                self.fail(f"the number {value[:20]!r} is too large", column, 'infinity is written "inf"')
            return constant(float(value))
        if kind != "name":
            self.at -= 1
            self.fail(f"expected a number, a name or '(', got {value!r}")
        if self.peek("("):
            return self.call(value, column)
        if value in self.names:
            return operand(self.names[value], f"names[{value!r}]")
        if value.lower() in ("nan", "inf"):
            return constant(float(value))
        name = value.lstrip("$")
        if name.startswith("IndClass."):  # the paper's way to name a classification
            name = name.removeprefix("IndClass.")
        if "." in name:
            self.fail(
                f"cannot read the name {value!r}", column, 'columns are named "close", "$close" or "IndClass.sector"'
            )
        if not name.isidentifier():
            self.fail(f"cannot read the name {value!r}", column, "columns are named by letters, digits and _")
        return field(name)

    def call(self, name: str, column: int) -> Node:
        self.expect("(")
        args: list[Any] = []
        attrs: dict[str, object] = {}
        while not self.peek(")"):
            kind, word, start = self.tokens[self.at]
            if kind == "name" and self.tokens[self.at + 1][1] == "=":
                self.at += 2
                if word in attrs:
                    self.fail(f"{word!r} is given twice", start)
                attrs[word] = self._argument()
            elif attrs:
                self.fail("a plain argument after a named one", start)
            else:
                args.append(self._argument())
            if not self.take(",") and not self.peek(")"):
                self.fail(f"expected ',' or ')', got {self.tokens[self.at][1]!r}", hint=self.meant())
        self.expect(")")
        if name.lower() in self.functions:
            return self._given(name, args, attrs, column)
        operator, args, more = self.resolve(name, args, column)
        for key, value in more.items():
            attrs.setdefault(key, value)
        try:
            return operator(*self._windows(operator, args), **self._named_windows(operator, attrs))
        except FactorError as error:
            hint = error.hint
            if "whole number" in str(error.problem):
                hint = 'round it, or parse with fractional="floor" (the convention of WorldQuant\'s paper)'
            self.fail(str(error.problem or error), column, hint)

    def _given(self, name: str, args: list[Any], attrs: dict[str, object], column: int) -> Node:
        """What a function of the caller's makes of the operands."""
        function = self.functions[name.lower()]
        try:
            inspect.signature(function).bind(*args, **attrs)
        except TypeError as error:
            self.fail(f"{name}: {error}", column)
        except ValueError:
            pass  # a builtin without a signature says itself what it refuses
        try:
            return operand(function(*args, **attrs), f"what {name} gives")
        except FactorError as error:
            self.fail(str(error.problem or error), column, error.hint if error.problem else None)

    def _argument(self) -> Any:
        """An expression, or a True or False that stands alone."""
        word, after = self.tokens[self.at][1], self.tokens[self.at + 1][1] if self.at + 1 < len(self.tokens) else ""
        if word in ("True", "False") and word not in self.names and after in (",", ")"):
            self.at += 1
            return word == "True"
        return self.ternary()

    def _windows(self, operator: Operator, args: list[Any]) -> list[Any]:
        kinds = [p.kind for p in operator.operands + operator.attributes]
        cut = [self._window(kind, arg) for arg, kind in zip(args, kinds, strict=False)]
        return cut + args[len(kinds) :]

    def _named_windows(self, operator: Operator, attrs: dict[str, object]) -> dict[str, object]:
        kinds = {p.name: p.kind for p in operator.attributes}
        return {name: self._window(kinds.get(name), value) for name, value in attrs.items()}

    def _window(self, kind: str | None, value: Any) -> Any:
        """A window by the convention for fractional ones; anything else as it is."""
        if self.fractional != "floor" or kind != "Rows" or not isinstance(value, Node) or value.op != "const":
            return value
        number = float(value.attrs[0][1])
        return constant(float(math.floor(number))) if math.isfinite(number) else value

    def resolve(self, name: str, args: list[Any], column: int) -> tuple[Operator, list[Any], dict[str, object]]:
        """The operator that `name` means for these arguments."""
        windowed = len(args) == 2 and isinstance(args[1], Node) and args[1].op == "const"
        number = float(args[1].attrs[0][1]) if windowed else 0.0
        if name in ("max", "min") and number >= 1 and number.is_integer():
            return TABLE[f"ts_{name}"], args, {}
        if name in ("Max", "Min"):
            return TABLE[f"ts_{name.lower()}"], args, {}
        if name in ("rank", "Rank") and len(args) == 2:
            return TABLE["ts_rank"], args, {"pct": True} if name == "Rank" else {}
        if name == "Rank":
            return TABLE["cs_rank"], args, {}
        found = TABLE.get(ALIASES.get(name, name)) or _folded().get(name.lower())
        if found is None:
            near = difflib.get_close_matches(name.lower(), _folded(), n=3)
            self.fail(f"there is no operator {name!r}", column, f"did you mean {' or '.join(near)}" if near else None)
        return found, args, {}


def _folded() -> dict[str, Operator]:
    """Operators by lower-case name; canonical names win over aliases, and aliases in lower case over others."""
    folded = {alias.lower(): TABLE[name] for alias, name in ALIASES.items()}
    folded.update({alias: TABLE[name] for alias, name in ALIASES.items() if alias.islower()})
    folded.update({name.lower(): operator for name, operator in TABLE.items()})
    return folded
