"""The mean of all closes in each array of bars, as `avg.kg` has it.

    penstock feed fake --symbols AAPL,MSFT,TSLA
    penstock plant handle examples/avg.py --port 5001
    penstock tail --uri ws://localhost:5001                      # {"ev": "AVG", "a": 52.2865} …

`python examples/avg.py` tries it on three bars.
"""

from __future__ import annotations

from typing import Any


def onmsg(messages: list[dict[str, Any]]) -> dict[str, Any] | None:
    """One message for each array of messages; nothing for an array without bars."""
    closes = [message["c"] for message in messages if "c" in message]
    return {"ev": "AVG", "a": sum(closes) / len(closes)} if closes else None


if __name__ == "__main__":
    print(onmsg([{"ev": "AM", "sym": symbol, "c": c} for symbol, c in (("A", 10.5), ("B", 20.25), ("C", 30.0))]))
