"""The plant on a port: what leaves it, whatever comes in."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

import penstock as ps
from penstock.errors import StorageError, UsageError
from penstock.hub import Hub
from penstock.plant import Limits, Plant, Server, Service, Tokens, serve
from penstock.plant.health import Page
from penstock_tests.talks import ask, code_of, get, hear, opened
from penstock_tests.waiting import PATIENCE_S

# ---- HTTP -------------------------------------------------------------------------------------------------------


def test_health_and_metrics(service: Service, bars: Any, kit: SimpleNamespace) -> None:
    assert get(service, "/healthz") == (200, "ok\n")
    assert get(service, "/readyz?x=1") == (200, "ready\n")
    assert get(service, "/")[0] == 426
    with opened(service) as connection:
        ask(connection, action="subscribe", params="AM.*")
        bars.append(kit.bar("A", 1))
        hear(connection)
        code, text = get(service, "/metrics")
    assert code == 200
    found = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert found["penstock_plant_subscribers"] == "1"
    assert found["penstock_plant_rows_total"] == "1"
    assert found["penstock_plant_messages_total"] == "1"
    assert found['penstock_plant_stream_position{stream="bars"}'] == "1"
    assert found["penstock_plant_append_to_publish_seconds_count"] == "1"
    assert found['penstock_plant_append_to_publish_seconds_bucket{le="+Inf"}'] == "1"


def test_metrics_need_a_key_where_clients_do(hub: Hub, bars: Any, tmp_path: Path) -> None:
    tokens = Tokens(tmp_path / "tokens.json")
    key = tokens.add("me")
    with serve(hub, port=0, tokens=tokens) as service:
        assert get(service, "/metrics")[0] == 401
        assert get(service, "/metrics", Authorization="Bearer wrong")[0] == 401
        assert get(service, "/metrics", Authorization=f"Bearer {key}")[0] == 200
        assert get(service, "/healthz")[0] == 200


def test_a_stream_that_cannot_be_read_is_not_ready(service: Service, kit: SimpleNamespace) -> None:
    service.call(service.server.plant.failed.__setitem__, "bars", "damaged")
    assert get(service, "/readyz") == (503, "bars: damaged\n")


@pytest.mark.parametrize(
    "origin, status",
    [("https://evil.example", 403), ("http://localhost:1", 403), ("null", 403), ("https://mine.example", 101)],
)
def test_origin(hub: Hub, bars: Any, origin: str, status: int) -> None:
    with serve(hub, port=0, origins=["https://mine.example"]) as service:
        if status == 101:
            with connect(service.url, origin=origin) as connection:
                assert hear(connection)
        else:
            with pytest.raises(InvalidStatus) as refused, connect(service.url, origin=origin):
                pass
            assert refused.value.response.status_code == status


def test_a_page_of_the_plant_itself_may_connect(service: Service) -> None:
    with connect(service.url, origin=f"http://127.0.0.1:{service.port}") as connection:
        assert hear(connection)


def test_too_many_connections(hub: Hub, bars: Any) -> None:
    with serve(hub, port=0, limits=Limits(connections=1)) as service, opened(service):
        with pytest.raises(InvalidStatus) as refused, connect(service.url):
            pass
        assert refused.value.response.status_code == 503


def test_further_pages(hub: Hub, bars: Any) -> None:
    def pages(path: str, headers: Any) -> Page | None:
        return Page(200, b"<p>", "text/html", {"X-Path": path}) if path == "/page" else None

    with serve(hub, port=0, pages=pages) as service:
        assert get(service, "/page") == (200, "<p>")
        assert get(service, "/other")[0] == 426
        with opened(service):
            pass


# ---- keys and TLS -----------------------------------------------------------------------------------------------


def test_an_address_for_others_needs_tokens(hub: Hub, bars: Any, tmp_path: Path) -> None:
    for tokens in (None, Tokens(tmp_path / "none.json")):
        with pytest.raises(
            UsageError, match=r"expected tokens for an address that others can reach, got host='0.0.0.0' without any"
        ):
            serve(hub, host="0.0.0.0", port=0, tokens=tokens)
    tokens = Tokens(tmp_path / "tokens.json")
    tokens.add("me")
    with serve(hub, host="0.0.0.0", port=0, tokens=tokens) as service:
        assert service.port


def test_a_revoked_key_is_cut(hub: Hub, bars: Any, tmp_path: Path) -> None:
    tokens = Tokens(tmp_path / "tokens.json")
    mine, other = tokens.add("mine"), tokens.add("other")
    with serve(hub, port=0, tokens=tokens) as service:
        with opened(service, auth=False) as one, opened(service, auth=False) as two:
            assert ask(one, action="auth", params=mine)[0]["status"] == "auth_success"
            assert ask(two, action="auth", params=other)[0]["status"] == "auth_success"
            Tokens(tmp_path / "tokens.json").revoke("mine")  # by another process
            assert code_of(one) == 1008
            assert ask(two, action="subscribe", params="AM.*")[0]["status"] == "success"
        with opened(service, auth=False) as again:
            assert ask(again, action="auth", params=mine)[0]["status"] == "auth_failed"


def test_tls(hub: Hub, bars: Any, tmp_path: Path, kit: SimpleNamespace) -> None:
    pem, context = kit.certificate(tmp_path)
    with serve(hub, port=0, certificate=pem) as service:
        assert service.url.startswith("wss://")
        subscription = ps.plant.subscribe(service.url, "AM.*", since="start", tls=context, timeout=PATIENCE_S)
        bars.append(kit.bar("A", 1))
        assert next(iter(subscription))["sym"] == "A"
        subscription.close()
    with pytest.raises(UsageError, match=r"expected a PEM file with a certificate and its key, got .*no\.pem"):
        serve(hub, port=0, certificate=str(tmp_path / "no.pem"))


def test_tokens_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "tokens.json"
    tokens = Tokens(path)
    assert tokens.check("") is None
    key = tokens.add("one")
    assert key not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert (tokens.check(key), tokens.check(key + "x"), tokens.check("")) == ("one", None, None)
    with pytest.raises(UsageError, match="expected a name that no token has, got 'one'"):
        tokens.add("one")
    with pytest.raises(UsageError, match=r"expected the name of a token \(one\), got 'two'"):
        tokens.revoke("two")
    assert [token.name for token in tokens.all()] == ["one"]
    tokens.revoke("one")
    assert tokens.check(key) is None
    path.write_text("nonsense")
    with pytest.raises(StorageError, match="expected a file of tokens"):
        Tokens(path)


# ---- life -------------------------------------------------------------------------------------------------------


def test_a_port_that_is_taken(service: Service, hub: Hub) -> None:
    with pytest.raises(OSError, match="address already in use|Address already in use"):
        serve(hub, port=service.port)


def test_an_unknown_option(hub: Hub) -> None:
    with pytest.raises(UsageError, match="unexpected keyword argument 'prot'"):
        serve(hub, prot=5000)


def test_stop_publishes_what_is_in_the_log_and_says_restart(hub: Hub, bars: Any, kit: SimpleNamespace) -> None:
    service = serve(hub, port=0)
    with opened(service) as connection:
        ask(connection, action="subscribe", params="AM.*")
        bars.append(kit.bar("A", 1))
        service.stop(drain_seconds=5)
        assert hear(connection)[0]["sym"] == "A"
        assert code_of(connection) == 1012
    service.stop()
    assert service.wait(0)


def test_in_ones_own_loop(hub: Hub, bars: Any, kit: SimpleNamespace) -> None:
    async def main() -> Any:
        async with Server(Plant(hub), port=0) as server:
            async for message in ps.plant.subscribe(server.url, "AM.*", since="start"):
                return message

    bars.append(kit.bar("A", 1))
    assert asyncio.run(main())["sym"] == "A"


def test_streams_that_come_and_go(service: Service, hub: Hub, kit: SimpleNamespace) -> None:
    subscription = ps.plant.subscribe(service.url, "*", timeout=PATIENCE_S)
    found = iter(subscription)
    kit.wait_until(lambda: hub.streams.put({"sym": "first"}, "late"))
    assert next(found) == {"ev": "late", "sym": "first"}
    subscription.close()
