"""Libraries used by programs in C: the same bits as Python, and nothing that is said wrongly goes further."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import xxhash

from penstock import factor as f
from penstock_tests.waiting import PATIENCE_S

HERE = Path(__file__).parent
STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Wshadow", "-Wconversion", "-O1", "-g"]
SANITIZED = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
GROUPS = ("sector", "industry", "subindustry")
ROWS, CUT = 90, 57
LIBC = {"aligned_alloc", "free", "malloc", "memcmp", "memcpy", "memset", "snprintf", "strcmp", "__tls_get_addr"}


@pytest.fixture
def cc(need):
    """`cc(source, folder, *libraries, flags=[])`: a program, compiled with the system's compiler, warnings as errors."""
    need(shutil.which("cc"), "cc, the system's C compiler")

    def compiled(source, folder, *libraries, flags=()):
        plus = source.endswith("pp")
        if plus:
            need(shutil.which("c++"), "c++, the system's C++ compiler")
        made = folder / f"{source.partition('.')[0]}{'.checked' if flags else ''}"
        words = ["c++", "-std=c++17"] if plus else ["cc", "-std=c11"]
        where = ["-I", str(folder), f"-Wl,-rpath,{folder}"]
        words += [*STRICT, *flags, *where, str(HERE / source), *map(str, libraries), "-o", str(made)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return made

    return compiled


def sanitizers(need, folder):
    """Flags for a checked program, where the compiler has what they take."""
    (folder / "nothing.c").write_text("int main(void) { return 0; }\n")
    words = ["cc", *SANITIZED, str(folder / "nothing.c"), "-o", str(folder / "nothing")]
    made = subprocess.run(words, capture_output=True, check=False).returncode == 0
    need(made and subprocess.run([folder / "nothing"], check=False).returncode == 0, "cc's sanitizers")
    return SANITIZED


def run(program, *words, **options):
    """What a program printed; it must succeed, and have nothing to say against itself."""
    done = subprocess.run(
        [str(program), *map(str, words)], capture_output=True, text=True, check=False, timeout=PATIENCE_S, **options
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def factors():
    """Some of everything: ranks, groups, all forms of windows, what never forgets, sorted rings, a constant."""
    names = (1, 3, 12, 26, 31, 36, 39, 48, 54, 58, 63, 76, 87, 96, 101)
    library = f.library("alpha101")
    close, volume = f.fields("close", "volume")
    return f.Factors({name: library[name] for name in (f"alpha{n:03}" for n in names)}) | f.Factors(
        ema=f.ema(close, 9),
        quantile=f.ts_quantile(close, 20, 0.3),
        median=f.ts_median(volume, 31),
        skew=f.ts_skew(close, 12),
        drawdown=f.ts_max_drawdown(close, 40),
        order=f.ts_rank(f.rank(volume), 15),
        middle=f.winsorize(close / volume, 0.1),
        one=1.0,
    )


def market(program, rows, symbols, seed=0):
    """Random walks with gaps, ties, infinities and a column that is constant."""
    rng = np.random.default_rng(seed)
    data = {}
    for name in program.inputs:
        x = 100 * np.exp(rng.normal(0, 0.02, (rows, symbols)).cumsum(0))
        if name in GROUPS:
            x = np.tile(rng.integers(0, 4, symbols).astype(float), (rows, 1))
        elif name == "volume":
            x = np.round(x * 10, -2)
        x[rng.random(x.shape) < 0.02] = np.nan
        if symbols > 6:
            x[:, 3] = 5
            x[rows // 2, 5] = np.inf
        data[name] = x.astype(program.dtype)
    return data


def write_data(path, data, cut):
    rows, symbols = next(iter(data.values())).shape
    path.write_bytes(np.array([symbols, rows, cut], "<i8").tobytes() + b"".join(x.tobytes() for x in data.values()))


@pytest.fixture(scope="module", params=["float32", "float64"])
def built(request, tmp_path_factory):
    """A program and the folder with its library."""
    folder = tmp_path_factory.mktemp(request.param)
    program = f.compile(factors(), dtype=request.param)
    f.build(program, folder / "libalpha.so")
    return program, folder


def outputs(program, path, rows, symbols):
    raw = np.fromfile(path, program.dtype).reshape(len(program.outputs), rows, symbols)
    return dict(zip(program.outputs, raw, strict=True))


def equal(a, b):
    return [name for name in a if a[name].tobytes() != np.ascontiguousarray(b[name]).tobytes()]


def exchange(built, program_file, symbols, folder):
    """Ticks, batches and snapshots in C against Python, both ways."""
    program, _ = built
    data = market(program, ROWS, symbols, seed=symbols)
    want = program.batch(data)
    write_data(folder / "data", data, CUT)
    run(program_file, folder / "data", folder / "out", folder / "state")
    assert equal(want, outputs(program, folder / "out", ROWS, symbols)) == []

    # From C to Python.
    live = program.stream(n=symbols)
    live.batch({name: x[:CUT] for name, x in data.items()})
    assert (folder / "state").read_bytes() == live.snapshot()
    live = program.stream(state=folder / "state")
    assert (live.ordinal, live.symbols) == (CUT, tuple(range(symbols)))
    rest = live.batch({name: x[CUT:] for name, x in data.items()})
    assert equal({name: x[CUT:] for name, x in want.items()}, rest) == []

    # From Python to C, with symbols that have names.
    names = [f'{chr(97 + i % 26)}é"\\{i}' for i in range(symbols)]
    live = program.stream(names)
    live.batch({name: x[:20] for name, x in data.items()})
    live.snapshot(folder / "named")
    run(program_file, folder / "data", folder / "out", folder / "named", "resume")
    late = outputs(program, folder / "out", ROWS - 20, symbols)
    assert equal({name: x[20:] for name, x in want.items()}, late) == []


@pytest.mark.parametrize("symbols", [1, 7, 16, 64, 500])
def test_the_same_bits_in_c(built, cc, tmp_path, symbols):
    _, folder = built
    exchange(built, cc("run.c", folder, folder / "libalpha.so"), symbols, tmp_path)


def has(cpu):
    from penstock.factor import capi
    from penstock.native import jit

    features = jit.host()[2]
    return jit.host()[0].startswith("x86_64") and all(features.get(name) for name in capi.target(cpu).needs)


@pytest.mark.slow
@pytest.mark.parametrize("cpu", ["baseline", *filter(has, ("x86-64-v2", "x86-64-v3", "x86-64-v4"))])
def test_the_same_bits_for_every_processor_that_this_one_is(built, cc, tmp_path, cpu):
    program, _ = built
    f.build(program, tmp_path / "libalpha.so", cpu=cpu)
    exchange(built, cc("run.c", tmp_path, tmp_path / "libalpha.so"), 37, tmp_path)


@pytest.mark.slow
def test_the_same_bits_under_sanitizers(built, cc, tmp_path, need):
    _, folder = built
    flags = sanitizers(need, tmp_path)
    exchange(built, cc("run.c", folder, folder / "libalpha.so", flags=flags), 21, tmp_path)


def test_names_of_symbols_go_through_c(built, cc, tmp_path):
    program, folder = built
    data = market(program, ROWS, 3)
    live = program.stream(["Ä", 'a"b\\', "日本"])
    live.batch({name: x[:CUT] for name, x in data.items()})
    state = live.snapshot()
    (tmp_path / "state").write_bytes(state)
    write_data(tmp_path / "data", data, CUT)
    program_file = cc("through.c", folder, folder / "libalpha.so")
    run(program_file, tmp_path / "data", tmp_path / "state", tmp_path / "later")
    live.batch({name: x[CUT:] for name, x in data.items()})
    assert (tmp_path / "later").read_bytes() == live.snapshot()


def test_streams_in_several_threads(built, cc, tmp_path):
    program, folder = built
    write_data(tmp_path / "data", market(program, 40, 21), 0)
    run(cc("threads.c", folder, folder / "libalpha.so", flags=["-pthread"]), tmp_path / "data")


def test_what_the_caller_does_to_floats_changes_nothing(cc, tmp_path, need):
    from penstock.factor import capi

    need(capi.target("native").x86, "an x86-64 processor")
    close = f.field("close")
    tiny = f.Factors(
        half=close / 2, mean=f.ts_mean(close, 9), median=f.ts_median(close, 30), ratio=1 / f.delay(close, 1)
    )
    program = f.compile(tiny)
    f.build(program, tmp_path / "libtiny.so")
    rng = np.random.default_rng(0)
    # Mostly denormal, so that flushing them would be seen in nearly all values.
    write_data(tmp_path / "data", {"close": rng.normal(0, 1e-308, (60, 9))}, 40)
    assert run(cc("floats.c", tmp_path, tmp_path / "libtiny.so", flags=["-O2"]), tmp_path / "data") == "same\n"


def test_memory_is_asked_for_at_the_ends_only(built, cc, tmp_path):
    program, _ = built
    f.build(program, tmp_path / "alpha.o")
    write_data(tmp_path / "data", market(program, 40, 21), 23)
    wrapped = [f"-Wl,--wrap={name}" for name in ("malloc", "aligned_alloc", "free")]
    program_file = cc("memory.c", tmp_path, tmp_path / "alpha.o", flags=wrapped)
    # Requests per call: create, restore, rows from a stream's state, rows from an empty one.
    assert run(program_file, tmp_path / "data").split() == ["2", "2", "1", "2"]


def test_a_lesser_processor_is_refused(cc, tmp_path, need, monkeypatch):
    from penstock.factor import capi
    from penstock.factor.capi import cpu

    need(capi.target("native").x86, "an x86-64 processor")
    # A feature whose bit is 0 everywhere.
    monkeypatch.setattr(cpu, "_BITS", (*cpu._BITS[:3], {"telepathy": 0}, *cpu._BITS[4:]))
    future = capi.Target("x86-64-v9", "x86-64", "", ("telepathy",), True)
    monkeypatch.setattr(capi, "target", lambda name: future)
    f.build(SMALL, tmp_path / "libalpha.so", cpu="x86-64-v9")
    assert run(cc("open.c", tmp_path, tmp_path / "libalpha.so")).splitlines() == [
        "PS_OTHER_CPU",
        "ps_program_open: built for x86-64-v9, this processor lacks telepathy; "
        "build it with cpu='baseline', or for this processor",
    ]


# ---- refusals ----

SMALL = {"mean": "ts_mean(close, 5) + ema(volume, 4)", "rank": "rank(close)"}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    program = f.compile(SMALL)
    f.build(program, folder / "libsmall.so")
    return program, folder


def refused(small, cc, tmp_path, flags=()):
    program, folder = small
    rows = {"close": np.arange(12.0).reshape(4, 3), "volume": np.ones((4, 3))}
    for name, made in (
        ("own", program),
        ("foreign", f.compile({"mean": "ts_mean(close, 6)", "rank": "rank(volume)"})),
        ("kind", f.compile(SMALL, dtype="float32")),
    ):
        live = made.stream(n=3)
        live.batch(rows)
        live.snapshot(tmp_path / name)
    program_file = cc("refusals.c", folder, folder / "libsmall.so", flags=list(flags))
    return run(program_file, *(tmp_path / name for name in ("own", "foreign", "kind")), *forged(tmp_path))


def forged(folder):
    """Copies of a snapshot with one number of the header changed, and their digest made right."""
    from penstock.factor.snapshot import START

    own = (folder / "own").read_bytes()
    # Bytes of a value, ordinal, first, symbols, fields, rows, lengths of the texts.
    lies = {2: 16, 3: -1 & 2**64 - 1, 4: 2**63, 5: 2**60, 6: 2**61, 7: 2**60, 8: 2**62, 9: -8 & 2**64 - 1}
    for at, lie in lies.items():
        facts = list(START.unpack_from(own))
        facts[at] = lie
        body = START.pack(*facts) + own[START.size : -16]
        (folder / f"forged{at}").write_bytes(body + xxhash.xxh3_128_digest(body))
        yield folder / f"forged{at}"


def test_what_cannot_be_meant_is_refused_with_its_reason(small, cc, tmp_path):
    from penstock.factor.snapshot import layout_digest

    def layout(program):
        return layout_digest(program.dtype.name, (field.identity for field in program.layout.fields)).hex()

    program, _ = small
    foreign = f.compile({"mean": "ts_mean(close, 6)", "rank": "rank(volume)"})
    said = refused(small, cc, tmp_path)
    said = said.replace(layout(foreign), "<theirs>").replace(foreign.digest, "<their program>")
    said = said.replace(layout(program), "<own>").replace(program.digest, "<own program>")
    assert said == (HERE / "refusals.txt").read_text()


def test_refusals_under_sanitizers(small, cc, tmp_path, need):
    refused(small, cc, tmp_path, sanitizers(need, tmp_path))


# ---- on its own ----


def test_no_python_in_the_process(small, cc, need):
    _, folder = small
    program_file = cc("plusplus.cpp", folder, folder / "libsmall.so")
    assert run(program_file, env={}, cwd="/").split() == ["0.333333", "0.666667", "1"]
    need(shutil.which("ldd"), "ldd")
    for file in (program_file, folder / "libsmall.so"):
        linked = run("ldd", file)
        assert "python" not in linked.lower().replace(str(folder).lower(), "")
    assert re.findall(r"^\s*(\S+?)\.so", run("ldd", folder / "libsmall.so"), re.M) == [
        "linux-vdso",
        "libc",
        "/lib64/ld-linux-x86-64",
    ]


def test_only_what_the_header_names_is_seen(small, need):
    _, folder = small
    need(shutil.which("nm"), "nm")
    lines = [line.split() for line in run("nm", "-D", folder / "libsmall.so").splitlines()]
    seen = {words[-1] for words in lines if words[-2] == "T"}
    text = (folder / "penstock.h").read_text()
    assert seen == set(re.findall(r"\b(ps_\w+)\(", text))
    needed = {words[-1].partition("@")[0] for words in lines if words[-2] == "U"}
    assert needed <= LIBC
    # Nothing is left that could change but the text of a thread's last error: makers and names are addresses, put in while loading.
    changing = [
        line.split()[-1] for line in run("nm", folder / "libsmall.so").splitlines() if line.split()[-2] in "bBdD"
    ]
    assert sorted(name for name in changing if not name.startswith(("_", "completed."))) == [
        "makers",
        "message",
        "names",
    ]


def test_two_libraries_in_one_process(cc, tmp_path, need):
    f.build({"double": "close + close"}, tmp_path / "libone.so")
    f.build({"triple": "close * 3"}, tmp_path / "libtwo.so", dtype="float32")
    program_file = cc("two.c", tmp_path, flags=["-ldl"])
    for mode in ("local", "global"):
        assert run(program_file, tmp_path / "libone.so", tmp_path / "libtwo.so", mode).splitlines() == [
            "double float64 10",
            "triple float32 15",
            "ps_stream_run: stream was made by another library, or has been destroyed",
            "ps_program_warmup: program was opened by another library",
        ]


def test_two_programs_linked_into_one(cc, tmp_path):
    f.build({"quick": "ts_mean(close, 2)"}, tmp_path / "fast.o", prefix="fast")
    f.build({"idle": "ts_mean(close, 200)"}, tmp_path / "slow.o", prefix="slow", dtype="float32")
    program_file = cc("prefixed.c", tmp_path, tmp_path / "fast.o", tmp_path / "slow.o")
    assert run(program_file, env={}).splitlines() == [
        "quick idle",
        "fast_program_input: there is no input 5; their numbers are 0 to 0|",
        "SLOW_NOT_READY",
    ]


# ---- the digest ----


def test_digests_of_all_lengths(tmp_path):
    import ctypes

    from penstock.factor.capi.library import Library
    from penstock.factor.capi.xxh3 import xxh3
    from penstock.native import jit

    library = Library(None)
    xxh3(library)
    native = jit.compile_text(library.render().replace("define internal void @xxh3(", "define void @xxh3("))
    digest = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)(native.address("xxh3"))
    data = np.random.default_rng(0).bytes(9000)
    made = ctypes.create_string_buffer(16)
    for size in [*range(241, 700), *range(1000, 1100), 2047, 2048, 2049, 4096, 8999, 9000]:
        digest(data, size, made)
        assert made.raw == xxhash.xxh3_128_digest(data[:size]), size
