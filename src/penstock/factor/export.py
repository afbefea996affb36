"""Programs as libraries for C: machine code, the runtime around it, and their header.

The library needs neither Python nor this package. What is in it is written by `capi/`; the header says what each
function takes, gives and refuses, and docs/c-abi.md shows a program that uses it.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.errors import FactorError
from penstock.factor.functions import is_function
from penstock.factor.program import Program, compile

if TYPE_CHECKING:
    from penstock.factor.capi import Facts

__all__ = ["Built", "build"]

_PREFIX = re.compile(r"[a-z][a-z0-9_]{0,30}\Z")
_SHARED = (".so", ".dylib")


@dataclass(frozen=True, slots=True)
class Built:
    """What `build` wrote.

    `library`: the shared library, None where only an object was asked for or nothing can link; `object`: the object
    file, None where it went into the library; `digest`: the program's; `cpu`: as asked for; `note`: how to go on.
    """

    library: Path | None
    object: Path | None
    header: Path
    digest: str
    cpu: str
    note: str


def build(
    factors: Mapping[str, object] | Program,
    path: str | os.PathLike[str],
    *,
    dtype: str | np.dtype[Any] | type | None = None,
    cpu: str = "native",
    prefix: str = "ps",
    header: str | os.PathLike[str] | None = None,
) -> Built:
    """Write factors as a C library.

    Takes   factors: what `compile` takes, or a compiled program;
            path: `libalpha.so` for a shared library, `alpha.o` for an object file, `penstock.h` for the header alone;
            dtype: "float64" (default) or "float32"; a program has its own;
            cpu: "native" for this processor, "baseline" for every one of its family, or "x86-64-v2", "x86-64-v3",
            "x86-64-v4"; the bits are the same, and a library refuses to open on less than it was built for;
            prefix: of all names, in place of `ps`, for two programs linked into one;
            header: its file, by default `penstock.h` (or `<prefix>.h`) beside `path`.
    Returns what was written. Where there is no linker: the object file beside `path`, and a note how to link it.
    Raises  FactorError for other endings, processors and prefixes, NumPy functions (`f.cross_numpy`), a file that
            cannot be written, a linker that refuses.
    """
    if not find_spec("llvmlite"):
        raise FactorError("build takes llvmlite, which is not installed", hint="pip install llvmlite")
    from penstock.factor import capi
    from penstock.native import jit

    place, target = Path(path), capi.target(cpu)
    if place.suffix not in (*_SHARED, ".o", ".h"):
        raise FactorError(expected="a file that ends in .so, .o or .h", got=repr(place.name), where="in build")
    if not _PREFIX.match(prefix):
        raise FactorError(
            expected="a prefix of lower case letters, digits and _, up to 31", got=repr(prefix), where="in build"
        )
    beside = place.with_name("penstock.h" if prefix == "ps" else f"{prefix}.h") if header is None else Path(header)
    if place.suffix == ".h":
        beside = place
    if not place.parent.is_dir():
        raise FactorError(f"there is no folder {str(place.parent)!r} to put {place.name!r} into", where="in build")
    facts = _facts(factors, dtype)
    library: Path | None = None
    alone: Path | None = None
    note = "the header alone was written"
    if place.suffix != ".h":
        runtime, public = capi.write(facts, target, prefix)
        texts = [facts.module.text, runtime]
        binary = jit.object_file(texts, cpu=target.cpu, features=target.features, keep=frozenset(public))
        linker = _linker() if place.suffix in _SHARED else None
        if linker is not None:
            library = place
            _link(linker, binary, place)
            found = f"-Wl,-rpath,{shlex.quote(str(place.parent.resolve()))}"
            words = shlex.join(["cc", "program.c", "-I", str(beside.parent), str(place)])
            note = f"compile with {words} {found}, or load it with dlopen"
        else:
            alone = place.with_suffix(".o")
            _write(alone, binary)
            how = _command(alone, place.with_suffix(".so") if place.suffix == ".o" else place)
            why = "" if place.suffix == ".o" else "there is no linker here (cc, gcc, clang, ziglang); "
            note = f"{why}link with {how}"
    _write(beside, capi.header(prefix).encode())
    return Built(library, alone, beside, facts.program.digest, cpu, note)


def _facts(factors: Mapping[str, object] | Program, dtype: Any) -> Facts:
    """The program and its code."""
    from penstock.factor.capi import Facts
    from penstock.factor.llvm.engine import LlvmCode
    from penstock.factor.llvm.module import write

    if not isinstance(factors, Program):
        # The code is not to run here.
        made = compile(factors, dtype="float64" if dtype is None else dtype, engine="numpy")
    else:
        made = factors
        if dtype is not None and _name(dtype) != made.dtype.name:
            raise FactorError(
                f"the program computes in {made.dtype}, and dtype={_name(dtype)!r} was asked for",
                where="in build",
                hint="give the factors instead of the program",
            )
    function = next(filter(is_function, made.plan.nodes), None)
    if function is not None:
        raise FactorError(
            f"operator {function.op!r} is a NumPy function, which a C library cannot call",
            where="in build",
            hint="write it with f.cross(), in the words of penstock.factor.machine, or leave out the factors it is in",
        )
    code = made.new_engine
    return Facts(made, code.module if isinstance(code, LlvmCode) else write(made.plan, made.layout, made.dtype))


def _name(dtype: Any) -> str:
    try:
        return str(np.dtype(dtype).name)
    except TypeError:
        return str(dtype)


def _write(path: Path, data: bytes) -> None:
    """All of a file or nothing."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        beside.write_bytes(data)
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise FactorError(f"cannot write {str(path)!r}: {error.strerror}", where="in build") from error


