"""Streams of bars through a program: rows to ticks, ticks to factors, factors to a stream, each exactly once.

feed      what `program.follow` gives: a consumer whose windows are rows of factors
window    the emitter behind it
ticks     rows of a stream to ticks, the rows of one time; ticks to factors
held      rows of bars as numbers
universe  for which symbols a program runs, and running it
memory    where the last ticks lie, for a program that did not see them
moving    state from one program, or one set of symbols, to another
runner    how a feed keeps its state and hands many ticks on at once
"""

from __future__ import annotations

from penstock.factor.feed.feed import Feed, FeedStatistics
from penstock.factor.feed.window import FactorWindow

__all__ = ["FactorWindow", "Feed", "FeedStatistics"]
