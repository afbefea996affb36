"""The store's server on loopback: frames out and in, calls per second, beside the store in the same process.

Server and client are processes of their own. `get`: one key's frame, held by the server, and read from the files at
each call. `put`: frames of 4 MB, and of 100 rows, durable when the call returns. Of both also the server's CPU time,
which other work on the machine changes less. `calls`: `stats`, `ls`, SQL, and a read of 200 rows that are held.
`memory`: four clients write and read as fast as they can against a budget of 48 MiB; what the process took beyond its
start, at its peak, and how much of that was files mapped into memory. About two minutes in all.

    python benchmarks/store_server.py [get put calls memory] [--rows 2000000] [--rounds 3] [--json FILE]
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import penstock as ps
from _report import arguments, rounds, show, write

START = 1_767_225_600_000_000_000


def frame(rows: int, first: int = 0, key: str = "A") -> pa.Table:
    """Bars of one key, a second apart."""
    draw = np.random.default_rng(first)
    times = START + (first + np.arange(rows)) * 1_000_000_000
    prices = {name: draw.normal(100, 1, rows) for name in ("open", "high", "low", "close", "vwap")}
    return pa.table({"symbol": [key] * rows, "ts_event": times, **prices, "volume": draw.integers(1, 1000, rows)})


def serving(folder: Path, memory: str = "2g", roll: str = "--no-roll") -> tuple[subprocess.Popen[str], str]:
    """A server as a process, and its URL."""
    command = [sys.executable, "-m", "penstock", "store", "serve", "--dir", str(folder), "--port", "0"]
    process = subprocess.Popen(
        [*command, "--memory", memory, roll],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(str(Path(part).resolve()) for part in sys.path if part)},
    )
    assert process.stderr is not None
    return process, process.stderr.readline().split()[3].rstrip(":")


def rate(act: Callable[[], int], least: float = 1.0) -> float:
    """What `act` returns per second, over at least a second."""
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < least:
        done += act()
    return done / (time.perf_counter() - began)


def micros(act: Callable[[], object], least: float = 0.5) -> float:
    """µs of a call, the mean over at least half a second."""
    return 1e6 / rate(lambda: (act(), 1)[1], least)


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def burnt(pid: int, act: Callable[[], int], least: float = 1.0) -> float:
    """CPU time of a process in ms for each GB that `act` moves, over at least a second."""
    before, done, began = cpu_seconds(pid), 0, time.perf_counter()
    while time.perf_counter() - began < least:
        done += act()
    return (cpu_seconds(pid) - before) / done * 1e12


def workload(url: str, seed: int) -> None:
    """Forty frames of 50,000 rows of one key written, or its last 300,000 rows read."""
    draw, key, at, rows = random.Random(seed), f"W{seed}", 0, 50_000
    with ps.store.connect(url, timeout=600) as client:
        for _ in range(40):
            if not at or draw.random() < 0.6:
                client.write("w", frame(rows, at, key))
                at += rows
            else:
                client.read(f"w/{key}", START + max(0, at - 300_000) * 1_000_000_000)


def memory(folder: Path) -> list[dict[str, Any]]:
    """What a server takes under that."""
    process, url = serving(folder, str(48 << 20), "--roll")
    mapped, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.01):
            mapped.append(mapped_now(process.pid))

    try:
        with ps.store.connect(url, timeout=600) as client:
            client.write("w", frame(1000))
            client.read("w/A")
            before, files = client.stats()["process"]["peak_bytes"], mapped_now(process.pid)
            watcher = threading.Thread(target=watch)
            watcher.start()
            clients = [threading.Thread(target=workload, args=(url, seed)) for seed in range(4)]
            for thread in clients:
                thread.start()
            for thread in clients:
                thread.join()
            ended.set()
            watcher.join()
            numbers = client.stats()["process"]
            took = numbers["peak_bytes"] - before
        figures = {
            "beyond its start": [took / 1e6],
            "mapped files": [(max(mapped) - files) / 1e6],
            "Arrow's memory": [numbers["arrow_peak_bytes"] / 1e6],
        }
        return show("peak memory under writes and reads, budget 50 MB", figures, "MB", "beyond its start")
    finally:
        process.terminate()
        process.wait()


def mapped_now(pid: int) -> int:
    """Bytes of files that a process has mapped and touched."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssFile")) * 1024


