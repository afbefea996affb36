"""From text to machine code in this process, by way of a cache on disk.

The cache holds object files named by a digest of all that decides their bytes: the text, the processor and its
features, llvmlite's and LLVM's versions. A file is written beside and moved into place, carries a digest of its own,
and counts as absent whenever anything about it is wrong. `PENSTOCK_CACHE` names another folder; empty means none.
"""

from __future__ import annotations

import contextlib
import os
import threading
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import xxhash

from penstock.errors import CompileError

__all__ = ["Native", "compile_text", "folder"]

_MAGIC = b"PSOBJ001"
_KEPT = 512
"""Files kept in the cache; the longest unused go first."""

_lock = threading.Lock()


class Native:
    """Loaded code: addresses of its functions, for as long as this object lives."""

    def __init__(self, binary: bytes) -> None:
        self.size = len(binary)
        with _lock:
            holder = llvm.parse_assembly("")
            self._engine = llvm.create_mcjit_compiler(holder, _machine())
            self._engine.add_object_file(llvm.ObjectFileRef.from_data(binary))
            self._engine.finalize_object()

    def address(self, name: str) -> int:
        found = int(self._engine.get_function_address(name))
        if not found:
            raise CompileError(f"compiled code has no function {name!r}")
        return found


@cache
def _target() -> tuple[Any, str, str, str]:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    triple = llvm.get_process_triple()
    features = llvm.get_host_cpu_features().flatten()
    return llvm.Target.from_triple(triple), triple, llvm.get_host_cpu_name(), features


def _machine() -> Any:
    target, _, cpu, features = _target()
    return target.create_target_machine(cpu=cpu, features=features, opt=2, jit=True)


def compile_text(text: str) -> Native:
    """Machine code for a module's text, from the cache if it is there.

    Cost  about 0.1 ms per instruction the first time, then a few milliseconds.
    Raises  CompileError if LLVM refuses the text.
    """
    _, triple, cpu, features = _target()
    facts = f"{triple}|{cpu}|{features}|{llvmlite.__version__}|{llvm.llvm_version_info}|2|"
    name = xxhash.xxh3_128_hexdigest((facts + text).encode())
    found = _read(name)
    if found is not None:
        # Another build of the same name may differ in what its loader accepts: then it is as good as absent.
        with contextlib.suppress(RuntimeError):
            return Native(found)
    binary = _translate(text)
    _write(name, binary)
    return Native(binary)


def _translate(text: str) -> bytes:
    machine = _machine()
    with _lock:
        try:
            module = llvm.parse_assembly(text)
            module.verify()
        except RuntimeError as error:
            raise CompileError(f"the compiler wrote code that LLVM refuses: {error}") from error
        module.triple = _target()[1]
        module.data_layout = str(machine.target_data)
        _optimize(module, machine)
        return bytes(machine.emit_object(module))


def _optimize(module: Any, machine: Any) -> None:
    # The text is vector code already, with invariants outside its loops: registers for variables pay most.
    # O2 makes quantiles some 25 % and ranks 8 % faster, but takes 2.4 times as long (docs/design/0011).
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=1))
    passes = llvm.create_new_module_pass_manager()
    passes.add_sroa_pass()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    passes.run(module, builder)


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


def _read(name: str) -> bytes | None:
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
    digest, binary = data[8:24], data[24:]
    if data[:8] != _MAGIC or xxhash.xxh3_128_digest(name.encode() + binary) != digest:
        return None
    with contextlib.suppress(OSError):
        os.utime(path)
    return binary


def _write(name: str, binary: bytes) -> None:
    place = folder()
    if place is None:
        return
    beside = place / f".{name}.{os.getpid()}.{threading.get_ident()}.part"
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        beside.write_bytes(_MAGIC + xxhash.xxh3_128_digest(name.encode() + binary) + binary)
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
