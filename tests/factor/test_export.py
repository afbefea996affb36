"""What `build` writes and refuses; libraries loaded into this process against the programs they are of.

Programs in C that use them are in tests/capi.
"""

from __future__ import annotations

import ctypes as c
import os
import re
import shutil
import stat

import numpy as np
import pytest

from penstock import factor as f
from penstock.errors import FactorError
from penstock.factor.table import TABLE

f.operators()
MEAN = {"mean": "ts_mean(close, 5)"}


@pytest.fixture
def linker(need):
    need(shutil.which("cc"), "cc, the system's C compiler")


class Loaded:
    """A library's functions, on arrays."""

    def __init__(self, built):
        self.functions = c.CDLL(str(built.library))
        for name in ("error_text", "program_digest", "program_input", "program_output"):
            getattr(self.functions, f"ps_{name}").restype = c.c_char_p
        for name in ("program_lookback", "program_warmup", "stream_snapshot"):
            getattr(self.functions, f"ps_{name}").restype = c.c_int64
        self.program = c.c_void_p()
        self.check(self.functions.ps_program_open(1, c.byref(self.program)))

    def check(self, status):
        assert status == 0, self.functions.ps_error_text()

    def batch(self, stream, data, outputs):
        """Outputs as (rows, symbols)."""
        first = next(iter(data.values()))
        made = {name: np.empty_like(first) for name in outputs}
        given, taken = self.addresses(data.values()), self.addresses(made.values())
        self.check(self.functions.ps_stream_batch(stream, given, taken, c.c_int64(len(first))))
        return made

    @staticmethod
    def addresses(arrays):
        places = [x.ctypes.data for x in arrays]
        return (c.c_void_p * max(1, len(places)))(*places)

    def create(self, symbols):
        stream = c.c_void_p()
        self.check(self.functions.ps_stream_create(self.program, c.c_int64(symbols), c.c_int64(0), c.byref(stream)))
        return stream

    def restore(self, state):
        stream = c.c_void_p()
        self.check(self.functions.ps_stream_restore(self.program, state, c.c_size_t(len(state)), c.byref(stream)))
        return stream

    def snapshot(self, stream):
        size = self.functions.ps_stream_snapshot(stream, None, c.c_size_t(0))
        state = c.create_string_buffer(size)
        assert self.functions.ps_stream_snapshot(stream, state, c.c_size_t(size)) == size
        return state.raw


