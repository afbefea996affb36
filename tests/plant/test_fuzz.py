"""Whatever bytes come in: statuses, documented closes, and a plant that lives."""

from __future__ import annotations

import json
import random
import socket
import struct
import urllib.error
import zlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.sync.client import connect

from penstock.hub import Hub
from penstock.plant import Limits, Service, serve
from penstock_tests.talks import ask, code_of, get, hear, opened
from penstock_tests.waiting import PATIENCE_S


@pytest.fixture
def hasty(hub: Hub, bars: Any) -> Iterator[Service]:
    """A plant that wants a key at once."""
    with serve(hub, port=0, limits=Limits(auth_seconds=2)) as found:
        yield found


def test_documented_closes(service: Service) -> None:
    with opened(service) as c:
        c.send(b"\x00" * 10)
        assert code_of(c) == 1003
    with opened(service) as c:
        c.send("x" * (256 << 10) + "y")
        assert code_of(c) == 1009
    with opened(service, auth=False) as c:
        c.send('{"action":"subscribe","params":"*"}')
        assert code_of(c) == 1008


def test_no_key_in_time(hasty: Service) -> None:
    with opened(hasty, auth=False) as c:
        assert code_of(c) == 1008


def raw(service: Service, upgrade: bool = True, extension: bytes = b"") -> socket.socket:
    """A socket behind the handshake, for bytes that no client library sends."""
    found = socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE_S)
    if upgrade:
        found.sendall(
            b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n" + extension + b"\r\n"
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):  # frames may only follow the plant's answer
            head += found.recv(1)
        assert head.startswith(b"HTTP/1.1 101")
    return found


def masked(first: int, payload: bytes, *, size: int | None = None) -> bytes:
    size = len(payload) if size is None else size
    if size < 126:
        head = bytes([first, 0x80 | size])
    elif size < 65536:
        head = bytes([first, 0xFE]) + struct.pack("!H", size)
    else:
        head = bytes([first, 0xFF]) + struct.pack("!Q", size)
    return head + b"\0\0\0\0" + payload


def answer(found: socket.socket) -> tuple[list[Any], int | None]:
    """All that the plant says until it hangs up: statuses, and the code of its close frame."""
    data = b""
    try:
        while part := found.recv(65536):
            data += part
    except ConnectionResetError:
        pass
    found.close()
    if not data or data.startswith(b"HTTP/"):
        return [data], None
    said: list[Any] = []
    code, at = None, 0
    while at < len(data):
        first, size = data[at], data[at + 1]
        at += 2
        if size == 126:
            (size,) = struct.unpack_from("!H", data, at)
            at += 2
        payload = data[at : at + size]
        at += size
        if first == 0x88:
            (code,) = struct.unpack("!H", payload[:2])
        elif first == 0x81:
            said += json.loads(payload)
        else:
            assert first in (0x89, 0x8A, 0xC1), f"an undocumented frame {first:#x}"
    return said, code


AUTH = masked(0x81, b'{"action":"auth","params":""}')


@pytest.mark.parametrize(
    "sent, code",
    [
        (masked(0x81, b"\xff\xfe"), 1007),
        (masked(0x85, b"x"), 1002),
        (masked(0xF1, b"x"), 1002),
        (b"\x81\x05hello", 1002),  # not masked
        (masked(0x81, b"", size=1 << 40), 1009),
        (masked(0x01, b"x" * 150_000) + masked(0x80, b"x" * 150_000), 1009),
        (masked(0x80, b"x"), 1002),
        (masked(0x88, b"\x00"), 1002),
        (masked(0xC1, zlib.compress(b"\0" * (1 << 24))), 1002),  # compressed, and nobody agreed to that
    ],
    ids=range(9),
)
@pytest.mark.parametrize("key", [b"", AUTH], ids=["stranger", "client"])
def test_broken_frames(service: Service, key: bytes, sent: bytes, code: int) -> None:
    found = raw(service)
    found.sendall(key + sent)
    said, closed = answer(found)
    assert closed == code
    # What is in one segment with the broken frame may go unanswered.
    assert [m["status"] for m in said] in ([["connected"], ["connected", "auth_success"]] if key else [["connected"]])


