"""A producer and a consumer in two processes, and what a kill leaves behind: nothing lost, nothing doubled.

    python examples/words.py

The consumer counts the letters of three words at a time into the stream `lengths`. Half way it is killed with SIGKILL
and started again.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile

import penstock as ps

WORDS = [f"word{number}" for number in range(300)]


def consume(folder: str) -> None:
    hub = ps.open(folder)
    threes = hub.streams.get("words", lazy=True, size=3, into="lengths", group="letters")
    threes.apply(lambda window: {"letters": sum(len(row["word"]) for row in window.data)}, timeout=2)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, ps.open(folder) as hub:
        words = hub.streams.get("words")
        context = multiprocessing.get_context("spawn")
        first = context.Process(target=consume, args=(folder,))
        first.start()
        for word in WORDS:
            words.append({"word": word})
        lengths = hub.streams.get("lengths")
        lengths.wait(10, 60)  # some results are there ...
        os.kill(first.pid or 0, signal.SIGKILL)  # ... and the consumer is gone
        first.join()
        second = context.Process(target=consume, args=(folder,))
        second.start()
        second.join()
        counted = [row["letters"] for row in lengths.rows()]
        expected = [sum(map(len, WORDS[at : at + 3])) for at in range(0, len(WORDS), 3)]
        print(f"{len(counted)} results, {'as' if counted == expected else 'NOT as'} without the kill")


if __name__ == "__main__":
    main()
