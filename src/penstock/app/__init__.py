"""Applications made of the parts above: the demo's pipeline."""

from __future__ import annotations

from penstock.app.demo import Demo, DemoResult, DemoStatistics
from penstock.app.demo_market import Market, load_market

__all__ = ["Demo", "DemoResult", "DemoStatistics", "Market", "load_market"]