def wild(program, rows, keys):
    """Inputs with holes, zeros of both signs, infinities, denormals, ties and constant stretches."""
    rng = np.random.default_rng(keys)
    made = {}
    for name in program.inputs:
        x = np.abs(rng.normal(0, 1, (rows, keys)).cumsum(0) + 5)
        x = np.where(rng.random(x.shape) < 0.2, np.round(x), x)
        x[rows // 3 : rows // 2] = x[rows // 3]
        for value in (0.0, -0.0, np.nan, np.inf, -np.inf, np.finfo(program.dtype).smallest_subnormal, 1e30, -2.5):
            x[rng.random(x.shape) < 0.01] = value
        made[name] = x.astype(program.dtype)
    return made


def assert_same(program, folder, rows=70, cut=31, symbols=(1, 21)):
    """Outputs and snapshots of the library are the program's, also after going from one to the other in the middle."""
    loaded = Loaded(f.build(program, folder / "libthis.so"))
    for keys in symbols:
        data = wild(program, rows, keys)
        before, after = (
            {name: np.ascontiguousarray(x[part]) for name, x in data.items()} for part in (slice(cut), slice(cut, None))
        )
        live, stream = program.stream(n=keys), loaded.create(keys)
        for part in (before, after):
            want, got = live.batch(part), loaded.batch(stream, part, program.outputs)
            assert [name for name in want if want[name].tobytes() != got[name].tobytes()] == []
            state = loaded.snapshot(stream)
            assert state == live.snapshot()
            loaded.functions.ps_stream_destroy(stream)
            live, stream = program.stream(state=state), loaded.restore(live.snapshot())
        loaded.functions.ps_stream_destroy(stream)


def every_operator():
    """One output per operator, cross-sectional ones on groups too."""
    nodes = f.fields("a", "b", "c")
    made = {}
    for i, (name, operator) in enumerate(sorted(TABLE.items())):
        args = [nodes[(i + j) % 3] for j in range(len(operator.operands))]
        attrs = {
            p.name: {"Rows": max(int(p.least or 1), 6), "Share": 0.3, "Number": 1.5, "Flag": True}[p.kind]
            for p in operator.attributes
        }
        made[f"out_{name}"] = operator(*args, **attrs)
    return made


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_operator(linker, tmp_path, dtype):
    assert_same(f.compile(every_operator(), dtype=dtype), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["alpha101", "alpha158", "ta"])
def test_every_library(linker, tmp_path, name, dtype):
    assert_same(f.compile(f.library(name), dtype=dtype), tmp_path, rows=300, cut=270, symbols=(21,))


@pytest.mark.parametrize(
    "factors", [{"one": 1.0}, {"sum": f.field("a") + 1}, {"one": 1.0, "rank": f.rank(f.field("a"))}]
)
def test_programs_without_inputs_or_state(linker, tmp_path, factors):
    program = f.compile(factors)
    loaded = Loaded(f.build(program, tmp_path / "libthis.so"))
    stream = loaded.create(3)
    data = {"a": np.arange(12.0).reshape(4, 3)}
    assert loaded.batch(stream, {name: data[name] for name in program.inputs} or data, program.outputs).keys() == {
        *program.outputs
    }
    live = program.stream(n=3)
    want = live.batch(data)
    got = loaded.batch(loaded.create(3), {name: data[name] for name in program.inputs} or data, program.outputs)
    assert {name: x.tobytes() for name, x in got.items()} == {name: x.tobytes() for name, x in want.items()}
    assert loaded.snapshot(stream) == live.snapshot()
    loaded.functions.ps_stream_destroy(stream)


def test_facts_of_the_program(linker, tmp_path):
    program = f.compile({"mean": f.ts_mean(f.field("clôse"), 5), "fast": f.delay(f.field("open"), 2)})
    built = f.build(program, tmp_path / "libthis.so")
    loaded = Loaded(built)
    functions, made = loaded.functions, loaded.program
    assert functions.ps_program_digest(made).decode() == program.digest == built.digest
    assert [functions.ps_program_input(made, i).decode() for i in range(2)] == list(program.inputs)
    assert [functions.ps_program_output(made, i).decode() for i in range(2)] == list(program.outputs)
    assert [functions.ps_program_lookback(made, i) for i in range(2)] == list(program.lookback.values())
    assert functions.ps_program_warmup(made) == program.warmup
    stream = loaded.create(1)
    assert functions.ps_stream_handle(stream, "clôse".encode()) == program.inputs.index("clôse")
    functions.ps_stream_destroy(stream)


# ---- what is written ----


def test_a_library_and_its_header(linker, tmp_path):
    built = f.build(MEAN, tmp_path / "libmean.so")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["libmean.so", "penstock.h"]
    assert built.library == tmp_path / "libmean.so"
    assert built.header == tmp_path / "penstock.h"
    assert built.object is None
    assert built.digest == f.compile(MEAN).digest
    assert stat.S_IMODE(built.library.stat().st_mode) == 0o755
    assert f"cc program.c -I {tmp_path} {built.library} -Wl,-rpath,{tmp_path}, or load it with dlopen" in built.note


def test_the_same_factors_give_the_same_object(tmp_path):
    made = []
    for name in ("a.o", "b.o"):
        built = f.build(MEAN, str(tmp_path / name), header=tmp_path / "other.h")
        assert (built.library, built.object, built.header) == (None, tmp_path / name, tmp_path / "other.h")
        assert built.note.startswith("link with cc -shared -o ")
        made.append(built.object.read_bytes())
    assert made[0] == made[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.o", "b.o", "other.h"]


def test_programs_of_either_engine_give_the_same_object(tmp_path):
    made = [
        f.build(f.compile(MEAN, engine=engine), tmp_path / "a.o").object.read_bytes() for engine in ("llvm", "numpy")
    ]
    made.append(f.build(MEAN, tmp_path / "a.o", dtype="float64").object.read_bytes())
    assert made[0] == made[1] == made[2]
    assert f.build(MEAN, tmp_path / "a.o", dtype="float32").object.read_bytes() != made[0]


def test_the_header_alone_and_its_prefix(tmp_path):
    built = f.build(MEAN, tmp_path / "alpha.h", prefix="alpha")
    assert (built.library, built.object, built.header) == (None, None, tmp_path / "alpha.h")
    text = built.header.read_text()
    assert "alpha_status alpha_stream_run(alpha_stream *stream);" in text
    assert "#define ALPHA_ABI_VERSION 1" in text
    assert re.findall(r"\b(ps|PS)_", text) == []
    plain = f.build(MEAN, tmp_path / "penstock.h").header.read_text()
    assert max(map(len, plain.splitlines())) <= 120


def test_without_a_linker_there_is_an_object_to_link(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("penstock.factor.export.find_spec", lambda name: name == "llvmlite")
    built = f.build(MEAN, tmp_path / "libmean.so")
    assert (built.library, built.object) == (None, tmp_path / "libmean.o")
    assert built.note.startswith("there is no linker here (cc, gcc, clang, ziglang); link with cc -shared -o ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["libmean.o", "penstock.h"]


def test_a_linker_of_ones_own(linker, tmp_path, monkeypatch):
    monkeypatch.setenv("CC", "cc -v")
    assert f.build(MEAN, tmp_path / "libmean.so").library is not None
    wrong = tmp_path / "wrong"
    wrong.write_text("#!/bin/sh\necho 'no room for programs' >&2\nexit 3\n")
    wrong.chmod(0o755)
    monkeypatch.setenv("CC", str(wrong))
    with pytest.raises(
        FactorError, match=r"the linker '.*wrong' refused: no room for programs - in build; write an object"
    ):
        f.build(MEAN, tmp_path / "libother.so")
    wrong.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(FactorError, match=r"the linker '.*wrong' refused: status 3 - in build"):
        f.build(MEAN, tmp_path / "libother.so")
    monkeypatch.setenv("CC", str(tmp_path / "nothing"))
    with pytest.raises(FactorError, match=r"CC names '.*nothing', which is not there - in build"):
        f.build(MEAN, tmp_path / "libother.so")
    wrong.write_text("not a program")
    monkeypatch.setenv("CC", str(wrong))
    with pytest.raises(FactorError, match=r"cannot start the linker '.*wrong': Exec format error - in build"):
        f.build(MEAN, tmp_path / "libother.so")
    assert not (tmp_path / "libother.so").exists()


# ---- what is refused ----


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("mean", {}, r"expected a file that ends in \.so, \.o or \.h, got 'mean' - in build"),
        ("mean.dll", {}, r"expected a file that ends in \.so, \.o or \.h, got 'mean\.dll'"),
        ("none/mean.o", {}, r"there is no folder '.*none' to put 'mean\.o' into"),
        ("mean.o", {"prefix": "2x"}, r"expected a prefix of lower case letters, digits and _, up to 31, got '2x'"),
        ("mean.o", {"prefix": "Ps"}, "expected a prefix of lower case letters"),
        ("mean.o", {"cpu": "pentium"}, r"expected a cpu of 'native', 'baseline'.*, got 'pentium'"),
        ("mean.o", {"dtype": "int8"}, "expected dtype 'float64' or 'float32', got 'int8'"),
        ("mean.o", {"header": "none/x.h"}, r"cannot write 'none/x\.h': No such file or directory - in build"),
    ],
)
def test_what_cannot_be_built(tmp_path, name, options, message):
    with pytest.raises(FactorError, match=message):
        f.build(MEAN, tmp_path / name, **options)


def test_a_program_keeps_its_dtype(tmp_path):
    program = f.compile(MEAN, dtype="float32")
    assert f.build(program, tmp_path / "a.o", dtype="float32").digest == program.digest
    with pytest.raises(FactorError, match="the program computes in float32, and dtype='float64' was asked for"):
        f.build(program, tmp_path / "a.o", dtype="float64")
    with pytest.raises(FactorError, match="and dtype='words' was asked for"):
        f.build(program, tmp_path / "a.o", dtype="words")


def test_a_folder_that_may_not_be_written_to(tmp_path, need):
    need(os.geteuid() != 0 or os.path.isdir("/proc/self"), "a folder that even root cannot write to")
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    with pytest.raises(FactorError, match="cannot write"):
        f.build(MEAN, "/proc/self/mean.o" if os.geteuid() == 0 else folder / "mean.o")


def test_without_llvmlite(tmp_path, monkeypatch):
    monkeypatch.setattr("penstock.factor.export.find_spec", lambda name: None)
    with pytest.raises(FactorError, match="build takes llvmlite, which is not installed; pip install llvmlite"):
        f.build(MEAN, tmp_path / "mean.o")


def test_processors_by_name():
    from penstock.factor import capi
    from penstock.native import jit

    native = capi.target("native")
    assert native.cpu == jit.host()[1]
    if native.x86:
        there = jit.host()[2]
        assert all(there[name] for name in native.needs)
        assert capi.target("baseline").needs == ()
        assert {"avx2", "fma", "sse4.2"} < set(capi.target("x86-64-v3").needs) < set(capi.target("x86-64-v4").needs)
    else:
        assert capi.target("baseline") == capi.Target("baseline", "generic", "", (), False)
