"""The plant against other servers: deliveries per CPU second, latency, a stalled subscriber, connections, handlers.

    python benchmarks/plant.py [fanout latency stalled connections klong] [--rounds 3] [--realtime 1] [--json FILE]

Server, feed and subscribers are processes of their own. All send the same messages of 200 bytes; the subscribers count
every message and every byte. The peers get ready texts in memory and send them; the plant reads rows of a log that
another process appends to, and makes the texts.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

import penstock as ps
from _plant.servers import AT_ONCE, NOTE, message
from _report import arguments, rounds, show, write

POLICIES = ("disconnect", "conflate", "drop_oldest", "catch_up")
PEERS = {
    "websockets.broadcast, a frame each": "websockets",
    "websockets.broadcast, a frame each, text made": "made",
    "websockets.broadcast, arrays of 10": "merged",
    "picows, a frame each": "picows",
    "aiohttp, a frame each": "aiohttp",
}


class Process:
    """A server or clients: `say` a line, `hear` one."""

    def __init__(self, module: str, *arguments: object) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(str(Path(part).resolve()) for part in sys.path if part)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip

    def say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def hear(self) -> list[float]:
        assert self._process.stdout is not None
        words = self._process.stdout.readline().split()
        if not words:
            sys.exit("a process of the benchmark has ended")
        return [float(word) for word in words]

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def rows(first: int, stop: int) -> pa.Table:
    """Trades that make messages like those of the peers."""
    count = stop - first
    return pa.table(
        {
            "symbol": [f"S{number % 100:04}" for number in range(first, stop)],
            "ts_event": [(1_767_268_800_000 + number) * 1_000_000 for number in range(first, stop)],
            "ts_recv": pa.nulls(count, pa.int64()), "price": [101.25] * count, "size": [100] * count,
            "side": ["buy"] * count, "sequence": list(range(first, stop)),
            "note": [NOTE] * count, "sent": [0] * count,
        },
        schema=WIDE,
    )  # fmt: skip


WIDE = ps.records.TRADES.append(pa.field("note", pa.string())).append(pa.field("sent", pa.int64()))


def deliveries(side: str, count: int, messages: int, said: dict[str, Any], at_once: int = AT_ONCE) -> float:
    """Messages delivered per CPU second of the server, in a burst."""
    folder = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
    hub = ps.open(folder)
    stream = hub.streams.get("trades", schema=WIDE)
    is_plant = side == "plant"
    server = Process("_plant.servers", side, folder)
    clients = Process("_plant.clients", int(server.hear()[0]), count, messages, 0, int(is_plant))
    clients.hear()
    batches = rows(0, messages).to_batches(max_chunksize=at_once) if is_plant else []
    if is_plant:
        from penstock.plant.messages import mapper

        assert mapper(WIDE, "T", {}, "trades")(batches[0])[2]()[3].decode() == message(3)
    server.say("cpu" if is_plant else f"burst {messages}")
    before, began = server.hear()[0], time.monotonic_ns()
    for batch in batches:
        stream.append(batch)
    ended, size = clients.hear()
    server.say("cpu")
    taken = server.hear()[0] - before
    clients.say("end")
    clients.end()
    server.end()
    hub.close()
    shutil.rmtree(folder)
    total = count * messages
    said[side if at_once == AT_ONCE else f"plant, {at_once}"] = (
        f"{total / (ended - began) * 1e9:>10,.0f}/s by the clock, {size / total:.0f} bytes a message"
    )
    return total / taken


def fanout(options: Any) -> list[dict[str, Any]]:
    found = []
    for count, messages in ((1, options.messages), (100, options.messages // 20), (500, options.messages // 100)):
        said: dict[str, Any] = {}

        def of(
            side: str, at_once: int = AT_ONCE, count: int = count, messages: int = messages, said: Any = said
        ) -> Callable[[], float]:
            return lambda: deliveries(side, count, messages, said, at_once)

        sides = {"penstock, appends of 10": of("plant"), "penstock, appends of 100": of("plant", 100)}
        sides |= {name: of(side) for name, side in PEERS.items()}
        figures = rounds(sides, options.rounds)
        title = f"{count} subscribers, a burst of {messages:,} messages"
        found += show(title, figures, "deliveries per CPU second", "websockets.broadcast, a frame each")
        for side, text in said.items():
            print(f"    {side:<20}{text}")
    return found


def delays(rate: int, seconds: float, stalled: int = 0, side: str = "plant") -> tuple[float, ...]:
    """(p50, p99, longest) from append to a subscriber's socket, in us, and the server's share of a core."""
    folder = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
    hub = ps.open(folder)
    stream = hub.streams.get("trades", schema=WIDE)
    at_once, pause = max(1, rate // 1000), max(1, rate // 1000) / rate
    count = int(rate * seconds / at_once)
    server = Process("_plant.servers", side, folder)
    clients = Process("_plant.clients", int(server.hear()[0]), 1, count * at_once, stalled, 1)
    clients.hear()
    template = rows(0, at_once)
    server.say("cpu")
    before = server.hear()[0]
    began = time.perf_counter()
    for number in range(count):
        due = began + number * pause
        while (left := due - time.perf_counter()) > 0:
            time.sleep(left)
        sent = pa.array([time.monotonic_ns()] * at_once)
        stream.append(template.set_column(template.num_columns - 1, "sent", sent))
    taken = time.perf_counter() - began
    clients.hear()
    p50, p99, longest, _ = clients.hear()
    server.say("cpu")
    share = (server.hear()[0] - before) / taken
    clients.say("end")
    clients.end()
    server.end()
    hub.close()
    shutil.rmtree(folder)
    return p50 / 1000, p99 / 1000, longest / 1000, share, count * at_once / taken


def alone(rate: int, seconds: float) -> tuple[float, ...]:
    """The same through a bare socket, without any server: what the machine takes by itself."""
    at_once, pause = max(1, rate // 1000), max(1, rate // 1000) / rate
    count = int(rate * seconds / at_once)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        clients = Process("_plant.clients", listener.getsockname()[1], 1, count * at_once, 0, 0)
        peer, _ = listener.accept()
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    peer.recv(65536)
    peer.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
    clients.hear()
    text = message(0).replace('"sent":0', '"sent":%d')
    began = time.perf_counter()
    for number in range(count):
        due = began + number * pause
        while (left := due - time.perf_counter()) > 0:
            time.sleep(left)
        peer.sendall((text % time.monotonic_ns()).encode() * at_once)
    clients.hear()
    p50, p99, longest, _ = clients.hear()
    clients.say("end")
    clients.end()
    peer.close()
    return p50 / 1000, p99 / 1000, longest / 1000


def latency(options: Any) -> list[dict[str, Any]]:
    print("\nfrom append to subscriber, in another process, and through a bare socket (us; best and median round)")
    found = []
    for rate in (1_000, 10_000, 50_000):
        runs: dict[str, list[tuple[float, ...]]] = {"penstock": [], "socket alone": []}
        for _ in range(options.rounds):
            runs["penstock"].append(delays(rate, options.seconds))
            runs["socket alone"].append(alone(rate, options.seconds))
        for side, values in runs.items():
            ordered = sorted(values, key=lambda run: run[1])
            best, middle = ordered[0], ordered[len(ordered) // 2]
            more = f"; server {middle[3]:.0%} of a core, {middle[4]:,.0f}/s fed" if side == "penstock" else ""
            print(
                f"  {rate:>7,}/s {side:<13} p50 {best[0]:>6,.0f} {middle[0]:>6,.0f}   p99 {best[1]:>7,.0f} "
                f"{middle[1]:>7,.0f}   longest {best[2]:>7,.0f} {middle[2]:>7,.0f}{more}"
            )
            found.append({"what": f"latency at {rate}/s", "side": side, "unit": "us", "runs": ordered})
    return found


def stalled(options: Any) -> list[dict[str, Any]]:
    print("\nsome stop reading, 10,000 messages/s (p99 of the one that reads, us, and the server's share of a core)")
    runs: dict[tuple[str, int], list[tuple[float, ...]]] = {
        (policy, count): [] for policy in POLICIES for count in (0, 1, 50)
    }
    for _ in range(max(options.rounds, 3)):
        for (policy, count), values in runs.items():
            values.append(delays(10_000, options.seconds, count, f"plant_stalled:{policy}"))
    for (policy, count), values in runs.items():
        p99, share = [value[1] for value in values], statistics.median(value[3] for value in values)
        every = ", ".join(f"{value:,.0f}" for value in p99)
        print(f"  {policy:<13}{count:>3} stalled: median {statistics.median(p99):>7,.0f}, all {every}; {share:.0%}")
    return [
        {"what": "stalled", "side": f"{policy}, {count}", "unit": "us", "p99": [value[1] for value in values]}
        for (policy, count), values in runs.items()
    ]


def connections(options: Any) -> list[dict[str, Any]]:
    """1,000 subscribers, 1,000 messages at 200 a second."""
    folder = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
    hub = ps.open(folder)
    stream = hub.streams.get("trades", schema=WIDE)
    server = Process("_plant.servers", "plant_default", folder)
    port = int(server.hear()[0])
    server.say("cpu")
    _, empty = server.hear()
    clients = Process("_plant.clients", port, 1000, 1000, 0, 1)
    seconds = clients.hear()[0]
    server.say("cpu")
    before, held = server.hear()
    began = time.monotonic_ns()
    for number, batch in enumerate(rows(0, 1000).to_batches(max_chunksize=AT_ONCE)):
        stream.append(batch)
        time.sleep(max(0, began / 1e9 + (number + 1) * 0.05 - time.monotonic()))
    ended, _ = clients.hear()
    server.say("cpu")
    after, most = server.hear()
    print(
        f"\n1,000 subscribers: connected in {seconds:.2f} s, {(held - empty) * 1024 / 1000:.0f} KiB each; 1,000 "
        f"messages at 200/s in appends of 10: {1e6 / (after - before):,.0f} deliveries per CPU second, all there after "
        f"{(ended - began) / 1e9:.2f} s, {most:.0f} MiB then"
    )
    clients.say("end")
    clients.end()
    server.end()
    hub.close()
    shutil.rmtree(folder)
    return [{"what": "1000 connections", "connect_s": seconds, "per_cpu_s": 1e6 / (after - before), "mib": most}]


AVG = 'onmsg::{[a d];d:::{};d,["ev" "AVG"];a::{x?"c"}\'x;d,"a",+/a%#a}\n'
COLUMNS = 'oncols::{[a d];d:::{};d,["ev" "AVG"];a::x?"c";d,"a",+/a%#a}\n'
PYTHON = 'def onmsg(messages):\n    return {"ev": "AVG", "a": sum(m["c"] for m in messages) / len(messages)}\n'


def klong(options: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    folder = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
    files = {"Klong, dicts": (AVG, "kg"), "Klong, columns": (COLUMNS, "kg"), "Python, dicts": (PYTHON, "py")}
    paths = {}
    for number, (name, (text, kind)) in enumerate(files.items()):
        paths[name] = folder / f"h{number}.{kind}"
        paths[name].write_text(text)
    for size in (1, 10, 100, 1000):
        times: dict[str, list[float]] = {name: [] for name in paths}
        asyncio.run(_calls(paths, size, options.rounds, times))
        found += show(f"a handler in its own process, arrays of {size}", times, "us", "Klong, dicts")
    shutil.rmtree(folder)
    return found


async def _calls(paths: dict[str, Path], size: int, count: int, times: dict[str, list[float]]) -> None:
    from penstock.plant.handlers import Handler

    messages = [
        {"ev": "AM", "sym": f"S{n % 100}", "o": 1.0, "h": 2.0, "l": 0.5, "c": 1.5 + n, "v": n} for n in range(size)
    ]
    batch = pa.RecordBatch.from_pylist(messages)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    data = sink.getvalue().to_pybytes()
    handlers = {name: Handler(path) for name, path in paths.items()}
    for handler in handlers.values():
        await handler.start()
    calls = max(20, 2000 // (size + 10))
    for _ in range(count):
        for name, handler in handlers.items():
            began = time.perf_counter()
            for _ in range(calls):
                outcome = await (handler.on_columns(data) if "columns" in name else handler(messages))
            times[name].append((time.perf_counter() - began) / calls * 1e6)
            assert outcome.failure is None, outcome.failure
            assert abs(outcome.messages[0]["a"] - (1.5 + (size - 1) / 2)) < 1e-9
    for handler in handlers.values():
        await handler.stop()


PARTS: dict[str, Callable[[Any], list[dict[str, Any]]]] = {
    "fanout": fanout, "latency": latency, "stalled": stalled, "connections": connections, "klong": klong,
}  # fmt: skip


def main() -> None:
    options = arguments(__doc__ or "", list(PARTS), messages=60_000, seconds=3, realtime=0)
    if options.realtime:
        # On a machine that others use too: otherwise the figures say when the kernel gave us a core (needs root).
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    results: list[dict[str, Any]] = []
    for part in options.parts:
        results += PARTS[part](options)
    write(options.json, results, "websockets", "picows", "aiohttp", "klongpy", "msgspec", "pyarrow")


if __name__ == "__main__":
    main()
