"""KunQuant as it is fastest here: AVX-512 lanes where they are, symbols in blocks of a vector for batch, one thread."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from _factors.market import BARS, Array, Panel

FOUND = importlib.util.find_spec("KunQuant") is not None and shutil.which("g++") is not None


class Kun:
    """Its compiler and runtime."""

    def __init__(self) -> None:
        from KunQuant.runner import KunRunner

        self.runner = KunRunner
        self.executor = KunRunner.createSingleThreadExecutor()
        self.folder = tempfile.mkdtemp()

    def pool(self, threads: int) -> Any:
        """Its executor of that many threads: the caller is one of them."""
        return self.executor if threads == 1 else self.runner.createMultiThreadExecutor(threads - 1)

    def compile(self, build: Callable[[], None], layouts: tuple[str, str], dtype: str) -> Made:
        from KunQuant.Driver import KunCompilerConfig
        from KunQuant.jit import cfake
        from KunQuant.Op import Builder
        from KunQuant.Stage import Function

        began = time.perf_counter()
        with (builder := Builder()):
            build()
        lanes = 16 if dtype == "float32" else 8
        config = KunCompilerConfig(
            input_layout=layouts[0],
            output_layout=layouts[1],
            dtype="float" if dtype == "float32" else "double",
            blocking_len=lanes,
            partition_factor=8 if layouts[0] == "STREAM" else 3,
        )
        library = cfake.compileit([("m", Function(builder.ops), config)], "lib", cfake.CppCompilerConfig(), self.folder)
        return Made(self, library, layouts[0], lanes, time.perf_counter() - began)

    def operator(self, call: tuple[Any, ...], dtype: str = "float32") -> Made:
        """One operator of inputs a and b to an output `out`."""
        from KunQuant import Op, ops
        from KunQuant.Op import Input, Output

        made = getattr(ops, call[0], None) or getattr(Op, call[0])

        def build() -> None:
            inputs = {name: Input(name) for name in ("a", "b") if name in call}
            Output(made(*[inputs.get(x, x) if isinstance(x, str) else x for x in call[1:]]), "out")

        return self.compile(build, ("TS", "TS"), dtype)

    def library(self, name: str, stream: bool = False, dtype: str = "float32") -> Made:
        """alpha101 or alpha158, as it comes with them."""
        from KunQuant.Op import Input, Output
        from KunQuant.predefined import Alpha101, Alpha158

        names: list[str] = []

        def build() -> None:
            given = {name: Input(name) for name in BARS}
            if name == "alpha101":
                data = Alpha101.AllData(**given)
                made = {alpha.__name__: alpha(data) for alpha in Alpha101.all_alpha}
            else:
                data = Alpha158.AllData(**given)
                prices = [(name, getattr(data, name.lower())) for name in ("OPEN", "HIGH", "LOW", "VWAP")]
                shape = {"kbar": {}, "price": {"windows": [0], "feature": prices}, "rolling": {}}
                nodes, labels = data.build(shape)
                made = dict(zip(labels, nodes, strict=True))
            for label, node in made.items():
                Output(node, label)
            names.extend(made)

        layouts = ("STREAM", "STREAM") if stream else ("STs", "TS")
        result = self.compile(build, layouts, dtype)
        result.names = names
        return result


class Made:
    """A compiled graph of theirs."""

    def __init__(self, kun: Kun, library: Any, layout: str, lanes: int, seconds: float) -> None:
        self.kun, self.layout, self.lanes, self.seconds = kun, layout, lanes, seconds
        self.library = library  # its modules do not keep it alive
        self.module = library.getModule("m")
        self.names: list[str] = []

    def given(self, panel: Mapping[str, Array]) -> Panel:
        """The panel as the module wants it."""
        if self.layout != "STs":
            return dict(panel)
        made = {}
        for name, x in panel.items():
            rows, symbols = x.shape
            made[name] = np.ascontiguousarray(x.reshape(rows, symbols // self.lanes, self.lanes).swapaxes(0, 1))
        return made

    def run(self, given: Panel, out: Panel, rows: int, executor: Any = None) -> None:
        self.kun.runner.runGraph(executor or self.kun.executor, self.module, given, 0, rows, out)

    def ticks(self, panel: Panel, dtype: str = "float32", executor: Any = None) -> Callable[[int], None]:
        """A function of the row: all inputs in, run, all outputs copied into one array."""
        symbols = next(iter(panel.values())).shape[1]
        stream = self.kun.runner.StreamContext(executor or self.kun.executor, self.module, symbols)
        into = [(stream.queryBufferHandle(name), panel[name]) for name in BARS]
        outs = [stream.queryBufferHandle(name) for name in self.names]
        to = np.zeros((len(outs), symbols), dtype)

        def tick(row: int) -> None:
            for handle, x in into:
                stream.pushData(handle, x[row])
            stream.run()
            for i, handle in enumerate(outs):
                to[i] = stream.getCurrentBuffer(handle)

        return tick
