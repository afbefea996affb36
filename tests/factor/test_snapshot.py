from __future__ import annotations

import json
import struct

import msgspec
import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock import factor as f
from penstock.errors import FactorError
from penstock.factor import snapshot
from penstock.factor.snapshot import START

close, volume = f.fields("close", "volume")
PROGRAM = f.compile({"v": f.ts_var(close, 20), "s": f.ts_sum(close, 6), "e": f.ema(volume, 5)})
SYMBOLS = ["A", "B", "C"]


def panel(rows, keys=3):
    rng = np.random.default_rng(1)
    return {"close": rng.normal(5, 1, (rows, keys)), "volume": rng.normal(5, 1, (rows, keys))}


def started(rows=25):
    live = PROGRAM.stream(SYMBOLS)
    live.batch(panel(rows))
    return live


def test_bytes_say_what_they_are():
    data = started().snapshot()
    magic, version, size, ordinal, first, keys, fields, rows, texts, names, program, layout = START.unpack_from(data)
    assert START.size == 256
    assert (magic, version, size, ordinal, first) == (b"PSFACTOR", 3, 8, 25, 0)
    assert (keys, fields, rows) == (3, 2, PROGRAM.layout.rows) == (3, 2, 20)
    assert program.hex() == PROGRAM.digest
    assert layout == snapshot.layout_digest("float64", (field.identity for field in PROGRAM.layout.fields))
    at = 256 + 8 * (keys + fields)
    assert np.frombuffer(data[256:at], "<i8").tolist() == [0] * (keys + fields)
    header = json.loads(data[at : at + texts])
    assert [field["formula"] for field in header["fields"]] == [
        "close",
        "ts_ema(volume, span=5)",
    ]
    assert header["outputs"]["v"] == "ts_var(close, n=20)"
    assert json.loads(data[at + texts : at + texts + names]) == {"symbols": SYMBOLS, "labels": {}}
    assert len(data) == at + texts + names + PROGRAM.layout.rows * 3 * 8 + 16
    assert data[-16:] == xxhash.xxh3_128_digest(data[:-16])


def test_a_file_is_written_whole_and_read_back(tmp_path):
    path = tmp_path / "state"
    data = started().snapshot(path)
    assert path.read_bytes() == data
    assert [p.name for p in tmp_path.iterdir()] == ["state"]
    live = PROGRAM.stream(state=path)
    assert live.symbols == tuple(SYMBOLS)
    assert live.snapshot() == data
    assert PROGRAM.stream(SYMBOLS, state=str(path)).ordinal == 25


def test_files_that_cannot_be_used(tmp_path):
    with pytest.raises(FactorError, match="cannot read the snapshot '.*none': No such file"):
        PROGRAM.stream(state=tmp_path / "none")
    with pytest.raises(FactorError, match="cannot write the snapshot '.*x': No such file"):
        started().snapshot(tmp_path / "none" / "x")
    (tmp_path / "other").write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(FactorError, match=r"expected a factor snapshot, .* got b'PK.* - in snapshot '.*other'"):
        PROGRAM.stream(state=tmp_path / "other")


@pytest.mark.parametrize("cut", [0, 1, 7, 8, 20, 39, 100, 271, 300, -17, -1])
def test_cut_bytes_are_refused(cut):
    with pytest.raises(FactorError, match="expected"):
        PROGRAM.stream(state=started().snapshot()[:cut])


def test_longer_bytes_are_refused():
    with pytest.raises(FactorError, match=r"expected \d+ bytes, got \d+"):
        PROGRAM.stream(state=started().snapshot() + b"x")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_changed_bytes_are_refused(data):
    raw = bytearray(STATE)
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(FactorError):
        PROGRAM.stream(state=bytes(raw))


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_refused(raw):
    for data in (raw, snapshot.MAGIC + raw):
        with pytest.raises(FactorError):
            PROGRAM.stream(state=data)


def test_a_later_version_is_refused():
    raw = bytearray(STATE)
    raw[8] = 4
    with pytest.raises(
        FactorError, match="expected snapshot version 3, got version 4 .* use the release that wrote it"
    ):
        PROGRAM.stream(state=bytes(raw))


