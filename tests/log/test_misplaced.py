"""Index entries that are whole but not in their place, and any other damage to one file: never another row, never a crash."""

from __future__ import annotations

import contextlib
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from penstock.errors import CorruptSegment
from penstock.log import Damage, Folder, Stream
from penstock.log.format import ENTRY_BYTES
from penstock_tests.damage import data_of, index_of, spoil

Again = Callable[..., Stream]

pytestmark = pytest.mark.filterwarnings("ignore::penstock.errors.PenstockWarning", "ignore::ResourceWarning")


@pytest.fixture
def stream(hub: Folder, prices: pa.Schema) -> Stream:
    """Twenty rows in two segments; the first is sealed."""
    found = hub.stream("s", schema=prices)
    for i in range(20):
        found.append({"n": i, "text": "x" * (i % 4)})
        if i == 9:
            found.seal()
    return found


def entries(stream: Stream, first: int) -> list[bytes]:
    data = index_of(stream, first).read_bytes()
    return [data[at : at + ENTRY_BYTES] for at in range(0, len(data), ENTRY_BYTES)]


def arrange(stream: Stream, first: int, order: list[int]) -> None:
    """Make the index of these of its entries."""
    found = entries(stream, first)
    index_of(stream, first).write_bytes(b"".join(found[i] for i in order))


