"""Whatever is appended is looked at, soon, and not too often."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

from penstock.hub import Hub
from penstock.plant.follower import Follower
from penstock_tests.waiting import PATIENCE_S


class Looks:
    """A loop that counts the rows it sees, as the server does."""

    def __init__(self, hub: Hub, stream: Any, linger: float, took: float = 0.0) -> None:
        self.stream, self.linger, self.took = stream, linger, took
        self.folder = hub.streams.path(stream.name)
        self.seen: list[tuple[float, int]] = []

    async def until(self, rows: int) -> None:
        reached = asyncio.Event()

        def ring() -> None:
            follower.look()
            self.seen.append((time.monotonic(), self.stream.next_offset))
            follower.looked(self.took)
            if self.stream.next_offset >= rows:
                reached.set()

        follower = Follower(self.folder, asyncio.get_running_loop(), ring, linger=self.linger)
        try:
            await asyncio.wait_for(reached.wait(), PATIENCE_S)
        finally:
            follower.stop()
            await asyncio.to_thread(follower.join)


def feed(trades: Any, count: int, kit: Any) -> threading.Thread:
    def run() -> None:
        for number in range(count):
            trades.append(kit.trade("A", number))

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_every_row_is_seen(hub: Hub, trades: Any, kit: Any) -> None:
    for linger in (0.0, 0.0005):
        looks = Looks(hub, trades, linger)
        end = trades.next_offset + 3000
        thread = feed(trades, 3000, kit)
        asyncio.run(looks.until(end))
        thread.join()
        assert looks.seen[-1][1] == end


def test_rows_in_quick_succession_share_a_look(hub: Hub, trades: Any, kit: Any) -> None:
    looks = Looks(hub, trades, 0.02, took=1.0)  # a look that takes long makes the rest longer, by 10 ms at most
    thread = feed(trades, 2000, kit)
    asyncio.run(looks.until(2000))
    thread.join()
    begin, end = looks.seen[0][0], looks.seen[-1][0]
    assert len(looks.seen) <= 2 + (end - begin) / 0.02


def test_one_that_was_stopped_ends(hub: Hub, trades: Any) -> None:
    async def main() -> None:
        follower = Follower(hub.streams.path("trades"), asyncio.get_running_loop(), lambda: None, linger=0.0005)
        follower.stop()
        await asyncio.to_thread(follower.join)

    asyncio.run(main())


def test_a_loop_that_is_closed_ends_it(hub: Hub, trades: Any) -> None:
    async def main() -> Follower:
        return Follower(hub.streams.path("trades"), asyncio.get_running_loop(), lambda: None, linger=0.0005)

    follower = asyncio.run(main())
    trades.append({"symbol": "A", "ts_event": 1, "price": 1.0, "size": 1})
    follower.look()
    follower.join()
