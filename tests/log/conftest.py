"""Hubs to break: each test has its own, on the disk."""

from __future__ import annotations

import multiprocessing
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from penstock.log import Folder, Stream
from penstock_tests.waiting import PATIENCE_S

PRICES = pa.schema([pa.field("n", pa.int64(), nullable=False), pa.field("text", pa.string())])


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Folder]:
    folder = Folder(tmp_path / "hub")
    yield folder
    folder.close()


@pytest.fixture
def again(hub: Folder) -> Iterator[Callable[..., Stream]]:
    """`again(name)`: the stream as another process has it, nothing known or open."""
    opened: list[Folder] = []

    def get(name: str, **options: Any) -> Stream:
        opened.append(Folder(hub.path))
        return opened[-1].stream(name, **options)

    yield get
    for folder in opened:
        folder.close()


@pytest.fixture
def prices() -> pa.Schema:
    return PRICES


@pytest.fixture
def fork() -> Iterator[Callable[..., BaseProcess]]:
    """`fork(function, *arguments)`: a child process that runs it, forked, so that it is there within milliseconds."""
    children: list[BaseProcess] = []

    def start(target: Callable[..., object], *arguments: object) -> BaseProcess:
        process = multiprocessing.get_context("fork").Process(target=target, args=arguments)
        with warnings.catch_warnings():
            # Python 3.12 and later warn of any fork beside a thread, and pyarrow has threads. The children use only
            # what is made anew after a fork; that this works is one of the things tested.
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
        children.append(process)
        return process

    yield start
    for process in children:
        if process.is_alive():
            os.kill(process.pid or 0, signal.SIGKILL)
        process.join(PATIENCE_S)
        process.close()
