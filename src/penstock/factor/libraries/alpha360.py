"""Qlib's 360: sixty rows of close, open, high, low, vwap relative to the newest close, and of volume to the newest.

    f.library("alpha360")["CLOSE59"]                    # Ref($close, 59) / $close

Names and order are Qlib's (its handler `Alpha360`, MIT licence): CLOSE59 … CLOSE0, OPEN59 …, HIGH …, LOW …, VWAP …,
VOLUME59 … VOLUME0. A zero volume is divided by 1e-12, as there; a factor of i rows ago is NaN for the first i rows.
"""

from __future__ import annotations

from penstock.factor.libraries.base import Library

__all__ = ["build"]


def build() -> Library:
    """The library."""
    texts: dict[str, str] = {}
    for name in ("close", "open", "high", "low", "vwap", "volume"):
        newest = "$close" if name != "volume" else "($volume + 1e-12)"
        for i in range(59, -1, -1):
            row = f"Ref(${name}, {i})" if i else f"${name}"
            texts[f"{name.upper()}{i}"] = f"{row} / {newest}"
    return Library("alpha360", texts, texts)
