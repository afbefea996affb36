"""A key's rows out of a table: each data file that has some is written again without them, all in one commit.

What waits in the log is rolled first. The table's log names the offset up to which it was, and nothing before that is
ever read there again, so the key's rows do not come back; rows that are written meanwhile may stay. A process that is
killed before the commit has changed nothing.
"""

from __future__ import annotations

from penstock.store.compact import FILE_ROWS, Progress, rewritten
from penstock.store.delta import add_action, remove_action
from penstock.store.roll import locked, roll
from penstock.store.state import State
from penstock.store.table import Table
from penstock.store.wish import EVER

__all__ = ["erase"]


def erase(table: Table, key: str, *, progress: Progress | None = None) -> int:
    """Remove a key, its rows and their history; returns how many rows were stored.

    Takes   progress: called with (rows read, rows to read) after each file.
    Raises  KeyNotFound with near keys; CorruptFile when a file that may have rows of the key cannot be read, and then
            nothing was removed.
    Cost    reads and writes every file that has the key: about a second per million rows; memory for one file's rows.
    """
    if not table.has(key):
        raise table.no_key(key)
    roll(table, force=True)
    with locked(table):
        while True:
            state = table.state()
            files = [file for file in table.files(state, [key], EVER) if table.parts.has(file, key)]
            rows = sum(table.parts.keys(file)[key] for file in files)
            actions = [remove_action(file) for file in files]
            done, total = 0, sum(file.rows for file in files)
            for file in files:
                actions += map(add_action, rewritten(table, [file], state, FILE_ROWS, without=key))
                done += file.rows
                if progress is not None:
                    progress(done, total)

            def still(newer: State, state: State = state) -> bool:
                return newer.files.keys() == state.files.keys()

            committed = table.log.commit(state, "DELETE", actions, still)
            if committed is not None:
                table.put_state(committed)
                break
    if table.owns_stream:  # whatever of the log can go already
        table.stream.seal()
        table.stream.retain()
    return rows
