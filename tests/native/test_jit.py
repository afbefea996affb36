from __future__ import annotations

import numpy as np
import pytest

from penstock import factor as f
from penstock.errors import CompileError
from penstock.native import jit

close = f.field("close")
DATA = {"close": np.arange(12.0).reshape(4, 3)}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def made(folder):
    return sorted(path.name for path in folder.glob("*")) if folder.exists() else []


def count(monkeypatch):
    """How often code is translated."""
    calls = []
    plain = jit._translate
    monkeypatch.setattr(jit, "_translate", lambda text: calls.append(1) or plain(text))
    return calls


def test_code_is_translated_once(folder, monkeypatch):
    calls = count(monkeypatch)
    want = f.compile({"x": f.ts_sum(close, 2)}, engine="numpy").batch(DATA)["x"]
    for _ in range(3):
        got = f.compile({"x": f.ts_sum(close, 2)}, engine="llvm").batch(DATA)["x"]
        assert got.tobytes() == want.tobytes()
    assert len(calls) == 1
    assert len(made(folder)) == 1
    f.compile({"x": f.ts_sum(close, 3)}, engine="llvm")
    f.compile({"x": f.ts_sum(close, 2)}, engine="llvm", dtype="float32")
    assert len(calls) == 3
    assert folder.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "harm",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data[:100],
        lambda data: b"X" + data[1:],
        lambda data: data[:500] + bytes([data[500] ^ 1]) + data[501:],
        lambda data: b"not an object file at all",
    ],
)
def test_a_spoiled_file_is_made_again(folder, monkeypatch, harm):
    calls = count(monkeypatch)
    f.compile({"x": f.ts_sum(close, 2)}, engine="llvm")
    (name,) = made(folder)
    good = (folder / name).read_bytes()
    (folder / name).write_bytes(harm(good))
    f.compile({"x": f.ts_sum(close, 2)}, engine="llvm").batch(DATA)
    assert len(calls) == 2
    assert (folder / name).read_bytes() == good


def test_a_file_of_another_name_is_not_taken(folder, monkeypatch):
    calls = count(monkeypatch)
    f.compile({"x": f.ts_sum(close, 2)}, engine="llvm")
    (one,) = made(folder)
    f.compile({"x": f.ts_max(close, 9)}, engine="llvm")
    (other,) = (name for name in made(folder) if name != one)
    (folder / one).write_bytes((folder / other).read_bytes())
    out = f.compile({"x": f.ts_sum(close, 2)}, engine="llvm").batch(DATA)
    assert out["x"][1].tolist() == [3, 5, 7]
    assert len(calls) == 3


def test_without_a_place_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("PENSTOCK_CACHE", "")
    assert jit.folder() is None
    assert f.compile({"x": close + 1}, engine="llvm").batch(DATA)["x"][0, 0] == 1
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "file" / "under"))
    assert f.compile({"x": close + 1}, engine="llvm").batch(DATA)["x"][0, 0] == 1
    monkeypatch.delenv("PENSTOCK_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert jit.folder() == tmp_path / "penstock" / "native"


def test_the_longest_unused_go(folder, monkeypatch):
    monkeypatch.setattr(jit, "_KEPT", 2)
    folder.mkdir()
    for i in range(80):
        (folder / f"{i:032x}.o").write_bytes(b"")
    f.compile({"x": close + 2}, engine="llvm")
    assert len(made(folder)) == 2


def test_what_llvm_refuses():
    with pytest.raises(CompileError, match="the compiler wrote code that LLVM refuses: LLVM IR parsing error"):
        jit.compile_text("define void @f() { nonsense }")
    with pytest.raises(CompileError, match="compiled code has no function 'g'"):
        jit.compile_text("define void @f() {\n ret void\n}").address("g")
