"""What goes over the wire: requests as JSON in tickets and actions, errors as JSON beside Flight's own.

Knows no socket. A ticket is the JSON of a `Read` or a `Query`, or, for clients of other makes, a path and nothing else.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

import msgspec

from penstock import errors
from penstock.errors import KeyNotFound, PenstockError, StoreError, UsageError

__all__ = [
    "Create",
    "Evict",
    "Health",
    "List",
    "Maintain",
    "Name",
    "Origin",
    "Put",
    "Query",
    "Read",
    "Stats",
    "decode",
    "decode_error",
    "encode",
    "encode_error",
    "ticket",
]

REQUEST_BYTES: Final = 65_536
_ERROR_BYTES: Final = 2400  # an error travels in a header: gRPC takes 8 kB of those, and writes bytes as base64
T = TypeVar("T", bound="_Request")


class _Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A request; a field it does not know is an error."""


class Read(_Request, frozen=True):
    """Rows of a path. Times are ns, or ISO text with its zone."""

    path: str
    start: int | str | None = None
    end: int | str | None = None
    columns: list[str] | None = None
    as_of: int | str | None = None
    revisions: bool = False
    on_corrupt: str = "raise"


class Query(_Request, frozen=True):
    """The answer of an SQL query."""

    sql: str
    start: int | str | None = None
    end: int | str | None = None
    as_of: int | str | None = None


class Put(_Request, frozen=True):
    """Rows for a path: the descriptor of a put.

    who, position  name the first message of the put, the next ones are position + 1, …: what is there is not written
                   again. `retry` says that it may have been sent before.
    """

    path: str
    who: str | None = None
    position: int = 0
    retry: bool = False


class Create(_Request, frozen=True):
    """A new table; schema: an Arrow schema message as base64."""

    name: str
    schema: bytes
    key: str = "symbol"
    time: str = "ts_event"
    identity: list[str] = []
    rows: str = "latest"
    partition: str = "day"
    durability: str | None = None


class Name(_Request, frozen=True):
    """A table's name."""

    name: str


class List(_Request, frozen=True):
    """Names below a prefix."""

    prefix: str = ""


class Evict(_Request, frozen=True):
    """Which frames to let go: of a table or key, all by default."""

    path: str = ""


class Stats(_Request, frozen=True):
    """How much to tell: 0, 1 or 2."""

    level: int = 0


class Health(_Request, frozen=True):
    """Whether all is well."""


class Maintain(_Request, frozen=True):
    """Roll and compact now, a table or all."""

    path: str | None = None
    force: bool = True


class Origin(_Request, frozen=True):
    """How far a source has come in a table."""

    path: str
    who: str


def encode(request: _Request) -> bytes:
    """Of a request, its JSON."""
    return msgspec.json.encode(request)


def decode(data: bytes, kind: type[T], what: str) -> T:
    """A request, of its JSON; nothing at all is one without options.

    Raises  UsageError for what is none, and for one over 64 kB.
    """
    if len(data) > REQUEST_BYTES:
        raise UsageError(
            expected=f"a request of at most {REQUEST_BYTES} bytes", got=f"{len(data)} bytes", where=f"in {what}"
        )
    try:
        return msgspec.json.decode(data or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        known = ", ".join(kind.__struct_fields__)
        raise UsageError(
            expected=f"JSON with {known}", got=str(error)[:200], where=f"in {what}", hint="see docs/store-server.md"
        ) from error


def ticket(data: bytes) -> Read | Query:
    """What a ticket asks for. Raises UsageError."""
    if data.lstrip()[:1] != b"{" and len(data) <= REQUEST_BYTES:
        try:
            return Read(data.decode())
        except UnicodeError:
            raise UsageError(
                expected="a path or JSON", got=repr(data[:60]), where="in a ticket", hint="see docs/store-server.md"
            ) from None
    try:
        fields = msgspec.json.decode(data[:REQUEST_BYTES], type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        fields = {}  # `decode` says what is wrong with it
    return decode(data, Query, "a ticket") if "sql" in fields else decode(data, Read, "a ticket")


# -- errors


class _Error(msgspec.Struct, omit_defaults=True):
    error: str
    problem: str | None = None
    expected: str | None = None
    got: str | None = None
    where: str | None = None
    hint: str | None = None
    facts: dict[str, Any] = {}


_TEXTS: Final = ("problem", "expected", "got", "where", "hint")


def encode_error(error: PenstockError) -> bytes:
    """An error for the wire; long texts are cut, and facts left out, until it fits."""
    texts = {name: getattr(error, name) for name in _TEXTS}
    facts = {}
    for name, value in vars(error).items():
        if name in texts or name.startswith("_"):
            continue
        if value is None or isinstance(value, str | int | float) or _texts(value):
            facts[name] = value
    for length in (1500, 400, 150):
        cut = {name: text and _cut(str(text), length) for name, text in texts.items()}
        data = msgspec.json.encode(_Error(type(error).__name__, **cut, facts=facts))
        if len(data) <= _ERROR_BYTES:
            return data
        facts = {name: value for name, value in facts.items() if not isinstance(value, str | list) or len(value) < 100}
    return msgspec.json.encode(_Error(type(error).__name__, _cut(str(error), 150)))


def _texts(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= 5 and all(isinstance(v, str) and len(v) < 250 for v in value)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def decode_error(data: bytes) -> PenstockError:
    """The error that a server sent, of its class."""
    try:
        found = msgspec.json.decode(data, type=_Error)
    except (msgspec.DecodeError, UnicodeError):
        return StoreError("the server failed, and did not say how", where="at the store's server")
    kind = getattr(errors, found.error, None)
    if not (isinstance(kind, type) and issubclass(kind, PenstockError)):
        kind = StoreError
    facts = {name: value for name, value in found.facts.items() if name.isidentifier() and name not in _TEXTS}
    if issubclass(kind, KeyNotFound):
        facts.setdefault("near", [])
    texts = {name: getattr(found, name) for name in _TEXTS[1:]}
    return kind(found.problem, **texts, **facts)