def sealed(body):
    return body + xxhash.xxh3_128_digest(body)


def forged(change):
    """A well-formed file around texts and numbers that are not."""
    facts = list(START.unpack_from(STATE))
    since = 8 * (facts[5] + facts[6])
    at = 256 + since
    parts = {
        "start": facts,
        "since": bytearray(STATE[256:at]),
        "rows": json.loads(STATE[at : at + facts[8]]),
        "names": json.loads(STATE[at + facts[8] : at + facts[8] + facts[9]]),
        "state": STATE[at + facts[8] + facts[9] : -16],
    }
    change(parts)
    rows, names = (json.dumps(parts[name]).encode() for name in ("rows", "names"))
    facts[8:10] = len(rows), len(names)
    return sealed(START.pack(*facts) + bytes(parts["since"]) + rows + names + parts["state"])


def put(part, at, value):
    def change(parts):
        parts[part][at] = value

    return change


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda p: p["rows"].pop("outputs"), "header cannot be read: Object missing required field `outputs`"),
        (put("names", "symbols", "ABC"), "header cannot be read: Expected `array`, got `str`"),
        (put("names", "symbols", ["A", "B"]), "header contradicts itself on its symbols"),
        (put("names", "symbols", ["A", "B", "B"]), "header contradicts itself on its symbols"),
        (put("names", "symbols", ["A", "B", 1.5]), "header cannot be read"),
        (lambda p: p["rows"]["fields"].pop(), "header contradicts itself on its rows"),
        (lambda p: p["rows"]["fields"][0].update(depth=3), "header contradicts itself on its rows"),
        (lambda p: p["rows"]["fields"][0].update(depth=0), "header cannot be read"),
        (lambda p: p["rows"]["fields"][0].update(node="0" * 32), "header contradicts itself on its layout"),
        (put("rows", "fields", [1]), "header cannot be read"),
        (put("since", slice(0, 8), b"\xff" * 8), "header contradicts itself on its layout"),
        (put("start", 2, 16), r"expected \d+ bytes"),
        (put("start", 3, 2**63), "header contradicts itself on its rows"),
        (put("start", 5, 2**60), r"expected \d+ bytes"),
        (put("start", 11, bytes(16)), "header contradicts itself on its layout"),
    ],
)
def test_a_header_that_contradicts_itself_is_refused(change, message):
    with pytest.raises(FactorError, match=message):
        PROGRAM.stream(state=forged(change))


def test_the_forger_can_leave_all_as_it_was():
    assert PROGRAM.stream(state=forged(lambda parts: None)).snapshot() == STATE


def first_version(change=lambda header: None):
    header, planes = snapshot.decode(STATE)
    facts = json.loads(msgspec.json.encode(header))
    change(facts)
    text, state = json.dumps(facts).encode(), planes.tobytes()
    return sealed(struct.pack("<8sIIQ", b"PSFACTOR", 1, len(text), len(state)) + text + state)


def test_version_1_is_still_read():
    live = PROGRAM.stream(state=first_version())
    assert live.ordinal == 25
    assert live.snapshot() == STATE
    for cut in (30, 39, 40, 100, -1):
        with pytest.raises(FactorError, match="expected"):
            PROGRAM.stream(state=first_version()[:cut])


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda h: h.pop("ordinal"), "header cannot be read: Object missing required field `ordinal`"),
        (lambda h: (h["symbols"].append("D"), h["since"].append(0)), r"expected \d+ rows of 4 float64 values"),
        (lambda h: h["fields"].pop(), "expected .* rows of 3 float64 values"),
        (lambda h: h.update(dtype="object"), "header cannot be read"),
        (lambda h: h.update(since=[0]), "header contradicts itself on its symbols"),
        (lambda h: h.update(ordinal=-5), "header cannot be read"),
    ],
)
def test_a_header_of_version_1_that_contradicts_itself_is_refused(change, message):
    with pytest.raises(FactorError, match=message):
        PROGRAM.stream(state=first_version(change))


