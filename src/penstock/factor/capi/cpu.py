"""Processors to build for by name, and what a library asks of the one it is opened on.

Source  x86-64 psABI, "microarchitecture levels"; Intel SDM vol. 2A, CPUID; AMD APM vol. 3, appendix E.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock.errors import FactorError
from penstock.native import jit
from penstock.native.emit import I32, I64, Value

if TYPE_CHECKING:
    from penstock.factor.capi.library import Function

__all__ = ["PLAIN", "Target", "floors", "refuse_others", "target"]

PLAIN = '"target-cpu"="x86-64" "target-features"="+sse2"'
"""Attributes of functions that must run everywhere: those which find out where they are, and all of the runtime."""

_LEAVES = ((1, 0, 2), (7, 0, 1), (7, 0, 2), (7, 0, 3), (7, 1, 0), (0x80000001, 0, 2))
"""Leaf, subleaf and register (eax, ebx, ecx, edx) of the words of features."""

_BITS = (
    {
        **{"sse3": 0, "pclmul": 1, "ssse3": 9, "fma": 12, "cx16": 13, "sse4.1": 19, "sse4.2": 20, "movbe": 22},
        **{"popcnt": 23, "aes": 25, "avx": 28, "f16c": 29},
    },
    {
        **{"bmi": 3, "avx2": 5, "bmi2": 8, "avx512f": 16, "avx512dq": 17, "adx": 19, "avx512ifma": 21},
        **{"avx512cd": 28, "sha": 29, "avx512bw": 30, "avx512vl": 31},
    },
    {
        **{"avx512vbmi": 1, "avx512vbmi2": 6, "gfni": 8, "vaes": 9, "vpclmulqdq": 10, "avx512vnni": 11},
        **{"avx512bitalg": 12, "avx512vpopcntdq": 14},
    },
    {"avx512vp2intersect": 8, "avx512fp16": 23},
    {"avxvnni": 4, "avx512bf16": 5, "avxifma": 23},
    {"lzcnt": 5, "sse4a": 6, "xop": 11, "fma4": 16, "tbm": 21},
)
_OSXSAVE = 27


@dataclass(frozen=True, slots=True)
class Target:
    """A processor: its name here, LLVM's names for it and its features, and what it must have."""

    name: str
    cpu: str
    features: str
    needs: tuple[str, ...]
    x86: bool


def target(name: str) -> Target:
    """The processor of that name.

    Raises  FactorError for a name that is none of this machine's family.
    """
    triple, cpu, features = jit.host()
    x86 = triple.startswith(("x86_64", "amd64"))
    known = ["native", "baseline", *(jit.LEVELS if x86 else ())]
    if name not in known:
        raise FactorError(expected=f"a cpu of {', '.join(map(repr, known))}", got=repr(name), where="in build")
    if name == "native":
        there = sorted(feature for feature, has in features.items() if has)
        flat = ",".join(f"{'+' if features[feature] else '-'}{feature}" for feature in sorted(features))
        known_bits = {feature for word in _BITS for feature in word}
        return Target(name, cpu, flat, tuple(f for f in there if f in known_bits) if x86 else (), x86)
    if not x86:
        return Target(name, "generic", "", (), x86)
    level = "x86-64" if name == "baseline" else name
    return Target(name, level, "", jit.LEVELS[level], x86)


def refuse_others(fn: Function, made: Target) -> None:
    """Leave with an error on a processor that lacks something; nothing if none can."""
    if not made.needs:
        return
    words = [fn.variable(I32, 0) for _ in _LEAVES]
    most, more = (_cpuid(fn, fn.number(I32, leaf), 0)[0] for leaf in (0, 0x80000000))
    inner = fn.variable(I32, 0)
    with fn.when(fn.compare("uge", most, 7)):
        inner.set(_cpuid(fn, fn.number(I32, 7), 0)[0])
    for word, (leaf, sub, register) in zip(words, _LEAVES, strict=True):
        there = fn.compare("uge", more if leaf >= 0x80000000 else most, leaf - (2**32 if leaf >= 2**31 else 0))
        if sub:
            there = there & fn.compare("uge", inner.get(), sub)
        with fn.when(there):
            word.set(_cpuid(fn, fn.number(I32, leaf - (2**32 if leaf >= 2**31 else 0)), sub)[register])
    hint = "; build it with cpu='baseline', or for this processor"
    for word, bits in zip(words, _BITS, strict=True):
        for name in (name for name in made.needs if name in bits):
            lacks = (word.get() & _signed(1 << bits[name])) == 0
            fn.refuse(lacks, "OTHER_CPU", f"built for {made.name}, this processor lacks {name}{hint}")
    if "avx" in made.needs:
        fn.refuse((words[0].get() & (1 << _OSXSAVE)) == 0, "OTHER_CPU", f"the system keeps no wide registers{hint}")
        asked = 0xE6 if "avx512f" in made.needs else 6
        text = 'asm sideeffect "xgetbv", "={ax},={dx},{cx}"(i32 0)'
        pair = fn.put(I64, f"call {{i32, i32}} {text}")
        kept = fn.put(I32, f"extractvalue {{i32, i32}} {pair.text}, 0")
        fn.refuse((kept & asked) != asked, "OTHER_CPU", f"the system keeps no registers of {made.name}{hint}")


def _signed(mask: int) -> int:
    return mask - 2**32 if mask >= 2**31 else mask


def _cpuid(fn: Function, leaf: Value, sub: int) -> list[Value]:
    text = 'asm sideeffect "cpuid", "={ax},={bx},={cx},={dx},{ax},{cx}"'
    four = fn.put(I64, f"call {{i32, i32, i32, i32}} {text}(i32 {leaf.text}, i32 {sub})")
    return [fn.put(I32, f"extractvalue {{i32, i32, i32, i32}} {four.text}, {i}") for i in range(4)]


def floors(made: Target) -> str:
    """`floor` and `floorf` where the processor has no instruction for them and LLVM would call libm's."""
    if not made.x86 or "sse4.1" in made.needs:
        return ""
    return "\n".join([*(_floor(*facts) for facts in (("floor", "double", 52), ("floorf", "float", 23))), _USED])


_USED = '@llvm.used = appending global [2 x ptr] [ptr @floor, ptr @floorf], section "llvm.metadata"\n'


def _floor(name: str, of: str, bits: int) -> str:
    short = "f64" if of == "double" else "f32"
    most = {52: "0x4330000000000000", 23: "0x4160000000000000"}[bits]
    return f"""declare {of} @llvm.fabs.{short}({of})
declare {of} @llvm.copysign.{short}({of}, {of})
define internal {of} @{name}({of} %x) {{
  %size = call {of} @llvm.fabs.{short}({of} %x)
  %small = fcmp olt {of} %size, {most}
  br i1 %small, label %cut, label %whole
whole:
  ret {of} %x
cut:
  %i = fptosi {of} %x to i64
  %back = sitofp i64 %i to {of}
  %above = fcmp ogt {of} %back, %x
  %one = select i1 %above, {of} 1.0, {of} 0.0
  %down = fsub {of} %back, %one
  %signed = call {of} @llvm.copysign.{short}({of} %down, {of} %x)
  ret {of} %signed
}}"""
