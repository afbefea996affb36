"""From text to machine code: in this process, by way of a cache on disk, or as an object file for others.

The cache holds object files named by a digest of all that decides their bytes: the text, the processor and its
features, llvmlite's and LLVM's versions. A file is written beside and moved into place, carries a digest of its own,
and counts as absent whenever anything about it is wrong. `PENSTOCK_CACHE` names another folder; empty means none.

`PENSTOCK_CPU` names a lesser processor to translate for than the one at hand (`baseline`, `x86-64`, `x86-64-v2`, `-v3`,
`-v4`): to share one cache between machines, or to see that results have the same bits there. It is read once per
process.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import xxhash

from penstock.errors import CompileError
from penstock.native.parts import split

__all__ = ["LEVELS", "Native", "compile_text", "folder", "host", "object_file"]

_MAGIC = b"PSOBJ002"
_KEPT = 512
"""Files kept in the cache; the longest unused go first."""

_EFFORT = 1
"""Of code generation: 2 takes a sixth longer and gains nothing that could be measured (docs/design/0017)."""

_LARGE = 200_000
"""Characters of a module from which on threads translate it side by side: some 0.15 s for one of them."""

_PARTS = 4
"""Threads that translate one module at most."""

_lock = threading.Lock()


class Native:
    """Loaded code: addresses of its functions, for as long as this object lives.

    `size`: of the object files in bytes; `file`: where they are kept, None for nowhere; `cached`: whether they were
    there.
    """

    def __init__(self, binaries: Sequence[bytes], file: Path | None = None, *, cached: bool = False) -> None:
        self.size, self.file, self.cached = sum(map(len, binaries)), file, cached
        with _lock:
            holder = llvm.parse_assembly("")
            self._engine = llvm.create_mcjit_compiler(holder, _machine())
            for binary in binaries:
                self._engine.add_object_file(llvm.ObjectFileRef.from_data(binary))
            self._engine.finalize_object()

    def address(self, name: str) -> int:
        found = int(self._engine.get_function_address(name))
        if not found:
            raise CompileError(f"compiled code has no function {name!r}")
        return found


LEVELS: dict[str, tuple[str, ...]] = {"x86-64": ()}
"""Levels of the x86-64 psABI, and features without which a processor is below them."""
LEVELS["x86-64-v2"] = ("cx16", "popcnt", "sse3", "sse4.1", "sse4.2", "ssse3")
LEVELS["x86-64-v3"] = (*LEVELS["x86-64-v2"], "avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe")
LEVELS["x86-64-v4"] = (*LEVELS["x86-64-v3"], "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")


@cache
def _target() -> tuple[Any, str, str, str]:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    triple = llvm.get_process_triple()
    there = llvm.get_host_cpu_features()
    cpu, features = _lesser(triple, there) or (llvm.get_host_cpu_name(), there.flatten())
    return llvm.Target.from_triple(triple), triple, cpu, features


def _lesser(triple: str, there: dict[str, bool]) -> tuple[str, str] | None:
    """The processor that `PENSTOCK_CPU` asks for; None for the one at hand."""
    name = os.environ.get("PENSTOCK_CPU", "")
    if name in ("", "native"):
        return None
    levels = LEVELS if triple.startswith(("x86_64", "amd64")) else {}
    if name != "baseline" and name not in levels:
        known = ", ".join(map(repr, ("native", "baseline", *levels)))
        raise CompileError(expected=f"PENSTOCK_CPU of {known}", got=repr(name))
    lacks = [feature for feature in levels.get(name, ()) if not there.get(feature)]
    if lacks:
        raise CompileError(
            f"PENSTOCK_CPU is {name!r}, this processor lacks {', '.join(lacks)}", hint="name a lesser one"
        )
    return (name if name in levels else "x86-64" if levels else "generic"), ""


def _machine() -> Any:
    target, _, cpu, features = _target()
    return target.create_target_machine(cpu=cpu, features=features, opt=_EFFORT, jit=True)


def compile_text(text: str) -> Native:
    """Machine code for a module's text, from the cache if it is there.

    Cost  about 0.1 ms per instruction the first time, then a few milliseconds.
    Raises  CompileError if LLVM refuses the text.
    """
    _, triple, cpu, features = _target()
    facts = f"{triple}|{cpu}|{features}|{llvmlite.__version__}|{llvm.llvm_version_info}|{_EFFORT}|"
    name = xxhash.xxh3_128_hexdigest((facts + text).encode())
    found, place = _read(name), folder()
    file = None if place is None else place / f"{name}.o"
    if found is not None:
        # Another build of the same name may differ in what its loader accepts: then it is as good as absent.
        with contextlib.suppress(RuntimeError):
            return Native(found, file, cached=True)
    binaries = _translate(text)
    _write(name, binaries)
    return Native(binaries, file)


def host() -> tuple[str, str, dict[str, bool]]:
    """Triple, processor and its features, as LLVM calls them."""
    return _target()[1], llvm.get_host_cpu_name(), dict(llvm.get_host_cpu_features())


def object_file(texts: Sequence[str], *, cpu: str, features: str = "", keep: Collection[str] = ()) -> bytes:
    """An object file for this system's linker: position independent, for that processor.

    Takes   texts: modules that call each other; cpu, features: as LLVM names them;
            keep: functions that others may call, all further ones are hidden.
    Raises  CompileError if LLVM refuses the texts.
    """
    target, triple, *_ = _target()
    llvm.initialize_native_asmparser()  # for what has no other name: the question which processor this is
    machine = target.create_target_machine(cpu=cpu, features=features, opt=2, reloc="pic", codemodel="default")
    context = llvm.create_context()
    module = _parsed(texts[0], context)
    for text in texts[1:]:
        module.link_in(_parsed(text, context))
    for function in module.functions:
        if not function.is_declaration and function.name not in keep:
            function.linkage = "internal"
    return _emitted(module, machine, triple)


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _translate(text: str) -> list[bytes]:
    """Object files of a module's text: of several parts, by as many threads, if it is long."""
    count = min(_PARTS, _processors()) if len(text) > _LARGE else 1
    texts = split(text, count) if count > 1 else [text]
    made: list[bytes | BaseException] = [b""] * count

    def work(i: int) -> None:
        try:
            made[i] = _emitted(_parsed(texts[i], llvm.create_context()), _machine(), _target()[1])
        except BaseException as error:
            made[i] = error

    threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(1, count)]
    for thread in threads:
        thread.start()
    work(0)
    for thread in threads:
        thread.join()
    for one in made:
        if isinstance(one, BaseException):
            raise one
    return [one for one in made if isinstance(one, bytes)]