def test_a_foreign_program_is_refused_with_both_sides_named():
    other = f.compile({"v": f.ts_var(volume, 30)})
    with pytest.raises(
        FactorError, match=r"made for close, ts_ema\(volume, span=5\), this program has volume; nothing"
    ):
        other.stream(state=STATE)
    look_alike = f.compile({"e": f.ema(volume, 50)})
    with pytest.raises(FactorError, match=r"this program has ts_ema\(volume, span=50\)"):
        look_alike.stream(state=STATE)


def test_summaries_of_version_1_are_no_rows():
    # Until version 2 a window kept what it had made of its rows, in fields of its own.
    def summaries(header):
        header["fields"][0].update(node="0" * 32, name="ring", formula="ts_var(close, n=20)")

    live = PROGRAM.stream(state=first_version(summaries))
    assert live.cold == {"v": 19, "s": 5}
    with pytest.raises(
        FactorError, match=r"made for ts_ema\(volume, span=5\), ts_var\(close, n=20\), this .* has close"
    ):
        f.compile({"v": f.ts_var(close, 20)}).stream(state=first_version(summaries))


def test_a_longer_window_begins_with_the_rows_there_are():
    data = panel(60)
    longer = f.compile({"v": f.ts_var(close, 30), "r": f.ts_rank(close, 20), "c": f.ts_corr(close, volume, 10)})
    whole = longer.batch(data)
    live = PROGRAM.stream(SYMBOLS)
    live.batch({name: x[:25] for name, x in data.items()})
    moved = longer.stream(state=live.snapshot())
    # Of close 19 rows were kept, of volume none.
    assert moved.cold == {"v": 10, "c": 9}
    again = longer.stream(state=moved.snapshot())
    assert again.cold == moved.cold
    out = again.batch({name: x[25:] for name, x in data.items()})
    assert again.cold == {}
    assert out["r"].tobytes() == whole["r"][25:].tobytes()
    assert np.isnan(out["v"][:10]).all()
    assert out["v"][10:].tobytes() == whole["v"][35:].tobytes()
    assert np.isnan(out["c"][:9]).all()
    assert out["c"][9:].tobytes() == whole["c"][34:].tobytes()
    # And a shorter one takes what it needs.
    shorter = f.compile({"v": f.ts_var(close, 4)})
    after = shorter.stream(state=again.snapshot())
    assert after.cold == {}
    more = panel(7)["close"]
    want = shorter.batch({"close": np.concatenate([data["close"], more])})["v"][60:]
    assert after.batch({"close": more})["v"].tobytes() == want.tobytes()


def test_what_was_warm_stays_warm_through_another_restore():
    close_rows = panel(300)["close"]
    nested = f.ts_mean(f.ts_sum(close, 3), 100)
    small = f.compile({"m": nested})
    live = small.stream(SYMBOLS)
    live.batch({"close": close_rows[:150]})
    # Of close two rows are there, and 199 wanted; of the sum all.
    both = f.compile({"m": nested, "long": f.ts_mean(close, 200)})
    wider = both.stream(state=live.snapshot())
    assert wider.cold == {"long": 197}
    again = both.stream(state=wider.snapshot())
    assert again.cold == {"long": 197}
    out = again.batch({"close": close_rows[150:180]})
    assert out["m"].tobytes() == small.batch({"close": close_rows[:180]})["m"][150:].tobytes()
    third = small.stream(state=both.stream(state=again.snapshot()).snapshot())
    assert third.cold == {}
    # What was cold is not taken for warm because its operand is.
    above = f.compile({"a": f.ts_max(f.ts_mean(close, 200), 9)})
    assert above.stream(state=again.snapshot()).cold == {"a": 197 - 30 + 8}


