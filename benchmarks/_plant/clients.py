"""Subscribers, many in one process: `python -m _plant.clients PORT COUNT MESSAGES STALLED HELLO`.

They read what comes as fast as they can, count every message and every byte, and say when all have MESSAGES each. Raw
sockets and one epoll: a client library would be the bottleneck. STALLED more subscribe and never read.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import socket
import struct
import sys
import time

MARK = b'"ev":"T"'
SENT = re.compile(rb'"sent":(\d+)[,}]')


def frame(text: str) -> bytes:
    """A masked text frame; the mask is zero."""
    data = text.encode()
    return struct.pack("!BB", 0x81, 0x80 | len(data)) + b"\0\0\0\0" + data


def connect(port: int, hello: bool) -> socket.socket:
    found = socket.create_connection(("127.0.0.1", port))
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    found.sendall(
        f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    wait_for(found, b"\r\n\r\n")
    if hello:
        found.sendall(frame(json.dumps({"action": "auth", "params": "k"})))
        found.sendall(frame(json.dumps({"action": "subscribe", "params": "T.*"})))
        wait_for(found, b"subscribed to")
    return found


def wait_for(found: socket.socket, text: bytes) -> None:
    data = b""
    while text not in data:
        data += found.recv(65536)


def main(port: int, count: int, messages: int, stalled: int, hello: int) -> None:
    began = time.monotonic()
    sleeping = [connect(port, bool(hello)) for _ in range(stalled)]
    sockets = [connect(port, bool(hello)) for _ in range(count)]
    print(time.monotonic() - began, flush=True)
    selector = selectors.EpollSelector()
    for found in sockets:
        found.setblocking(False)
        selector.register(found, selectors.EVENT_READ, [0, b""])
    left, size, delays = count, 0, list[int]()
    buffer = bytearray(1 << 18)
    view = memoryview(buffer)
    while left:
        for key, _ in selector.select(30):
            state = key.data
            got = key.fileobj.recv_into(view)  # type: ignore[union-attr]
            now = time.monotonic_ns()
            if not got:
                sys.exit("the server has closed a connection")
            size += got
            text = state[1] + bytes(view[:got])
            # What a message is told by may be cut at the border of two reads.
            state[0] += text.count(MARK)
            state[1] = text[-len(MARK) + 1 :] if not text.endswith(MARK) else b""
            if count == 1:
                delays += [now - int(sent) for sent in SENT.findall(text)]
            if state[0] == messages:
                left -= 1
                state[0] += 1
    print(time.monotonic_ns(), size, flush=True)
    delays.sort()
    if delays:
        print(delays[len(delays) // 2], delays[len(delays) * 99 // 100], delays[-1], len(delays), flush=True)
    sys.stdin.readline()
    for found in [*sockets, *sleeping]:
        found.close()
    os._exit(0)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
