"""One server a process: `python -m _plant.servers SIDE FOLDER`. It says its port, then does what stdin says.

burst N   send N messages to all (not the plant: its messages come from the log);   cpu   say the CPU seconds so far
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import penstock as ps

AT_ONCE = 10  # messages between two turns of the loop, and rows of one append
NOTE = "0" * 95
TRADE = '{{"ev":"T","sym":"S{0:04}","p":101.25,"s":100,"t":{1},"q":{2},"side":"buy","note":"' + NOTE + '","sent":0}}'


ROW = json.loads(TRADE.format(5, 1_767_268_800_005, 5))


def message(number: int) -> str:
    """200 bytes: what the plant makes of row `number` of `plant.rows`."""
    return TRADE.format(number % 100, 1_767_268_800_000 + number, number)


def rusage() -> tuple[float, float]:
    """CPU seconds so far, and MiB of memory now."""
    found = resource.getrusage(resource.RUSAGE_SELF)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return found.ru_utime + found.ru_stime, pages * resource.getpagesize() / (1 << 20)


Send = Callable[[list[str]], Awaitable[None]]


async def plant(folder: str) -> tuple[int, Send | None]:
    from penstock.plant import Limits, Plant, Server

    limits = Limits(outbox_bytes=1 << 30, outbox_messages=10**8, stalled_seconds=600)
    server = Server(Plant(ps.open(folder), "trades", limits=limits), port=0)
    await server.start()
    return server.port, None


async def plant_default(folder: str) -> tuple[int, Send | None]:
    from penstock.plant import Plant, Server

    server = Server(Plant(ps.open(folder), "trades"), port=0)
    await server.start()
    return server.port, None


async def plant_stalled(folder: str, policy: str) -> tuple[int, Send | None]:
    """Outboxes that are full within a second."""
    from penstock.plant import Limits, Plant, Server

    server = Server(Plant(ps.open(folder), "trades", policy=policy, limits=Limits(outbox_bytes=1 << 20)), port=0)
    await server.start()
    return server.port, None


async def websockets(folder: str, merged: bool = False, made: bool = False) -> tuple[int, Send]:
    from websockets.asyncio.server import ServerConnection, broadcast, serve

    connections: set[ServerConnection] = set()

    async def handler(connection: ServerConnection) -> None:
        connections.add(connection)
        await connection.wait_closed()

    server = await serve(handler, "127.0.0.1", 0, compression=None, ping_interval=None)

    async def send(texts: list[str]) -> None:
        if made:
            for number, _ in enumerate(texts):
                broadcast(connections, json.dumps([{**ROW, "q": number}], separators=(",", ":")))
        elif merged:
            broadcast(connections, "[" + ",".join(texts) + "]")
        else:
            for text in texts:
                broadcast(connections, f"[{text}]")

    return next(iter(server.sockets)).getsockname()[1], send


async def merged(folder: str) -> tuple[int, Send]:
    return await websockets(folder, True)


async def made(folder: str) -> tuple[int, Send]:
    return await websockets(folder, made=True)


async def picows(folder: str) -> tuple[int, Send]:
    from picows import WSListener, WSMsgType, WSTransport, ws_create_server

    transports: list[WSTransport] = []

    class Listener(WSListener):
        def on_ws_connected(self, transport: WSTransport) -> None:
            transports.append(transport)

    server = await ws_create_server(lambda request: Listener(), "127.0.0.1", 0)

    async def send(texts: list[str]) -> None:
        for text in texts:
            data = f"[{text}]".encode()
            for transport in transports:
                transport.send(WSMsgType.TEXT, data)

    return next(iter(server.sockets)).getsockname()[1], send


async def aiohttp(folder: str) -> tuple[int, Send]:
    from aiohttp import web

    found: list[web.WebSocketResponse] = []

    async def handler(request: web.Request) -> web.WebSocketResponse:
        response = web.WebSocketResponse(compress=False)
        await response.prepare(request)
        found.append(response)
        async for _ in response:
            pass
        return response

    app = web.Application()
    app.router.add_get("/", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()

    async def send(texts: list[str]) -> None:
        for text in texts:
            for response in found:
                await response.send_str(f"[{text}]")

    return runner.addresses[0][1], send


SIDES: dict[str, Any] = {
    "plant": plant, "plant_default": plant_default, "plant_stalled": plant_stalled, "websockets": websockets,
    "merged": merged, "made": made, "picows": picows, "aiohttp": aiohttp,
}  # fmt: skip


async def main(side: str, folder: str) -> None:
    name, _, policy = side.partition(":")
    port, send = await SIDES[name](folder, *filter(None, [policy]))
    gc.collect()
    gc.freeze()  # as the plant's commands do; the others shall have it, too
    print(port, flush=True)
    lines: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def read() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(lines.put_nowait, line)
        loop.call_soon_threadsafe(lines.put_nowait, "end")

    threading.Thread(target=read, daemon=True).start()
    while (words := (await lines.get()).split()) != ["end"]:
        if words[0] == "cpu":
            print(*rusage(), flush=True)
            continue
        assert send is not None
        texts = [message(number) for number in range(int(words[1]))]
        print(*rusage(), flush=True)
        for start in range(0, len(texts), AT_ONCE):
            await send(texts[start : start + AT_ONCE])
            await asyncio.sleep(0)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
