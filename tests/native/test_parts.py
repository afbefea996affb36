from __future__ import annotations

import re

import numpy as np
import pytest

from penstock import factor as f
from penstock.errors import CompileError
from penstock.native import jit
from penstock.native.parts import split

PANEL = {name: np.random.default_rng(i).uniform(1, 9, (90, 21)) for i, name in enumerate(("close", "volume"))}
FACTORS = {
    "a": "rank(correlation(close, volume, 10)) - ts_rank(close, 12)",
    "b": "scale(decay_linear(close, 7)) * stddev(volume, 60)",
}

MODULE = """declare double @llvm.fabs.f64(double)
@table = internal constant [2 x i64] [i64 3, i64 4], align 64
@makers = internal constant [1 x ptr] [ptr @second]
define internal i64 @first(i64 %i) #0 {
  %at = getelementptr i64, ptr @table, i64 %i
  %x = load i64, ptr %at
  ret i64 %x
}
define internal i64 @second(i64 %i) #0 {
  %at = getelementptr i64, ptr @table, i64 %i
  %x = load i64, ptr %at
  %y = mul i64 %x, 10
  ret i64 %y
}
define i64 @both(i64 %i) #0 {
  %made = load ptr, ptr @makers
  %x = call i64 @first(i64 %i)
  %y = call i64 %made(i64 %i)
  %z = add i64 %x, %y
  ret i64 %z
}
attributes #0 = { nounwind }"""


@pytest.fixture
def parts(monkeypatch):
    """How many parts were translated, where every module is long and there are four processors."""
    monkeypatch.setattr(jit, "_LARGE", 0)
    monkeypatch.setattr(jit, "_processors", lambda: 4)
    made = []
    monkeypatch.setattr(jit, "split", lambda text, count: made.append(count) or split(text, count))
    return made


def test_one_part_is_the_module_itself():
    (only,) = split(MODULE, 1)
    assert sorted(only.split("\n")) == sorted([*MODULE.split("\n"), ""])


@pytest.mark.parametrize("count", [2, 3, 7])
def test_each_function_is_defined_once_and_declared_where_it_is_called(count):
    made = split(MODULE, count)
    assert len(made) == count
    for name in ("first", "second", "both"):
        assert sum(bool(re.search(rf"^define .*@{name}\(", one, re.M)) for one in made) == 1
    for one in made:
        for name in re.findall(r"call i64 @(\w+)", one):
            assert re.search(rf"^(declare|define) .*@{name}\(", one, re.M)
    assert sum("@table = internal constant" in one or "@table = constant" in one for one in made) == 1


def test_parts_call_each_other_and_see_the_tables(tmp_path, monkeypatch, parts):
    import ctypes

    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path))
    for cached in (False, True):
        native = jit.compile_text(MODULE)
        assert native.cached is cached
        both = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(native.address("both"))
        assert [both(0), both(1)] == [33, 44]
    assert parts == [4]
    assert len(list(tmp_path.glob("*.o"))) == 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_parts_have_the_bits_of_the_whole(tmp_path, monkeypatch, dtype, request):
    monkeypatch.setenv("PENSTOCK_CACHE", "")
    whole = f.compile(FACTORS, dtype=dtype, engine="llvm").batch(PANEL)
    parts = request.getfixturevalue("parts")
    program = f.compile(FACTORS, dtype=dtype, engine="llvm")
    assert 4 in parts
    made = program.batch(PANEL)
    assert all(made[name].tobytes() == whole[name].tobytes() for name in FACTORS)
    live = program.stream(n=21)
    live.batch({name: x[:50] for name, x in PANEL.items()})
    after = program.stream(state=live.snapshot()).batch({name: x[50:] for name, x in PANEL.items()})
    assert all(after[name].tobytes() == whole[name][50:].tobytes() for name in FACTORS)


def test_what_llvm_refuses_in_any_part(parts):
    with pytest.raises(CompileError, match="code that LLVM refuses"):
        jit.compile_text(MODULE.replace("ret i64 %z", "ret i64 %w"))
    with pytest.raises(CompileError, match="code that LLVM refuses"):
        jit.compile_text(MODULE.replace("ret i64 %x", "ret i64 %w"))
    assert parts == [4, 4]


def test_without_llvmlites_inner_function_the_locked_one_is_taken(monkeypatch):
    class Locked:
        def __init__(self, function):
            self.function, self.calls = function, 0

        def __call__(self, *args):
            self.calls += 1
            return self.function(*args)

    import llvmlite.binding as llvm

    monkeypatch.setenv("PENSTOCK_CACHE", "")
    locked = Locked(llvm.ffi.lib.LLVMPY_TargetMachineEmitToMemory)
    monkeypatch.setitem(llvm.ffi.lib._fntab, "LLVMPY_TargetMachineEmitToMemory", locked)
    assert f.compile({"x": "close + 1"}, engine="llvm").batch(PANEL)["x"][0, 0] == PANEL["close"][0, 0] + 1
    assert locked.calls == 1
