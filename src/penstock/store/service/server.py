"""A desk on the network: an address, TLS, tokens, and a start and an end.

with penstock.store.serve("data", memory="1g") as server:
print(server.url)
"""

from __future__ import annotations

import ipaddress
import os
import socket
import threading
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from penstock.errors import SourceError, UsageError
from penstock.hub import Hub
from penstock.store.service.desk import Desk
from penstock.store.service.flight import Calls, middleware
from penstock.store.service.keeper import Keeper
from penstock.store.service.sizes import bytes_of
from penstock.store.store import open as open_store
from penstock.tokens import Check, Tokens

__all__ = ["PORT", "Server", "serve"]

PORT: Final = 8815
_MESSAGE_BYTES: Final = 64 << 20


class Server:
    """A server that runs since it was made; `with` stops it. Make it by `serve`.

    Edges   A client that has stopped reading cannot be called off: `stop` gives it `drain_seconds`, says False, and
            leaves its thread behind.
    """

    def __init__(
        self,
        desk: Desk,
        *,
        host: str = "127.0.0.1",
        port: int = PORT,
        check: Check | None = None,
        certificate: tuple[bytes, bytes] | None = None,
        max_message: int = _MESSAGE_BYTES,
    ) -> None:
        self.desk, self.host = desk, host
        if check is None and not _is_loopback(host):
            raise UsageError(
                expected="tokens, to listen where others can reach it",
                got=f"none for {host!r}",
                where="in serve",
                hint="give tokens, or listen on 127.0.0.1",
            )
        _check_free(host, port)
        scheme = "grpc+tcp" if certificate is None else "grpc+tls"
        shown = f"[{host}]" if ":" in host else host
        options: dict[str, Any] = {"tls_certificates": None if certificate is None else [certificate]}
        try:
            self._flight = Calls(desk, max_message, f"{scheme}://{shown}:{port}", middleware(check), options)
        except pa.ArrowException as error:
            raise SourceError(
                f"cannot listen on {host}:{port}: {error}", hint="look at address and certificate"
            ) from error
        self.port = int(self._flight.port)
        self.url = f"{'grpc' if certificate is None else 'grpc+tls'}://{shown}:{self.port}"
        self._stopped = threading.Event()
        self._drained: bool | None = None

    def keep(self, every: float = 5.0) -> None:
        """Roll and compact every few seconds, in a process of its own, until the server stops."""
        self.desk.keeper = Keeper(self.desk.store, every)

    def wait(self, seconds: float | None = None) -> bool:
        """Until it was stopped; False if that took longer than `seconds`."""
        return self._stopped.wait(seconds)

    def stop(self, drain_seconds: float = 5.0) -> bool:
        """Take no more requests, end those under way, close the store; whether all ended in time."""
        if self._drained is None:
            ending = threading.Thread(target=self._flight.shutdown, name="penstock-store-stop", daemon=True)
            ending.start()
            ending.join(drain_seconds)
            self._drained = not ending.is_alive()
            if self.desk.keeper is not None:
                # A compaction under way may take minutes; the process ends by itself after it.
                closing = threading.Thread(target=self.desk.keeper.close, name="penstock-store-upkeep", daemon=True)
                closing.start()
                closing.join(drain_seconds)
            self.desk.close()
            self._stopped.set()
        return self._drained

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"Server({self.url!r})"


def serve(
    hub: str | os.PathLike[str] | Hub | None = None,
    *,
    memory: int | str = "1g",
    host: str = "127.0.0.1",
    port: int = PORT,
    tokens: Tokens | str | os.PathLike[str] | Check | None = None,
    certificate: str | os.PathLike[str] | tuple[str | os.PathLike[str], str | os.PathLike[str]] | None = None,
    keep: float | None = 5.0,
    max_message: int | str = _MESSAGE_BYTES,
    create: bool = True,
) -> Server:
    """Serve the store of a hub; it runs in threads of its own.

    Takes   hub: as for `penstock.store.open`; memory: for frames, in bytes or as text, "512m", "1g";
            host: others than loopback need tokens; port: 0 for a free one;
            tokens: a file of tokens, or what says who a key is (None: nobody);
            certificate: a PEM file with chain and key, or the two files: TLS;
            keep: seconds between two rounds of rolling and compacting, by a process of its own; None: nobody does it;
            max_message: bytes of one record batch of a put.
    Raises  UsageError, SourceError when the port is taken; what `penstock.store.open` raises.
    """
    size, limit = bytes_of(memory, "memory"), bytes_of(max_message, "max_message")
    held = Tokens(tokens) if isinstance(tokens, str | os.PathLike) else tokens
    check = held.check if isinstance(held, Tokens) else held
    pair = None if certificate is None else _certificate(certificate)
    store = open_store(hub, create=create)
    try:
        desk = Desk(store, size, own=True, rolls=keep is not None)
        server = Server(desk, host=host, port=port, check=check, certificate=pair, max_message=limit)
    except BaseException:
        store.close()
        raise
    if keep is not None:
        server.keep(keep)
    return server


def _certificate(given: Any) -> tuple[bytes, bytes]:
    chain, key = given if isinstance(given, tuple) else (given, given)
    try:
        return Path(chain).expanduser().read_bytes(), Path(key).expanduser().read_bytes()
    except OSError as error:
        raise UsageError(
            expected="PEM files of a certificate and its key", got=f"{error.strerror}", where=f"at {error.filename}"
        ) from error


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _check_free(host: str, port: int) -> None:
    """Whether one can listen there. gRPC would tell as well, on stderr and without a reason."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as found:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(address)
    except OSError as error:
        raise SourceError(
            f"cannot listen on {host}:{port}: {(error.strerror or str(error)).lower()}",
            hint="give another port (0: a free one), or another address",
        ) from error
