"""Ticks of the 101 alphas from C and from Python, in one run; the library's size and the time to build it.

A tick is: every input pushed, one run, every output looked at. Both sides get the same rows; medians and p99 are of
wall time, so other work on the machine shows in p99 first. Building is CPU time of this process, without the linker's.

    python benchmarks/capi.py [--rounds 5] [--rows 600]
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from _report import arguments, rounds, show, write
from penstock import factor as f

GROUPS = ("sector", "industry", "subindustry")


def market(program: Any, rows: int, symbols: int) -> list[Any]:
    """A random walk per input, in the program's order."""
    rng = np.random.default_rng(0)
    made = []
    for name in program.inputs:
        x = 100 * np.exp(rng.normal(0, 0.02, (rows, symbols)).cumsum(0))
        x = np.tile(rng.integers(0, 9, symbols).astype(float), (rows, 1)) if name in GROUPS else x
        made.append(np.ascontiguousarray(x, program.dtype))
    return made


def in_python(program: Any, data: list[Any]) -> list[int]:
    """Nanoseconds of each tick."""
    live = program.stream(n=data[0].shape[1])
    inputs, outputs = len(program.inputs), len(program.outputs)
    push, current, clock, took = live.push, live.current, time.perf_counter_ns, []
    for t in range(len(data[0])):
        start = clock()
        for i in range(inputs):
            push(i, data[i][t])
        live.run()
        for i in range(outputs):
            current(inputs + i)
        took.append(clock() - start)
    return took


def in_c(exe: Path, file: Path) -> list[int]:
    """The same in a process of its own."""
    return printed(exe, file)[:-3]


def printed(exe: Path, file: Path) -> list[int]:
    """Ticks, then ns of a snapshot and of a restore, and its bytes."""
    done = subprocess.run([exe, file], capture_output=True, text=True, check=True)
    return [int(line) for line in done.stdout.split()]


def snapshots(program: Any, data: list[Any], exe: Path, file: Path) -> dict[str, Any]:
    """Milliseconds of a snapshot and of a restore, the best of five, and megabytes."""
    live = program.stream(n=data[0].shape[1])
    live.batch(dict(zip(program.inputs, data, strict=True)))
    took = {"save": 1e9, "load": 1e9}
    for _ in range(5):
        start = time.perf_counter()
        state = live.snapshot()
        between = time.perf_counter()
        program.stream(state=state)
        took["save"] = min(took["save"], 1e3 * (between - start))
        took["load"] = min(took["load"], 1e3 * (time.perf_counter() - between))
    save, load, size = printed(exe, file)[-3:]
    print(f"a snapshot of {data[0].shape[1]} symbols, {size / 1e6:.1f} MB, and a restore (ms)")
    print(f"  C {save / 1e6:.1f} and {load / 1e6:.1f}; Python {took['save']:.1f} and {took['load']:.1f}")
    return {"what": "snapshot", "bytes": size, "C": [save / 1e6, load / 1e6], "Python": list(took.values())}


def percentile(side: Callable[[], list[int]], share: float) -> float:
    """That share of ticks takes less, in µs; the first hundred, which fill the caches, are left out."""
    return float(np.quantile(side()[100:], share)) / 1000


def build(folder: Path, cpu: str) -> float:
    """Seconds of CPU."""
    start = time.process_time()
    f.build(f.library("alpha101"), folder / "libalpha.so", dtype="float32", cpu=cpu)
    return time.process_time() - start


def main() -> None:
    options = arguments(__doc__ or "", rows=600)
    if shutil.which("cc") is None:
        print("left out: all of it (there is no C compiler, cc)")
        return
    shown = []
    program = f.compile(f.library("alpha101"), dtype="float32")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for cpu in ("baseline", "x86-64-v3", "native"):
            took = statistics.median(build(folder, cpu) for _ in range(options.rounds))
            size = (folder / "libalpha.so").stat().st_size
            print(f"libalpha.so, 101 alphas, float32, {cpu}: {size / 1e3:,.0f} kB, built in {took:.2f} s of CPU")
            shown.append({"what": "library", "side": cpu, "bytes": size, "seconds": took})
        exe, source = folder / "capi", Path(__file__).with_name("capi.c")
        words = ["cc", "-O2", "-std=gnu11", source, folder / "libalpha.so", "-I", folder, f"-Wl,-rpath,{folder}"]
        subprocess.run([*words, "-o", exe], check=True)
        for symbols in (16, 512):
            data = market(program, options.rows, symbols)
            file = folder / f"data{symbols}"
            file.write_bytes(np.array([symbols, options.rows], "<i8").tobytes() + b"".join(x.tobytes() for x in data))
            for name, share in (("median", 0.5), ("p99", 0.99)):
                sides = {
                    "C": partial(percentile, partial(in_c, exe, file), share),
                    "Python": partial(percentile, partial(in_python, program, data), share),
                }
                title = f"a tick of 101 alphas, {symbols} symbols, float32, {name}"
                shown += show(title, rounds(sides, options.rounds), "us", "Python")
            shown.append(snapshots(program, data, exe, file))
    write(options.json, shown, "numpy", "llvmlite")


if __name__ == "__main__":
    main()