def _parsed(text: str, context: Any) -> Any:
    try:
        module = llvm.parse_assembly(text, context)
        module.verify()
    except RuntimeError as error:
        raise CompileError(f"the compiler wrote code that LLVM refuses: {error}") from error
    return module


def _emitted(module: Any, machine: Any, triple: str) -> bytes:
    module.triple = triple
    module.data_layout = str(machine.target_data)
    _optimize(module, machine)
    with llvm.ffi.OutputString() as error:
        held = _unlocked("LLVMPY_TargetMachineEmitToMemory")(machine, module, 1, error)
        if not held:
            raise CompileError(f"LLVM made no code: {error}")
    try:
        start, size = llvm.ffi.lib.LLVMPY_GetBufferStart(held), llvm.ffi.lib.LLVMPY_GetBufferSize(held)
        return ctypes.string_at(start, size)
    finally:
        llvm.ffi.lib.LLVMPY_DisposeMemoryBuffer(held)


def _unlocked(name: str) -> Any:
    """A function of llvmlite without the lock that it holds around every call.

    LLVM itself lets threads work at once as long as each has a context of its own. Where llvmlite has no such function
    inside, the one with the lock does the same, one thread after the other.
    """
    function = getattr(llvm.ffi.lib, name)
    return getattr(function, "_cfn", function)


def _optimize(module: Any, machine: Any) -> None:
    # The text is vector code already, with invariants outside its loops: registers for variables pay most.
    # O2 takes 2.4 times as long for some percent (docs/design/0011).
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=1))
    passes = llvm.create_new_module_pass_manager()
    passes.add_sroa_pass()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    _unlocked("LLVMPY_RunNewModulePassManager")(passes, module, builder)


# ---- the cache ----


def folder() -> Path | None:
    """Where object files are kept; None for nowhere."""
    given = os.environ.get("PENSTOCK_CACHE")
    if given is not None:
        return Path(given) if given else None
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "penstock" / "native"
    except RuntimeError:  # no home
        return None


def _read(name: str) -> list[bytes] | None:
    place = folder()
    if place is None:
        return None
    path = place / f"{name}.o"
    try:
        with path.open("rb") as file:
            # Code is run: it must be ours.
            if hasattr(os, "getuid") and os.fstat(file.fileno()).st_uid != os.getuid():
                return None
            data = file.read()
    except OSError:
        return None
    digest, packed = data[8:24], data[24:]
    if data[:8] != _MAGIC or xxhash.xxh3_128_digest(name.encode() + packed) != digest:
        return None
    with contextlib.suppress(OSError):
        os.utime(path)
    return _unpacked(packed)


def _packed(binaries: Sequence[bytes]) -> bytes:
    """Object files one after the other, each after its length in 8 bytes."""
    return b"".join(len(one).to_bytes(8, "little") + one for one in binaries)


def _unpacked(packed: bytes) -> list[bytes]:
    made, place = [], 0
    while place < len(packed):
        first = place + 8
        place = first + int.from_bytes(packed[place:first], "little")
        made.append(packed[first:place])
    return made


def _write(name: str, binaries: Sequence[bytes]) -> None:
    place = folder()
    if place is None:
        return
    beside = place / f".{name}.{os.getpid()}.{threading.get_ident()}.part"
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        packed = _packed(binaries)
        beside.write_bytes(_MAGIC + xxhash.xxh3_128_digest(name.encode() + packed) + packed)
        beside.replace(place / f"{name}.o")
        _prune(place)
    except OSError:  # a full or read-only disk costs speed, not results
        with contextlib.suppress(OSError):
            beside.unlink()


def _prune(place: Path) -> None:
    files = list(place.glob("*.o"))
    if len(files) > _KEPT + 64:
        files.sort(key=lambda path: path.stat().st_mtime)
        for path in files[:-_KEPT]:
            path.unlink(missing_ok=True)
