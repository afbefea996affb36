"""Machine code for plans, by way of `penstock.native`: from instructions up to the engine.

machine   the words along time as instructions
kernels   what needs whole rows, as functions: pieces, sums, orders, groups
rows      the words over keys as calls of these
loop      copying in and out, and the loop that calls all functions
module    a plan as one module of text
engine    memory and calls
"""

from __future__ import annotations

__all__: list[str] = []
