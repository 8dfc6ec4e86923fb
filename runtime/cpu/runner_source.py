"""The program runner: the loop that executes a table of kernel calls without Python.

This file's text is compiled through the kernel cache. Columns of the table: function address, first argument word,
blocks, ways (how many threads share the blocks), and check (1 where a kernel may report a failure).
"""

from numba import prange

from runtime.cpu.intrinsics import call_kernel, ptr_int64, write_time

COLUMNS = 5
FUNCTION, ARGUMENTS, BLOCKS, WAYS, CHECK = range(COLUMNS)
# Words of the control block: a kernel's report of failure; whole steps done since it was made; the addresses of the
# word that asks for an end between steps, and of the run counter; what a step adds to that; the address of the clock,
# or 0; where its next time goes.
FAILED, DONE, CANCEL, COUNTER, ADVANCE, CLOCK, TIMES = range(7)
CONTROL_WORDS = 7
TIME_WORDS = 2  # seconds and nanoseconds


def run(table, count, words, patches, patch_count, bases, control, steps):
    """Fill in addresses, then execute ``steps`` times. All arguments but counts are addresses of int64 arrays.

    Returns -1, or the number of the call in which a kernel has reported a failure: that step has changed nothing.
    With a clock, the time is written at the start of each step and after each call.
    """
    w = ptr_int64(words)
    p = ptr_int64(patches)
    b = ptr_int64(bases)
    for i in range(patch_count):
        w[p[3 * i]] = b[p[3 * i + 1]] + p[3 * i + 2]
    t = ptr_int64(table)
    c = ptr_int64(control)
    cancel = ptr_int64(c[CANCEL])
    counter = ptr_int64(c[COUNTER])
    clock = c[CLOCK]
    for step in range(steps):
        if step > 0 and cancel[0] != 0:
            return -1
        if clock != 0:
            write_time(clock, c[TIMES])
            c[TIMES] += 8 * TIME_WORDS
        for at in range(count):
            row = at * COLUMNS
            function, args = t[row + FUNCTION], words + 8 * t[row + ARGUMENTS]
            blocks, ways = t[row + BLOCKS], t[row + WAYS]
            if ways <= 1:
                if blocks > 0:
                    call_kernel(function, args, 0, 0, blocks)
            else:
                for way in prange(ways):
                    call_kernel(function, args, 0, blocks * way // ways, blocks * (way + 1) // ways)
            if t[row + CHECK] != 0 and c[FAILED] != 0:
                return at
            if clock != 0:
                write_time(clock, c[TIMES])
                c[TIMES] += 8 * TIME_WORDS
        c[DONE] += 1
        counter[0] += c[ADVANCE]
    return -1
