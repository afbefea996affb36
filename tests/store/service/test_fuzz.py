"""Whatever bytes come: a documented error, and the server goes on."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.flight as fl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock import errors
from penstock.errors import PenstockError, StoreError, UsageError
from penstock.store import Server
from penstock.store.service import wire

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ["path", "start", "end", "columns", "as_of", "revisions", "sql", "name", "level", "prefix", "schema", "who"]


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    kind = draw(st.integers(0, 2))
    if kind == 0:
        return draw(st.binary(max_size=60))
    import msgspec

    found = draw(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4))
    data = msgspec.json.encode(found)
    return data if kind == 1 else data[: draw(st.integers(0, len(data)))]


def checked(error: fl.FlightError) -> None:
    """An error that says what it is."""
    assert error.extra_info, f"undocumented: {error}"
    found = wire.decode_error(error.extra_info)
    assert isinstance(found, PenstockError)
    assert "the server failed" not in str(found), str(found)


def ended(error: Exception) -> None:
    """An error of a stream whose other end has closed it."""
    assert "Could not write" in str(error)


SLOW = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@SLOW
@given(body=bodies())
def test_any_ticket(server: Server, body: bytes) -> None:
    with fl.FlightClient(server.url) as client:
        for act in (
            lambda: client.do_get(fl.Ticket(body)).read_all(),
            lambda: client.get_flight_info(fl.FlightDescriptor.for_command(body)),
            lambda: list(client.list_flights(body)),
        ):
            try:
                act()
            except fl.FlightError as error:
                checked(error)


@SLOW
@given(
    name=st.sampled_from(
        ["stats", "ls", "evict", "drop", "create", "query", "maintain", "last_origin", "none", "__init__"]
    ),
    body=bodies(),
)
def test_any_action(server: Server, name: str, body: bytes) -> None:
    with fl.FlightClient(server.url) as client:
        try:
            list(client.do_action((name, body)))
        except fl.FlightError as error:
            checked(error)


@SLOW
@given(
    body=bodies(),
    columns=st.dictionaries(st.text(max_size=6), st.lists(st.integers(-5, 5), min_size=2, max_size=2), max_size=3),
)
def test_any_put(server: Server, body: bytes, columns: dict[str, list[int]]) -> None:
    table = pa.table(columns)
    with fl.FlightClient(server.url) as client:
        try:
            writer, _ = client.do_put(fl.FlightDescriptor.for_command(body), table.schema)
            try:
                writer.write_table(table)
            finally:
                writer.close()
        except fl.FlightError as error:
            checked(error)
        except pa.ArrowException as error:  # the server had ended the stream while we wrote
            ended(error)


@given(data=st.binary(max_size=300))
def test_any_error_bytes(data: bytes) -> None:
    assert isinstance(wire.decode_error(data), PenstockError)


@given(
    name=st.sampled_from(sorted(set(errors.__all__) - {"PenstockWarning"})),
    texts=st.dictionaries(
        st.sampled_from(["problem", "expected", "got", "where", "hint"]), st.text(max_size=3000), max_size=5
    ),
    facts=st.dictionaries(
        st.sampled_from(["near", "size", "limit", "other"]),
        JSON | st.lists(st.text(max_size=500), max_size=30),
        max_size=4,
    ),
)
def test_errors_keep_their_class_and_fit_a_header(name: str, texts: dict[str, str], facts: dict[str, object]) -> None:
    error = getattr(errors, name)(**texts, **facts)
    data = wire.encode_error(error)
    assert len(data) <= 2400
    found = wire.decode_error(data)
    assert type(found) is type(error)
    if len(str(error)) < 100:
        assert str(found) == str(error)


def test_requests_of_the_wrong_shape() -> None:
    with pytest.raises(
        UsageError, match="expected JSON with path, start, .*, got .* - in a ticket; see docs/store-server.md"
    ):
        wire.ticket(b'{"path": 5}')
    with pytest.raises(UsageError, match="expected a path or JSON, got .* - in a ticket"):
        wire.ticket(b"\xff\xfe")
    assert wire.ticket(b'{"path": "t", "columns": ["sql"]}') == wire.Read("t", columns=["sql"])
    assert wire.ticket(b'{"sql": "select 1"}') == wire.Query("select 1")
    assert wire.ticket(b"historical/minute/A") == wire.Read("historical/minute/A")
    assert wire.decode_error(b'{"error": "SystemExit", "problem": "x"}').__class__ is StoreError
