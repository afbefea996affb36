"""Calls of a stream that cannot be meant, and what a stream that is gone says of itself."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from penstock.errors import StorageError, UsageError
from penstock.log import Folder


@pytest.mark.parametrize("timeout", ["1s", float("nan"), [1]], ids=repr)
def test_a_timeout_that_is_none(timeout: Any, hub: Folder) -> None:
    stream = hub.stream("s")
    stream.append({"a": 1})
    message = r"expected timeout: seconds, or None to wait for ever, got .* - in stream 's'; such as timeout=2\.5"
    with pytest.raises(UsageError, match=message):
        stream.tail("start", timeout=timeout)
    with pytest.raises(UsageError, match=message):
        stream.atail("start", timeout=timeout)
    assert [batch.num_rows for batch in stream.tail("start", timeout=0)] == [1]

    async def rows() -> int:
        return sum([batch.num_rows async for batch in stream.atail("start", timeout=0)])

    assert asyncio.run(rows()) == 1


@pytest.mark.parametrize("name", [" ", "a ", " a"])
def test_a_group_is_named_as_a_stream_is(name: str, hub: Folder) -> None:
    stream = hub.stream("s")
    with pytest.raises(UsageError, match=r"expected a group name: .* without blanks at its ends, got ' ?a? ?'"):
        stream.group(name)
    assert stream.metadata().groups == {}


@pytest.mark.parametrize("attributes", [5, [("a", 1)], "a"], ids=repr)
def test_attributes_that_are_no_dict(attributes: Any, hub: Folder) -> None:
    for _ in range(2):  # at first it is made, then it is there
        with pytest.raises(UsageError, match=r"expected attributes: a dict of JSON values, got .* - of stream 's'"):
            hub.stream("s", attributes=attributes)
        hub.stream("s")
    with pytest.raises(UsageError, match="expected attributes"):
        hub.stream("s").set_attributes(attributes)


def test_a_stream_that_is_gone_can_be_shown(hub: Folder) -> None:
    stream = hub.stream("s")
    stream.append({"a": 1})
    assert repr(stream) == "Stream('s', stream.document, offsets 0 to 1)"
    shutil.rmtree(stream._folder)
    assert repr(stream) == "Stream('s', stream.document)"


def test_a_hub_where_no_folder_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "hub", Path("/proc/none")):
        with pytest.raises(StorageError, match=r"expected a folder that can be made, got (No|Not) .* - at /"):
            Folder(path)
