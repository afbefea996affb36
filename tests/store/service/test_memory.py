"""The budget holds under a random workload: by the account, and by what the process took at its peak."""

from __future__ import annotations

import random
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import penstock as ps
from penstock.errors import FrameTooLarge

NOON = 1_767_268_800_000_000_000
BUDGET = 48 << 20
ROWS, KEYS = 400_000, 12  # of a key: 9.6 MB decoded


def fill(folder: Path) -> None:
    with ps.store.open(folder) as store:
        for key in range(KEYS):
            values = np.random.default_rng(key).standard_normal(ROWS)
            store.write("t", pa.table({"symbol": [f"K{key}"] * ROWS, "ts_event": NOON + np.arange(ROWS), "x": values}))
        store.flush()


@pytest.mark.slow
def test_memory_stays_within_the_budget_and_a_frame(
    tmp_path: Path, serving: Callable[..., tuple[subprocess.Popen[str], str]]
) -> None:
    fill(tmp_path / "hub")
    _, url = serving(tmp_path / "hub", memory=str(BUDGET), roll=False)
    with ps.store.connect(url) as client:
        client.read("t/K0", NOON, NOON + 1000)  # what is needed once is there: libraries, footers
        client.sql('select 1 from "t"', end=NOON)
        client.evict()
        before = client.stats()["process"]["peak_bytes"]
        over: list[dict[str, int]] = []
        refused = [0]

        def work(seed: int) -> None:
            draw = random.Random(seed)
            for _ in range(15):
                what = draw.random()
                try:
                    if what < 0.15:
                        client.read("t")  # 115 MB: refused
                    elif what < 0.3:
                        client.sql('select symbol, avg(x) from "t" group by symbol', end=NOON)
                    else:
                        start = draw.randrange(ROWS // 2)
                        client.read(f"t/K{draw.randrange(KEYS)}", NOON + start, NOON + start + draw.randrange(ROWS))
                except FrameTooLarge:
                    refused[0] += 1
                memory = client.stats()["memory"]
                if memory["used"] > BUDGET or memory["used"] + memory["free"] != memory["max"]:
                    over.append(memory)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert over == []
        assert refused[0] > 0
        numbers = client.stats()
        assert numbers["frames"]["evicted"] > 0
        assert numbers["memory"]["lent"] == 0
        frame = ROWS * 32
        took = numbers["process"]["peak_bytes"] - before
        print(f"took {took / 1e6:.0f} MB over {before / 1e6:.0f}, budget {BUDGET / 1e6:.0f}, frame {frame / 1e6:.0f}")
        assert took <= BUDGET + 2 * frame  # a frame, and what reading one takes for a moment
