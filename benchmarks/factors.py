"""Factors over history and tick by tick: compiled, in NumPy, in KunQuant and in pandas, in one run.

Every side gets the same float32 matrices, made before the clock starts. KunQuant runs as it is fastest on this machine
(16 lanes, one thread, plain layout) into matrices that exist already, ours makes its own; pandas runs on a tenth of the
rows. Results are compared before anything is timed: with KunQuant within 1e-3 of the column's size (its own tests allow
1e-2), with the NumPy engine to the bit. Figures are CPU time, because other work on the machine does not change it.

    python benchmarks/factors.py [--rows 500] [--symbols 4096] [--rounds 3] [--alphas 1] [--json FILE]

Sides that are not installed (KunQuant wants a C++ compiler) are left out and named.
"""

from __future__ import annotations

import importlib.util
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from _report import arguments, rounds, show, write

from penstock import factor as f

Array = np.ndarray[Any, np.dtype[Any]]
Panel = dict[str, Array]
DTYPE = "float32"
KUN = importlib.util.find_spec("KunQuant") is not None and shutil.which("g++") is not None

# name: (ours, KunQuant's operator and arguments, pandas)
OPERATORS: dict[str, tuple[str, tuple[Any, ...] | None, Callable[[Any, Any], Any] | None]] = {
    "x + 1": ("a + 1", ("AddConst", "a", 1.0), lambda a, b: a + 1),
    "rank": ("cs_rank(a)", ("Rank", "a"), lambda a, b: a.rank(axis=1, pct=True)),
    "scale": ("cs_scale(a)", ("Scale", "a"), lambda a, b: a.div(a.abs().sum(axis=1), axis=0)),
    "std 20": ("ts_std(a, 20)", ("WindowedStddev", "a", 20), lambda a, b: a.rolling(20).std()),
    "std 240": ("ts_std(a, 240)", ("WindowedStddev", "a", 240), lambda a, b: a.rolling(240).std()),
    "correlation 10": (
        "ts_corr(a, b, 10)",
        ("WindowedCorrelation", "a", 10, "b"),
        lambda a, b: a.rolling(10).corr(b),
    ),
    "sum 20": ("ts_sum(a, 20)", ("WindowedSum", "a", 20), lambda a, b: a.rolling(20).sum()),
    "max 60": ("ts_max(a, 60)", ("WindowedMax", "a", 60), lambda a, b: a.rolling(60).max()),
    "argmax 10": ("ts_argmax(a, 10)", ("TsArgMax", "a", 10), None),
    "decay_linear 10": ("ts_decay_linear(a, 10)", ("DecayLinear", "a", 10), None),
    "ts_rank 10": ("ts_rank(a, 10)", ("TsRank", "a", 10), lambda a, b: a.rolling(10).rank()),
    "quantile 20": (
        "ts_quantile(a, 20, 0.8)",
        ("WindowedQuantile", "a", 20, 0.8),
        lambda a, b: a.rolling(20).quantile(0.8),
    ),
    "kurt 20": ("ts_kurt(a, 20)", ("WindowedKurt", "a", 20), lambda a, b: a.rolling(20).kurt()),
    "slope 20": ("ts_slope(a, 20)", ("WindowedLinearRegressionSlope", "a", 20), None),
    "max_drawdown 20": ("ts_max_drawdown(a, 20)", ("WindowedMaxDrawdown", "a", 20), None),
    "ema 20": ("ts_ema(a, 20)", ("ExpMovingAvg", "a", 20), lambda a, b: a.ewm(span=20, adjust=False).mean()),
    "log": ("log(a)", ("Log", "a"), lambda a, b: np.log(a)),
    "pow 1.7": ("a ** 1.7", None, lambda a, b: a**1.7),
    "group demean": ("cs_indneutralize(a, b)", None, None),
}


def prices(rows: int, symbols: int) -> Panel:
    """Random walks, and as `b` further ones."""
    random = np.random.default_rng(7)
    walks = (20 * np.exp(random.normal(0, 0.02, (2, rows, symbols)).cumsum(1))).astype(DTYPE)
    return {"a": walks[0], "b": walks[1]}


def market(rows: int, symbols: int) -> Panel:
    """Daily bars with what the 101 alphas want beside."""
    random = np.random.default_rng(1)
    start = random.uniform(0.5, 100, symbols) * np.exp(random.normal(0, 0.03, (rows, symbols)).cumsum(0))
    close = start * random.uniform(0.95, 1.05, start.shape)
    volume = random.uniform(5, 10, start.shape)
    panel = {
        "open": start,
        "close": close,
        "high": np.maximum(start, close) * random.uniform(1, 1.05, start.shape),
        "low": np.minimum(start, close) * random.uniform(0.95, 1, start.shape),
        "volume": volume,
        "amount": volume * start,
        "vwap": start * random.uniform(0.99, 1.01, start.shape),
        "cap": random.uniform(1, 100, start.shape),
    }
    for name, groups in (("sector", 5), ("industry", 12), ("subindustry", 30)):
        panel[name] = np.tile(random.integers(0, groups, symbols), (rows, 1))
    return {name: np.ascontiguousarray(x, DTYPE) for name, x in panel.items()}


