from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import StorageError
from penstock.log import Folder
from penstock.log.format import (
    ENTRY_BYTES,
    ENTRY_DTYPE,
    NO_TIME,
    Entry,
    Kind,
    arrow_name,
    digest,
    index_name,
    origin_id,
    pack,
    unpack,
)
from penstock.log.template import RowTemplate
from penstock.records import TRADES

GOLDEN = Path(__file__).parent / "golden"
U64 = st.integers(0, 2**64 - 1)
I64 = st.integers(-(2**63), 2**63 - 1)

entries = st.builds(
    Entry,
    st.sampled_from(Kind),
    U64,
    rows=st.integers(0, 2**62),
    position=U64,
    length=U64,
    appended=I64,
    min_event=I64,
    max_event=I64,
    origin_id=U64,
    origin=I64,
    origin_index=I64,
    message=U64,
    flags=U64,
)


def packed(entry: Entry) -> bytes:
    return pack(*(getattr(entry, name) for name in Entry.__slots__))


def test_bytes_of_an_entry_are_those_of_the_first_release() -> None:
    golden = (GOLDEN / "entry.bin").read_bytes()
    entry = Entry(Kind.ROWS, 7, 3, 256, 512, 1_795_000_000_000_000_000, -5, 2**62, 11, -12, 13, 14, 1)
    assert packed(entry) == golden
    assert unpack(golden) == entry


def test_template_messages_of_the_first_release_are_still_made_and_read() -> None:
    golden = (GOLDEN / "trade.message").read_bytes()
    row = json.loads((GOLDEN / "trade.json").read_text())
    template = RowTemplate.of(TRADES, "ts_event")
    assert template is not None
    found = template.encode(row)
    assert found is not None
    message, event = found
    assert event == row["ts_event"]
    # The metadata is pyarrow's and may be laid out otherwise by another release of it; the body is ours.
    body, golden_body = (8 + struct.unpack_from("<i", data, 4)[0] for data in (message, golden))
    assert bytes(message[body:]) == golden[golden_body:]
    for data in (golden, bytes(message)):
        assert pa.ipc.read_record_batch(pa.py_buffer(data), TRADES).to_pylist() == [row]


def test_a_hub_of_the_first_release_is_read_and_continued(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "hub", tmp_path / "hub")
    expected = json.loads((GOLDEN / "rows.json").read_text())
    hub = Folder(tmp_path / "hub")
    assert hub.names() == ["docs", "trades"]
    trades = hub.stream("trades", schema=TRADES, create=False)
    assert trades.rows() == expected["trades"]
    assert trades.attributes == {"venue": "XNAS"}
    assert trades.last_origin("maker") == (41, 2)
    assert trades.metadata().segments == 2
    assert hub.stream("docs").rows() == expected["docs"]
    assert trades.append(expected["trades"][0]) == range(6, 7)
    assert trades.rows(6) == expected["trades"][:1]


def test_the_entry_dtype_is_the_struct() -> None:
    entry = Entry(Kind.ROWS, *range(1, 13))
    assert ENTRY_DTYPE.itemsize == ENTRY_BYTES == len(packed(entry))
    import numpy as np

    [found] = np.frombuffer(packed(entry), ENTRY_DTYPE)
    assert [int(found[name]) for name in Entry.__slots__] == [2, *range(1, 13)]
    assert int(found["digest"]) == digest(packed(entry)[:-8])


@given(entries)
def test_pack_and_unpack_are_inverse(entry: Entry) -> None:
    assert unpack(packed(entry)) == entry
    assert unpack(b"x" * 256 + packed(entry) + b"y", 256) == entry


@given(entries, st.integers(0, ENTRY_BYTES * 8 - 1))
def test_any_flipped_bit_is_noticed(entry: Entry, bit: int) -> None:
    data = bytearray(packed(entry))
    data[bit // 8] ^= 1 << bit % 8
    assert unpack(bytes(data)) is None


@given(entries, st.integers(0, ENTRY_BYTES - 1))
def test_a_part_of_an_entry_is_none(entry: Entry, size: int) -> None:
    assert unpack(packed(entry)[:size]) is None
    assert unpack(packed(entry), ENTRY_BYTES - size + 1) is None


@given(st.binary(min_size=ENTRY_BYTES, max_size=ENTRY_BYTES))
def test_other_bytes_are_no_entry(data: bytes) -> None:
    assert unpack(data) is None
    assert unpack(bytes(ENTRY_BYTES)) is None


@pytest.mark.parametrize("change", [(0, 9), (4, 2)], ids=["kind", "version"])
def test_a_whole_entry_of_a_newer_release_is_refused_and_not_taken_for_torn(change: tuple[int, int]) -> None:
    body = bytearray(pack(Kind.ROWS, 1, 1)[:-8])
    struct.pack_into("<I", body, *change)
    with pytest.raises(StorageError, match=r"expected an index entry of version 1, got version .* a newer release"):
        unpack(bytes(body) + struct.pack("<Q", digest(body)))


def test_names_and_numbers() -> None:
    assert arrow_name(0) == "00000000000000000000.arrow"
    assert index_name(2**63) == "09223372036854775808.idx"
    assert origin_id("a") != origin_id("b") != 0
    assert NO_TIME == -(2**63)
    assert Entry(Kind.ROWS, 5, 3, 100, 20).stop == 8
    assert Entry(Kind.ROWS, 5, 3, 100, 20).end == 120
