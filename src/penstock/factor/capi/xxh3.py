"""XXH3, 128 bits, seed 0, of more than 240 bytes: the digest of a snapshot.

Source  the xxHash specification, doc/xxhash_spec.md, "XXH3 Algorithm Overview", long inputs. Tested against the
        `xxhash` package.
"""

from __future__ import annotations

from penstock.factor.capi.library import Library
from penstock.native.emit import I64, PTR, Value, kind

__all__ = ["xxh3"]

_SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221"
    "b8084674f743248ee03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8a8"
    "fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb17"
    "0ddd51b7f0da49d316552629d4689e2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
)
_P32 = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D)
_P64 = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)
_START = (_P32[2], _P64[0], _P64[1], _P64[2], _P64[3], _P32[1], _P64[4], _P32[0])
_STRIPE, _STRIPES = 64, 16
_V8 = kind("i64", 8)


def _signed(x: int) -> int:
    return x - 2**64 if x >= 2**63 else x


def xxh3(library: Library) -> None:
    """Write `xxh3(data, size, out)`: out gets the 16 bytes in the order in which digests are kept."""
    lanes = ", ".join(f"i64 {_signed(x)}" for x in _START)
    secret = library.text(_SECRET)

    fn = library.function("xxh3_stripe", None, sums=PTR, data=PTR, key=PTR)
    data = fn.load(_V8, fn["data"], 1)
    keyed = data ^ fn.load(_V8, fn["key"], 1)
    turned = ", ".join(f"i32 {i ^ 1}" for i in range(8))
    swapped = fn.put(_V8, f"shufflevector {_V8.text} {data.text}, {_V8.text} poison, <8 x i32> <{turned}>")
    fn.store(fn.load(_V8, fn["sums"], 64) + swapped + (keyed & 0xFFFFFFFF) * (keyed >> 32), fn["sums"], 64)
    fn.give()

    fn = library.function("xxh3_merged", I64, sums=PTR, key=PTR, seed=I64)
    made = fn["seed"]
    wide = kind("i128")
    for i in range(0, 8, 2):
        pair = [
            fn.load(I64, fn.at(fn["sums"], j, I64), 8) ^ fn.load(I64, fn.at(fn["key"], j, I64), 1) for j in (i, i + 1)
        ]
        product = fn.cast("zext", pair[0], "i128") * fn.cast("zext", pair[1], "i128")
        high = fn.cast("trunc", fn.put(wide, f"lshr i128 {product.text}, 64"), "i64")
        made = made + (fn.cast("trunc", product, "i64") ^ high)
    made = (made ^ (made >> 37)) * _signed(0x165667919E3779F9)
    fn.give(made ^ (made >> 32))

    fn = library.function("xxh3", None, data=PTR, size=I64, out=PTR)
    data, size = fn["data"], fn["size"]
    sums = fn.variable(_V8, Value(fn, _V8, f"<{lanes}>"))
    at = Value(fn, PTR, sums.place)
    key = fn.place(secret)

    def key_at(offset: Value | int) -> Value:
        return fn.at(key, offset, 1)

    def stripes(first: Value, count: Value | int) -> None:
        with fn.loop(0, count) as i:
            fn.own("xxh3_stripe", None, at, fn.at(first, i * _STRIPE, 1), key_at(i * 8))

    block = _STRIPE * _STRIPES
    blocks = (size - 1) >> 10
    with fn.loop(0, blocks) as number:
        stripes(fn.at(data, number * block, 1), _STRIPES)
        now = sums.get()
        now = now ^ (now >> 47) ^ fn.load(_V8, key_at(len(_SECRET[:192]) - _STRIPE), 1)
        sums.set(now * _P32[0])
    rest = size - 1 - blocks * block
    stripes(fn.at(data, blocks * block, 1), rest >> 6)
    fn.own("xxh3_stripe", None, at, fn.at(data, size - _STRIPE, 1), key_at(192 - _STRIPE - 7))
    low = fn.own("xxh3_merged", I64, at, key_at(11), size * _signed(_P64[0]))
    high = fn.own("xxh3_merged", I64, at, key_at(192 - _STRIPE - 11), ~(size * _signed(_P64[1])))
    for i, half in enumerate((high, low)):
        fn.store(fn.intrinsic("bswap", half), fn.at(fn["out"], i, I64), 1)
    fn.give()