class Kun:
    """KunQuant's compiler and runtime, if it is there."""

    def __init__(self) -> None:
        from KunQuant.runner import KunRunner

        self.runner = KunRunner
        self.executor = KunRunner.createSingleThreadExecutor()
        self.folder = tempfile.mkdtemp()

    def compile(self, build: Callable[[], None], stream: bool = False) -> tuple[Any, float]:
        """The module that `build` describes, and the seconds it took."""
        from KunQuant.Driver import KunCompilerConfig
        from KunQuant.jit import cfake
        from KunQuant.Op import Builder
        from KunQuant.Stage import Function

        began = time.perf_counter()
        with (builder := Builder()):
            build()
        layout = "STREAM" if stream else "TS"
        config = KunCompilerConfig(
            input_layout=layout,
            output_layout=layout,
            dtype="float",
            blocking_len=16,
            partition_factor=8 if stream else 3,
        )
        library = cfake.compileit([("m", Function(builder.ops), config)], "lib", cfake.CppCompilerConfig(), self.folder)
        self.library = library  # its modules do not keep it alive
        return library.getModule("m"), time.perf_counter() - began

    def operator(self, call: tuple[Any, ...]) -> Any:
        from KunQuant import Op, ops
        from KunQuant.Op import Input, Output

        made = getattr(ops, call[0], None) or getattr(Op, call[0])

        def build() -> None:
            inputs = {name: Input(name) for name in ("a", "b") if name in call}
            Output(made(*[inputs.get(x, x) if isinstance(x, str) else x for x in call[1:]]), "out")

        return self.compile(build)[0]

    def alphas(self, stream: bool = False) -> tuple[Any, float, list[str]]:
        from KunQuant.Op import Input, Output
        from KunQuant.predefined.Alpha101 import AllData, all_alpha

        def build() -> None:
            data = AllData(**{name: Input(name) for name in ("open", "close", "high", "low", "volume", "amount")})
            for alpha in all_alpha:
                Output(alpha(data), alpha.__name__)

        return *self.compile(build, stream), [alpha.__name__ for alpha in all_alpha]

    def run(self, module: Any, panel: Panel, out: Panel) -> None:
        rows = len(next(iter(panel.values())))
        self.runner.runGraph(self.executor, module, panel, 0, rows, out)