ORDERS: dict[str, tuple[int, list[int]]] = {
    "one missing": (0, [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11]),
    "the first missing": (0, [0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
    "two exchanged": (0, [0, 1, 7, 3, 4, 5, 6, 2, 8, 9, 10, 11]),
    "one twice": (0, [0, 1, 2, 3, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
    "the seal early": (0, [0, 1, 2, 3, 11, 5, 6, 7, 8, 9, 10, 11]),
    "header among rows": (0, [0, 1, 2, 0, 4, 5, 6, 7, 8, 9, 10, 11]),
    "open, one missing": (10, [0, 1, 2, 4, 5, 6, 7, 8, 9, 10]),
    "open, two exchanged": (10, [0, 1, 9, 3, 4, 5, 6, 7, 8, 2, 10]),
    "open, an old one last": (10, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 2]),
}


@pytest.mark.parametrize("what", ORDERS)
def test_an_entry_out_of_its_place(what: str, stream: Stream, again: Again) -> None:
    rows = stream.rows()
    first, order = ORDERS[what]
    arrange(stream, first, order)
    # Each offset gives its own row or an error, from wherever reading begins.
    for start in range(20):
        try:
            found = again("s").rows(start, start + 1)
        except CorruptSegment:
            continue
        assert found == rows[start : start + 1]
    assert {one.damage for one in stream.check().problems} == {Damage.ENTRY}
    report = again("s").repair()
    assert report.is_good
    assert again("s").rows() == rows
    assert again("s").append({"n": 20, "text": None}) == range(20, 21)
    assert again("s").rows() == [*rows, {"n": 20, "text": None}]


def test_two_seals_do_no_harm(stream: Stream, again: Again) -> None:
    rows = stream.rows()
    arrange(stream, 0, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 11])
    assert again("s").rows() == rows
    assert again("s").check().is_good


def test_reading_across_a_missing_entry_says_where(stream: Stream, again: Again) -> None:
    arrange(stream, 0, [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11])
    with pytest.raises(CorruptSegment, match=r"expected an index entry, got an entry of other rows") as caught:
        again("s").rows(2, 3)
    assert (vars(caught.value)["first"], vars(caught.value)["position"]) == (2, 3 * ENTRY_BYTES)


def test_no_append_behind_an_entry_of_other_rows(stream: Stream, again: Again) -> None:
    """The tail is not cut to what a stray entry says."""
    before = data_of(stream, 10).read_bytes()
    arrange(stream, 10, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 2])
    with pytest.raises(CorruptSegment, match=r"expected an index entry, got 1408 bytes of entries of other rows"):
        again("s").append({"n": 20, "text": None})
    assert data_of(stream, 10).read_bytes() == before


def test_the_index_of_another_segment(stream: Stream, again: Again) -> None:
    rows = stream.rows()
    shutil.copyfile(index_of(stream, 0), index_of(stream, 10))
    with pytest.raises(CorruptSegment, match=r"expected the index of a segment, got entries of other rows"):
        again("s").read(10)
    with pytest.raises(CorruptSegment):
        again("s").append({"n": 20, "text": None})
    assert again("s").repair().is_good
    assert again("s").rows() == rows


def test_data_longer_than_a_lost_seal_says(stream: Stream, again: Again) -> None:
    rows = stream.rows()
    arrange(stream, 0, list(range(11)))
    with data_of(stream, 0).open("ab") as file:
        file.write(b"stray bytes")
    report = again("s").repair(give_up=True)
    assert report.is_good
    assert again("s").rows() == rows


def test_a_last_segment_of_which_nothing_can_be_read(stream: Stream, again: Again) -> None:
    rows = stream.rows()
    index_of(stream, 10).unlink()
    spoil(data_of(stream, 10), 0, b"\x07" * 64)
    with pytest.raises(CorruptSegment, match=r"expected an Arrow schema message"):
        again("s").append({"n": 20, "text": None})
    assert [one.damage for one in again("s").check().problems] == [Damage.NO_INDEX]
    assert not again("s").repair().is_good
    assert again("s").repair(give_up=True).is_good
    assert again("s").rows() == rows[:10]
    assert again("s").append({"n": 10, "text": None}) == range(10, 11)
    assert any(name.endswith(".arrow.bad") for name in again("s").check().leftovers)


@pytest.mark.parametrize(
    "old, new", [(b'"stream.table"', b'"stream.tabla"'), (b'"text"', b'"t3xt"')], ids=["kind", "column"]
)
def test_a_description_that_contradicts_itself(old: bytes, new: bytes, stream: Stream, again: Again) -> None:
    path = stream._folder / "meta.json"
    path.write_bytes(path.read_bytes().replace(old, new))
    with pytest.raises(CorruptSegment, match=r"expected the description of a stream, format 1, got (kind|the schema)"):
        again("s")


def mutate(folder: Path, rng: random.Random) -> None:
    """Damage one file of a stream, in one of the ways disks and people have."""
    files = sorted(path for path in folder.iterdir() if path.suffix in (".arrow", ".idx"))
    path = rng.choice(files)
    data = bytearray(path.read_bytes())
    at, size = rng.randrange(len(data)), rng.choice([1, 8, 128, 500])
    kind = rng.randrange(9)
    if kind == 0:
        data[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del data[at:]
    elif kind == 2:
        data += rng.randbytes(size)
    elif kind == 3:
        data[at : at + size] = rng.randbytes(size)
    elif kind == 4:
        data[at : at + size] = bytes(size)
    elif kind == 5:
        one, two = (rng.randrange(len(data) // 128) * 128 for _ in range(2))
        data[one : one + 128], data[two : two + 128] = data[two : two + 128], data[one : one + 128]
    elif kind == 6:
        del data[at // 128 * 128 : at // 128 * 128 + 128]
    elif kind == 7:
        data = bytearray(rng.choice([other for other in files if other.suffix == path.suffix]).read_bytes())
    else:
        path.unlink()
        return
    path.write_bytes(data)


DOCUMENT = {"n": 20, "text": None}


@pytest.mark.parametrize("seed", range(24))
@pytest.mark.parametrize("kind", ["rows", "documents", "dictionaries"])
def test_one_file_damaged(kind: str, seed: int, tmp_path: Path, prices: pa.Schema) -> None:
    """Rows that are read are those that were written; after `give_up` the stream can be read and appended to."""
    with_folder = Folder(tmp_path / "hub")
    stream = with_folder.stream("s", schema=prices if kind == "rows" else None, segment_bytes=1500)
    for i in range(12):
        if kind == "dictionaries":
            stream.append(pa.table({"n": [i], "text": pa.array([f"t{i}"]).dictionary_encode()}))
        else:
            stream.append([{"n": i, "text": "x" * (i % 3)}] * (1 + i % 2))
    rows: list[dict[str, Any]] = stream.rows()
    folder = stream._folder
    with_folder.close()
    mutate(folder, random.Random(f"{kind} {seed}"))

    def agrees(act: Callable[[Stream], Any]) -> bool:
        """Whether it can be read, every row then its own."""
        hub = Folder(tmp_path / "hub")
        try:
            found = hub.stream("s", create=False)
            act(found)
            table = found.read(columns=["_offset"])
            for offset, row in zip(table["_offset"].to_pylist(), found.rows(), strict=True):
                assert row == (rows[offset] if offset < len(rows) and row != DOCUMENT else DOCUMENT)
        except CorruptSegment:
            return False
        finally:
            hub.close()
        return True

    def append(stream: Stream) -> None:
        with contextlib.suppress(CorruptSegment):
            stream.append(DOCUMENT)

    agrees(lambda stream: None)
    agrees(append)
    agrees(lambda stream: stream.repair())
    assert agrees(lambda stream: stream.repair(give_up=True))
    assert agrees(lambda stream: stream.append(DOCUMENT))