def test_slow_loris(hasty: Service) -> None:
    """A handshake that never ends, and a frame that never ends, are cut."""
    head, frame = raw(hasty, upgrade=False), raw(hasty)
    head.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
    frame.sendall(masked(0x81, b"", size=1000) + b"x")
    assert answer(head) == ([b""], None)
    said, code = answer(frame)
    assert (len(said), code) == (1, 1008)
    assert get(hasty, "/healthz")[0] == 200


def test_compressed_bomb(hub: Hub, bars: Any) -> None:
    with serve(hub, port=0, compression=True) as service:
        extension = ClientPerMessageDeflateFactory(client_max_window_bits=True)
        with connect(service.url, extensions=[extension], close_timeout=1) as connection:
            hear(connection)
            connection.send("\0" * (32 << 20))  # 32 kB on the wire
            assert code_of(connection) == 1009


def test_many_bombs_leave_memory_as_it_was(hub: Hub, bars: Any) -> None:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -12)
    bomb = deflate.compress(b"\0" * (64 << 20)) + deflate.flush(zlib.Z_SYNC_FLUSH)[:-4]
    assert len(bomb) < 66_000

    def memory() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    with serve(hub, port=0, compression=True) as service:
        for turn in range(30):
            if turn == 5:
                before = memory()
            found = raw(
                service, extension=b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=12\r\n"
            )
            found.sendall(masked(0xC1, bomb if len(bomb) < 65536 else bomb[:65000]))
            assert answer(found)[1] == 1009
        assert memory() - before < 30e6


def test_compression_on_request(hub: Hub, bars: Any, kit: SimpleNamespace) -> None:
    with serve(hub, port=0, compression=True) as service, connect(service.url) as connection:
        assert [type(e).__name__ for e in connection.protocol.extensions] == ["PerMessageDeflate"]
        hear(connection)
        ask(connection, action="auth", params="")
        ask(connection, action="subscribe", params="AM.*")
        bars.append([kit.bar("A", n) for n in range(1000)])
        assert len(hear(connection)) == 1000


def test_random_bytes(service: Service, kit: SimpleNamespace) -> None:
    """Whatever strangers and clients send: statuses, a documented close, and a plant that lives."""
    chance = random.Random(7)
    good = [
        b'{"action":"subscribe","params":"AM.*","since":0,"seq":true}',
        b'{"action":"unsubscribe","params":"*"}',
        AUTH,
    ]
    for turn in range(60):
        found = raw(service)
        data = b""
        for _ in range(chance.randrange(1, 6)):
            payload = bytearray(chance.choice(good)) if chance.random() < 0.7 else bytearray(chance.randbytes(40))
            for _ in range(chance.randrange(3)):
                payload[chance.randrange(len(payload))] = chance.randrange(256)
            data += masked(
                chance.choice([0x81, 0x81, 0x81, 0x82, 0x01, 0x80, 0x89, chance.randrange(256)]), bytes(payload)
            )
        try:
            found.sendall((AUTH if turn % 2 else b"") + data)
            found.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        said, code = answer(found)
        assert code in (None, 1000, 1002, 1003, 1005, 1007, 1008, 1009)
        assert all(m["ev"] == "status" for m in said if isinstance(m, dict))
        if not turn % 2 and AUTH not in data:
            assert len(said) <= 2
    assert get(service, "/healthz") == (200, "ok\n")
    kit.wait_until(lambda: not service.server.plant.subscribers)


def test_http_nonsense(service: Service) -> None:
    for sent in (
        b"\x16\x03\x01\x02\x00",
        b"GET\r\n\r\n",
        b"POST / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 500,
    ):
        found = raw(service, upgrade=False)
        found.sendall(sent)
        found.shutdown(socket.SHUT_WR)
        said, _ = answer(found)
        assert said[0] == b"" or said[0].startswith(b"HTTP/1.1 4"), sent[:20]
    assert get(service, "/healthz")[0] == 200


def test_sockets_without_handshake_are_limited(hub: Hub, bars: Any, kit: SimpleNamespace) -> None:
    with serve(hub, port=0, limits=Limits(connections=1, auth_seconds=30)) as service:
        held = [raw(service, upgrade=False) for _ in range(300)]
        kit.wait_until(lambda: service.server.sockets == 257)
        for found in held:
            found.close()

        def is_well() -> bool:
            try:
                return get(service, "/healthz")[0] == 200
            except (OSError, urllib.error.URLError):  # some of them are still to be taken from the backlog
                return False

        kit.wait_until(is_well)
        kit.wait_until(lambda: service.server.sockets == 0)
