"""Whose turn it is, and how far each has come."""

from __future__ import annotations

import threading

from penstock.store.service.writers import Writers


def test_positions_are_kept_and_the_oldest_forgotten() -> None:
    writers = Writers(kept=2)
    for who in "abc":
        with writers.turn(who) as done:
            assert done == {}
            done["table"] = 1
    with writers.turn("c") as done:
        assert done == {"table": 1}
    with writers.turn("a") as done:
        assert done == {}
    writers.clear()
    with writers.turn("c") as done:
        assert done == {}


def test_one_that_is_at_it_is_not_forgotten_and_its_repeated_message_waits() -> None:
    writers = Writers(kept=1)
    seen: list[dict[str, int]] = []

    def again() -> None:
        with writers.turn("a") as done:
            seen.append(dict(done))

    with writers.turn("a") as done:
        for other in "bcd":
            with writers.turn(other):
                pass
        repeated = threading.Thread(target=again)
        repeated.start()
        repeated.join(0.05)
        assert seen == []
        done["table"] = 7
    repeated.join()
    assert seen == [{"table": 7}]