def main() -> None:
    options = arguments(__doc__ or "", ["get", "put", "calls", "memory"], rows=2_000_000)
    folder = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
    process, rows = None, []
    try:
        store = ps.store.open(folder / "hub")
        store.create("t", frame(1).schema, partition="none")
        for first in range(0, options.rows, 500_000):
            store.write("t", frame(min(500_000, options.rows - first), first))
        store.write("t", frame(200, key="SMALL"))
        store.write("small", frame(200))
        store.flush()
        process, url = serving(folder / "hub")
        client = ps.store.connect(url, timeout=600)
        here = store.read

        def fresh() -> int:
            client.evict()
            return int(client.read("t/A").nbytes)

        if "get" in options.parts:
            sides: dict[str, Callable[[], float]] = {
                "client, frame held by the server": lambda: rate(lambda: int(client.read("t/A").nbytes)) / 1e6,
                "client, read from the files each time": lambda: rate(fresh) / 1e6,
                "no server: Store.read from the files": lambda: rate(lambda: int(here("t/A").nbytes)) / 1e6,
            }
            title = f"get of {here('t/A').nbytes / 1e6:.0f} MB"
            rows += show(title, rounds(sides, options.rounds), "MB/s", "client, frame held by the server")
            sides = {
                "frame held by the server": lambda: burnt(process.pid, lambda: int(client.read("t/A").nbytes)),
                "read from the files each time": lambda: burnt(process.pid, fresh),
            }
            rows += show("get, the server's CPU", rounds(sides, options.rounds), "ms/GB", "frame held by the server")
        if "put" in options.parts:
            large, small = frame(65_536), frame(100)
            put: Callable[[Any, str, pa.Table], int] = lambda to, path, data: (to.write(path, data), data.nbytes)[1]  # noqa: E731
            sides = {
                "client": lambda: rate(lambda: put(client, "p", large)) / 1e6,
                "no server: Store.write": lambda: rate(lambda: put(store, "q", large)) / 1e6,
            }
            rows += show(f"put of {large.nbytes / 1e6:.1f} MB frames", rounds(sides, options.rounds), "MB/s", "client")
            sides = {"client": lambda: burnt(process.pid, lambda: put(client, "p", large))}
            rows += show("put, the server's CPU", rounds(sides, options.rounds), "ms/GB", "client")
            sides = {
                "client": lambda: micros(lambda: put(client, "r", small)),
                "no server: Store.write": lambda: micros(lambda: put(store, "s", small)),
            }
            rows += show("put of 100 rows", rounds(sides, options.rounds), "us", "client")
        if "calls" in options.parts:
            client.sql("select 1")  # its process is there
            calls: dict[str, Callable[[], object]] = {
                "stats": client.stats,
                "ls": client.ls,
                "SQL over 200 rows": lambda: client.sql('select max(close) from "small"'),
                "read of 200 rows, held": lambda: client.read("t/SMALL"),
                "no server: Store.read of 200 rows": lambda: here("t/SMALL"),
            }
            sides = {name: lambda act=act: micros(act) for name, act in calls.items()}  # type: ignore[misc]
            rows += show("calls", rounds(sides, options.rounds), "us", "stats")
            print(f"\nserver's peak memory {client.stats()['process']['peak_bytes'] / 1e6:,.0f} MB")
        if "memory" in options.parts:
            rows += memory(folder / "memory")
        write(options.json, rows, "pyarrow")
    finally:
        if process is not None:
            process.terminate()
            process.wait()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
