"""Machine code without a compiler beside it, by way of LLVM.

emit    instructions in LLVM's text form
jit     text to code in this process, with a cache on disk

What is said in these instructions stands with its subject: factors in `factor/llvm/`, bars in `window/bars/`.
"""

from __future__ import annotations

__all__: list[str] = []