def spent(work: Callable[[], Any]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def agree(name: str, got: Array, want: Array, where: str) -> None:
    """Nearly equal where both have a number; both have one nearly everywhere."""
    both = np.isfinite(got) & np.isfinite(want)
    scale = np.maximum(np.abs(want), np.nanmax(np.abs(want[both])) * 1e-2)
    wrong = np.abs(got - want)[both] > 1e-3 * scale[both]
    if wrong.mean() > 1e-3 or both.mean() < 0.9 * np.isfinite(want).mean():
        print(f"  {name}: {wrong.mean():.2%} of cells differ from {where}")


def operators(options: Any, kun: Kun | None) -> list[dict[str, Any]]:
    panel = prices(options.rows, options.symbols)
    cells = options.rows * options.symbols
    table: list[tuple[str, dict[str, float]]] = []
    shown: list[dict[str, Any]] = []
    short = max(250, options.rows // 10)
    for name, (text, call, frame) in OPERATORS.items():
        data = dict(panel)
        if name == "group demean":
            data["b"] = np.ascontiguousarray(np.tile(np.arange(options.symbols) % 30, (options.rows, 1)), DTYPE)
        sides: dict[str, Callable[[], float]] = {}
        programs = {engine: f.compile({"out": text}, dtype=DTYPE, engine=engine) for engine in ("llvm", "numpy")}
        mine, definition = (p.batch(data)["out"] for p in programs.values())
        if (mine.view("u4") != definition.view("u4")).any():
            raise SystemExit(f"{name}: the engines differ")
        for engine, program in programs.items():
            sides[f"penstock, {engine}"] = lambda program=program, data=data: (
                cells / spent(lambda: program.batch(data)) / 1e6
            )
        if kun is not None and call is not None:
            module = kun.operator(call)
            inputs = {k: x for k, x in data.items() if k in call}
            out = {"out": np.zeros_like(panel["a"])}
            kun.run(module, inputs, out)
            agree(name, mine, out["out"], "KunQuant")
            sides["KunQuant"] = lambda m=module, i=inputs, o=out: cells / spent(lambda: kun.run(m, i, o)) / 1e6
        if frame is not None and importlib.util.find_spec("pandas"):
            import pandas as pd

            few = {k: pd.DataFrame(x[:short]) for k, x in data.items()}
            size = short * options.symbols
            sides["pandas"] = lambda x=few, go=frame, size=size: size / spent(lambda: go(x["a"], x["b"])) / 1e6
        figures = rounds(sides, options.rounds)
        shown += show(f"{name}, {options.symbols} symbols", figures, "M values/s", "penstock, llvm")
        table.append((name, {side: 1000 / statistics.median(values) for side, values in figures.items()}))
    head = ["penstock, llvm", "penstock, numpy", "KunQuant", "pandas"]
    print(f"\n{'ns per value (median)':<24}" + "".join(f"{side:>18}" for side in head))
    for name, row in table:
        print(f"{name:<24}" + "".join(f"{row[side]:>18.2f}" if side in row else f"{'-':>18}" for side in head))
    return shown


def alphas(options: Any, kun: Kun | None) -> list[dict[str, Any]]:
    """The alphas that both have, over history and as ticks."""
    library = f.library("alpha101")
    names = list(library)
    shown: list[dict[str, Any]] = []
    modules: dict[bool, Any] = {}
    if kun is not None:
        for stream in (False, True):
            module, seconds, names = kun.alphas(stream)
            modules[stream] = module, kun.library
            print(f"KunQuant compiles {len(names)} alphas{' for ticks' if stream else ''} in {seconds:.2f} s")
    mine = {name: library[name] for name in names}
    began = time.perf_counter()
    program = f.compile(mine, dtype=DTYPE)
    first = time.perf_counter() - began
    began = time.perf_counter()
    program = f.compile(mine, dtype=DTYPE)
    again = time.perf_counter() - began
    print(
        f"penstock compiles {len(names)} alphas in {first:.2f} s (less if the cache had them), again in {again:.2f} s"
    )
    for symbols, rows in ((64, 2600), (1024, 500), (4096, 250)):
        panel = market(rows, symbols)
        given = {name: panel[name] for name in ("open", "close", "high", "low", "volume", "amount")}
        cells = rows * symbols * len(names)
        out = {name: np.zeros((rows, symbols), DTYPE) for name in names}
        sides = {"penstock": lambda panel=panel, cells=cells: cells / spent(lambda: program.batch(panel)) / 1e6}
        if kun is not None:
            module = modules[False][0]
            sides["KunQuant"] = lambda m=module, g=given, o=out, c=cells: c / spent(lambda: kun.run(m, g, o)) / 1e6
        shown += show(
            f"{len(names)} alphas, {symbols} x {rows}", rounds(sides, options.rounds), "M values/s", "penstock"
        )
    for symbols in (16, 512, 4096):
        panel = market(64, symbols)
        live = program.stream(n=symbols)
        handles = [(live.handle(name), panel[name]) for name in program.inputs]

        def tick(live: Any = live, handles: Any = handles) -> float:
            took = []
            for row in range(64):
                began = time.perf_counter()
                for handle, x in handles:
                    live.push(handle, x[row])
                live.run()
                live.block().copy()
                took.append(time.perf_counter() - began)
            return statistics.median(took) * 1e6

        ticks = {"penstock": tick}
        if kun is not None:
            stream = kun.runner.StreamContext(kun.executor, modules[True][0], symbols)
            into = [(stream.queryBufferHandle(name), panel[name]) for name in given]
            outs = [stream.queryBufferHandle(name) for name in names]
            rows_out = np.zeros((len(names), symbols), DTYPE)

            def theirs(stream: Any = stream, into: Any = into, outs: Any = outs, to: Array = rows_out) -> float:
                took = []
                for row in range(64):
                    began = time.perf_counter()
                    for handle, x in into:
                        stream.pushData(handle, x[row])
                    stream.run()
                    for i, handle in enumerate(outs):
                        to[i] = stream.getCurrentBuffer(handle)
                    took.append(time.perf_counter() - began)
                return statistics.median(took) * 1e6

            ticks["KunQuant"] = theirs
        shown += show(f"{len(names)} alphas, a tick of {symbols}", rounds(ticks, options.rounds), "us", "penstock")
    return shown


def main() -> None:
    options = arguments(__doc__ or "", rows=500, symbols=4096, alphas=1)
    kun = Kun() if KUN else None
    if kun is None:
        print("left out: KunQuant (not installed, or no g++)")
    shown = operators(options, kun)
    if options.alphas:
        shown += alphas(options, kun)
    write(options.json, shown, "numpy", "llvmlite", "KunQuant", "pandas")


if __name__ == "__main__":
    main()
