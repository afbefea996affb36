"""Factors over history and tick by tick: compiled, in NumPy, in KunQuant and in pandas, in one run.

    operators   ns per value of single operators, all four sides
    libraries   alpha101 and alpha158, the factors that both have: compile, history, ticks (p50, p99, p99.9), state
    scaling     memory, threads, and speed along rows and symbols

Every side gets the same matrices, made before the clock starts. KunQuant runs as it is fastest on this machine
(AVX-512 lanes, symbols in blocks for history) into matrices that exist already, ours makes its own; pandas runs on a
tenth of the rows. Operators are compared before anything is timed: with KunQuant within 1e-3 of the column's size (its
own tests allow 1e-2), with the NumPy engine to the bit (docs/alpha101.md on alphas). History is CPU time,
because other work on the machine does not change it; ticks and threads are wall time.

    python benchmarks/factors.py [operators libraries scaling] [--rows 500] [--symbols 4096] [--rounds 3] [--threads 2]

Sides that are not installed (KunQuant wants a C++ compiler) are left out and named.
"""

from __future__ import annotations

from _factors.kun import FOUND, Kun
from _factors.libraries import libraries
from _factors.operators import operators
from _factors.scaling import scaling
from _report import arguments, write

PARTS = {"operators": operators, "libraries": libraries, "scaling": scaling}


def main() -> None:
    options = arguments(__doc__ or "", parts=list(PARTS), rows=500, symbols=4096, threads=2)
    kun = Kun() if FOUND else None
    if kun is None:
        print("left out: KunQuant (not installed, or no g++)")
    shown = [row for part in options.parts for row in PARTS[part](options, kun)]
    write(options.json, shown, "numpy", "llvmlite", "KunQuant", "pandas")


if __name__ == "__main__":
    main()
