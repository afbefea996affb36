"""The budget holds under a random workload: by the account, and by what the process took at its peak."""

from __future__ import annotations

import random
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import penstock as ps
from penstock.errors import FrameTooLarge
from penstock.store import Client

NOON = 1_767_268_800_000_000_000
BUDGET = 48 << 20
BESIDE = 64 << 20  # messages on their way in, rows that are rolled, the log's pages: see docs/store-server.md
ROWS, KEYS = 400_000, 12  # of a key: 12.8 MB decoded
PIECE = 80_000
FRAME = ROWS * 32
Serving = Callable[..., tuple[subprocess.Popen[str], str]]


def rows(symbol: str, first: int, count: int) -> pa.Table:
    values = np.random.default_rng(first).standard_normal(count)
    return pa.table({"symbol": [symbol] * count, "ts_event": NOON + first + np.arange(count), "x": values})


def fill(folder: Path) -> None:
    with ps.store.open(folder) as store:
        for key in range(KEYS):
            store.write("t", rows(f"K{key}", 0, ROWS))
            store.write("s", rows(f"K{key}", 0, 20_000))
        store.flush()


def warm(client: Client) -> int:
    """The process's peak when what is needed once is there: libraries, footers, threads."""
    client.read("t/K0", NOON, NOON + 1000)
    client.write("w", rows("warm", 0, 1000))
    client.read("w")
    client.sql('select 1 from "t"', end=NOON)
    client.evict()
    return int(client.stats()["process"]["peak_bytes"])


class Work:
    """What one of the clients does, and what it finds wrong with the account."""

    def __init__(self, url: str, seed: int, writes: float) -> None:
        self.url, self.seed, self.writes = url, seed, writes
        self.written = self.found = self.refused = 0
        self.over: list[Any] = []
        self.failed: list[BaseException] = []

    def __call__(self) -> None:
        try:
            with ps.store.connect(self.url, timeout=600, patience=600) as client:
                draw = random.Random(self.seed)
                for _ in range(15):
                    self.step(client, draw, f"W{self.seed}")
                    memory = client.stats()["memory"]
                    if memory["used"] > BUDGET or memory["used"] + memory["free"] != memory["max"]:
                        self.over.append(memory)
                mine = client.scan(f"w/W{self.seed}", columns=["x"]) if self.written else []
                self.found = sum(piece.num_rows for piece in mine)
        except BaseException as error:
            self.failed.append(error)

    def step(self, client: Client, draw: random.Random, mine: str) -> None:
        what = draw.random()
        try:
            if what < self.writes:
                client.write("w", rows(mine, self.written, PIECE))
                self.written += PIECE
            elif what < self.writes + 0.08:
                client.read("t")  # 115 MB: refused
            elif what < self.writes + 0.16:
                client.sql('select symbol, avg(x), list(ts_event) from "s" group by symbol')
            elif what < self.writes + 0.2:
                client.evict(draw.choice(["t", "w", ""]))
            elif what < self.writes + 0.24 and self.written:
                client.maintain("w")
            else:
                start = draw.randrange(ROWS // 2)
                client.read(f"t/K{draw.randrange(KEYS)}", NOON + start, NOON + start + draw.randrange(ROWS))
        except FrameTooLarge:
            self.refused += 1


@pytest.mark.slow
@pytest.mark.parametrize("clients, writes", [(4, 0.0), (6, 0.6)], ids=["reads", "writes"])
def test_memory_stays_within_the_budget(tmp_path: Path, serving: Serving, clients: int, writes: float) -> None:
    fill(tmp_path / "hub")
    _, url = serving(tmp_path / "hub", memory=str(BUDGET), roll=writes > 0)
    with ps.store.connect(url, timeout=600) as client:
        before = warm(client)
        work = [Work(url, seed, writes) for seed in range(clients)]
        threads = [threading.Thread(target=one) for one in work]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [error for one in work for error in one.failed] == []
        assert [found for one in work for found in one.over] == []
        numbers = client.stats()
        assert [one.found for one in work] == [one.written for one in work]
        assert numbers["memory"]["lent"] == 0
        assert numbers["requests"]["queries"] > 1
        assert sum(one.refused for one in work) > 0
        assert numbers["frames"]["evicted"] > 0
        took = numbers["process"]["peak_bytes"] - before
        wrote = sum(one.written for one in work)
        print(f"took {took / 1e6:.0f} MB over {before / 1e6:.0f}; wrote {wrote * 24 / 1e6:.0f} MB")
        assert wrote > 0 or not writes
        assert took <= BUDGET + FRAME + (BESIDE if writes else FRAME)  # without writes: what reading a frame takes


def test_segments_that_were_rolled_and_removed_do_not_stay_mapped(tmp_path: Path) -> None:
    with ps.store.open(tmp_path / "hub") as store:
        for first in range(0, 1_000_000, 200_000):
            store.write("t", rows("A", first, 200_000))
            assert store.read("t/A", NOON + first).num_rows == 200_000
            store.flush("t")
        removed = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(tmp_path) in line]
        assert sum(".arrow" in line for line in removed) <= 2  # of five: the last one, and the one that was begun