def test_version_2_told_when_a_field_was_begun():
    program = f.compile({"m": f.ts_mean(f.ts_sum(close, 6), 7)})
    live = program.stream(SYMBOLS)
    live.batch({"close": panel(8)["close"]})
    raw = bytearray(live.snapshot()[:-16])
    facts = list(START.unpack_from(raw))
    at = START.size + 8 * facts[5]
    assert np.frombuffer(raw, "<i8", 2, at).tolist() == [0, 5]
    facts[1] = 2
    raw[: START.size], raw[at : at + 16] = START.pack(*facts), bytes(16)
    old = program.stream(state=sealed(bytes(raw)))
    assert old.cold == live.cold == {"m": 3}
    assert old.snapshot() == live.snapshot()


def test_another_dtype_is_refused():
    with pytest.raises(
        FactorError, match="made in float64, this program computes in float32; compile with dtype='float64'"
    ):
        f.compile({"v": f.ts_var(close, 20)}, dtype="float32").stream(state=STATE)


def test_another_universe_is_refused_if_nothing_is_shared():
    with pytest.raises(FactorError, match="made for symbols A, B, C, this stream has X, Y"):
        PROGRAM.stream(["X", "Y"], state=STATE)


def test_state_moves_symbol_by_symbol():
    data = panel(60, 4)
    whole = PROGRAM.batch(data)
    live = PROGRAM.stream(SYMBOLS)
    live.batch({name: x[:25, :3] for name, x in data.items()})
    moved = PROGRAM.stream(["D", "C", "A"], state=live.snapshot())
    assert moved.cold == {"v": 19, "s": 5}
    order = [3, 2, 0]
    out = moved.batch({name: x[25:, order] for name, x in data.items()})
    assert moved.cold == {}
    for name in ("v", "s", "e"):
        assert out[name][:, 1:].tobytes() == np.ascontiguousarray(whole[name][25:, [2, 0]]).tobytes(), name
    assert np.isnan(out["v"][:19, 0]).all()
    assert out["v"][19:, 0].tobytes() == np.ascontiguousarray(whole["v"][44:, 3]).tobytes()


def test_state_moves_operator_by_operator():
    data = panel(60)
    new = f.compile({"v": f.ts_var(close, 20), "m": f.ts_mean(f.ts_sum(close, 6), 7), "d": f.delay(volume, 3)})
    whole = new.batch(data)
    live = PROGRAM.stream(SYMBOLS)
    live.batch({name: x[:25] for name, x in data.items()})
    moved = new.stream(state=live.snapshot())
    # ts_var and ts_sum go on; the mean above the sum needs its own six rows, the delay three.
    assert moved.cold == {"m": 6, "d": 3}
    out = moved.batch({name: x[25:] for name, x in data.items()})
    assert out["v"].tobytes() == whole["v"][25:].tobytes()
    assert np.isnan(out["m"][:6]).all()
    assert out["m"][6:].tobytes() == whole["m"][31:].tobytes()
    assert moved.cold == {}
    # What was found cold is remembered across the next snapshot.
    early = new.stream(state=live.snapshot())
    assert new.stream(state=early.snapshot()).cold == {"m": 6, "d": 3}


def test_a_program_without_state_takes_any_snapshot_of_its_symbols():
    program = f.compile({"x": close + 1})
    assert program.stream(state=STATE).ordinal == 25
    plain = program.stream(["A"]).snapshot()
    assert program.stream(state=plain).step(close=[1])["x"].tolist() == [2]


def test_a_new_version_of_an_operator_does_not_take_the_old_state(monkeypatch):
    from dataclasses import replace

    from penstock.factor.table import TABLE

    outputs = {"v": f.ts_var(close, 20), "m": f.ts_mean(f.ts_sum(close, 6), 4)}
    live = f.compile(outputs).stream(SYMBOLS)
    live.batch({"close": panel(25)["close"]})
    monkeypatch.setitem(TABLE, "ts_sum", replace(TABLE["ts_sum"], version=2))
    # Its own rows are those of close and still there; what it gave before is another value's now.
    assert f.compile(outputs).stream(state=live.snapshot()).cold == {"m": 3}


def test_nothing_in_a_snapshot_is_a_pickle():
    _, planes = snapshot.decode(STATE)
    assert b"numpy" not in STATE
    assert planes.dtype == np.float64


STATE = started().snapshot()
