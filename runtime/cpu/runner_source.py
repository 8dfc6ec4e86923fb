"""The program runner: the loop that executes a table of instructions without Python.

This file's text is compiled through the kernel cache. Columns of the table: opcode, function address, first
argument word, blocks, ways (how many threads share the blocks), check (1 where a kernel
may report a failure), and two spare ones.
"""

from numba import njit, prange, types

from runtime.cpu.intrinsics import call_kernel, ptr_int64

CALL, JUMP, SET, ADD, JUMP_LESS = 0, 1, 2, 3, 4
COLUMNS = 8


@njit(
    types.int64(types.int64, types.int64, types.int64, types.int64, types.int64, types.int64, types.int64, types.int64),
    parallel=True, nogil=True, cache=True, error_model="numpy",
)  # fmt: skip
def run(table, count, words, patches, patch_count, bases, status, scratch):
    """Fill in addresses, then execute. All arguments but counts are addresses of int64 arrays.

    Returns -1, or the number of the instruction after which a kernel had reported a failure.
    """
    w = ptr_int64(words)
    p = ptr_int64(patches)
    b = ptr_int64(bases)
    for i in range(patch_count):
        w[p[3 * i]] = b[p[3 * i + 1]] + p[3 * i + 2]
    t = ptr_int64(table)
    failed = ptr_int64(status)
    at = 0
    while at < count:
        row = at * 8
        opcode = t[row]
        at += 1
        if opcode == 0:
            function, args, blocks, ways = t[row + 1], words + 8 * t[row + 2], t[row + 3], t[row + 4]
            if ways <= 1:
                if blocks > 0:
                    call_kernel(function, args, scratch, 0, blocks)
            else:
                for way in prange(ways):
                    call_kernel(function, args, scratch, blocks * way // ways, blocks * (way + 1) // ways)
            if t[row + 5] != 0 and failed[0] != 0:
                return at - 1
        elif opcode == 1:
            at = t[row + 1]
        elif opcode == 2:
            w[t[row + 1]] = t[row + 2]
        elif opcode == 3:
            w[t[row + 1]] += t[row + 2]
        elif w[t[row + 1]] < w[t[row + 2]]:
            at = t[row + 3]
    return -1
