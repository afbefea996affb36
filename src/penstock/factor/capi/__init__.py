"""The runtime that goes into a C library beside a program's code: LLVM text, written once per library.

header    `penstock.h`: what each function takes, gives and refuses
library   what all of it is written with: functions, constants, errors
cpu       processors by name, and the refusal of lesser ones
program   functions of the program: names, lookback, digest
memory    a stream's memory, and the context of the compiled code
stream    functions of streams: create, push, run, get, batch
state     the state as a value: rows in logical order, and back
snapshot  the state as bytes
xxh3      the digest at their end

Everything else a library needs is libc's: memory and `snprintf`. Nothing in it is changed after loading except the
message of each thread's last error.
"""

from __future__ import annotations

from penstock.factor.capi.cpu import Target, target
from penstock.factor.capi.header import header
from penstock.factor.capi.library import Facts
from penstock.factor.capi.write import write

__all__ = ["Facts", "Target", "header", "target", "write"]
