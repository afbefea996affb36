"""WebSocket servers that follow a script."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from websockets.sync.server import ServerConnection, serve

__all__ = ["serving"]


@contextmanager
def serving(handler: Callable[[ServerConnection], None], port: int = 0) -> Iterator[str]:
    """A server on this machine, whose connections `handler` gets; its URL."""
    with serve(handler, "127.0.0.1", port, compression=None) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        finally:
            server.shutdown()
            thread.join()