# ---- linking ----


def _linker() -> list[str] | None:
    """The system's compiler, which knows how to link; `CC` names another one."""
    given = shlex.split(os.environ.get("CC", ""))
    if given and shutil.which(given[0]) is None:
        raise FactorError(
            f"CC names {given[0]!r}, which is not there", where="in build", hint="name another, or unset CC"
        )
    for words in [given] if given else [["cc"], ["gcc"], ["clang"]]:
        if (found := shutil.which(words[0])) is not None:
            return [found, *words[1:]]
    return [sys.executable, "-m", "ziglang", "cc"] if find_spec("ziglang") else None


def _arguments(binary: Path, library: Path, name: str) -> list[str]:
    if sys.platform == "darwin":
        return ["-shared", "-o", str(library), str(binary), f"-Wl,-install_name,@rpath/{name}"]
    hard = ["-Wl,-z,noexecstack", "-Wl,-z,relro", "-Wl,-z,now", "-Wl,--as-needed"]
    return ["-shared", "-o", str(library), str(binary), f"-Wl,-soname,{name}", *hard]


def _command(binary: Path, library: Path) -> str:
    return shlex.join(["cc", *_arguments(binary, library, library.name)])


def _link(linker: list[str], binary: bytes, path: Path) -> None:
    """A shared library at `path`, all of it or nothing."""
    with tempfile.TemporaryDirectory(prefix="penstock") as folder:
        source, made = Path(folder) / "program.o", Path(folder) / path.name
        source.write_bytes(binary)
        words = [*linker, *_arguments(source, made, path.name)]
        try:
            done = subprocess.run(words, capture_output=True, text=True, check=False)
        except OSError as error:
            raise FactorError(f"cannot start the linker {linker[0]!r}: {error.strerror}", where="in build") from error
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise FactorError(
                f"the linker {linker[0]!r} refused: {said[-1] if said else f'status {done.returncode}'}",
                where="in build",
                hint="write an object file (.o) and link it yourself, or name another linker in CC",
            )
        _write(path, made.read_bytes())
        path.chmod(0o755)
