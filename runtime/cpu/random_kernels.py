"""The kernel that draws a permutation. All other random numbers come from the loop IR."""

from __future__ import annotations

from graphc.ops.philox import LOW32, MULTIPLIERS, ROUNDS, WEYL

# Words of its argument block: the size, then addresses of the inputs and of the result.
PERMUTATION_WORDS = ("n", "key", "runs", "out")

# Fisher and Yates, from the back: element i changes places with number x * (i + 1) / 2**64 of those up to it, where x
# is the first 64 bits that Philox gives for i. One after the other, so it is one block.
_PERMUTATION = """from runtime.cpu.intrinsics import *
from numba import int64, uint64


def {name}(args, scratch, lo, hi):
    w = ptr_int64(args)
    n, out = w[0], ptr_int64(w[3])
    low, half = uint64({LOW}), uint64(32)
    key, runs = ptr_uint64(w[1])[0], ptr_uint64(w[2])[0]
    for block in range(lo, hi):
        for i in range(n):
            out[i] = i
        for back in range(1, n):
            i = n - back
            index = uint64(i)
            c0, c1, c2, c3 = index & low, index >> half, runs & low, runs >> half
            k0, k1 = key & low, key >> half
            for number in range({ROUNDS}):
                p, q = c0 * uint64({M0}), c2 * uint64({M1})
                c0, c1, c2, c3 = (q >> half) ^ c1 ^ k0, q & low, (p >> half) ^ c3 ^ k1, p & low
                k0, k1 = (k0 + uint64({W0})) & low, (k1 + uint64({W1})) & low
            size = index + uint64(1)
            middle = c1 * (size & low) + ((c0 * (size & low)) >> half)
            rest = c0 * (size >> half) + (middle & low)
            j = int64(c1 * (size >> half) + (middle >> half) + (rest >> half))
            kept = out[i]
            out[i] = out[j]
            out[j] = kept
"""


def permutation_source() -> tuple[str, str]:
    """Label and source (with a ``{name}`` to fill) of the kernel."""
    text = _PERMUTATION
    values = {"LOW": LOW32, "ROUNDS": ROUNDS, "M0": MULTIPLIERS[0], "M1": MULTIPLIERS[1], "W0": WEYL[0], "W1": WEYL[1]}
    for word, value in values.items():
        text = text.replace("{" + word + "}", str(value))
    return "permutation", text
