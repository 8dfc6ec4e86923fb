"""The program runner: one native call that checks arrays, fills in addresses and executes a table of kernel calls.

This file's text is compiled through the kernel cache. Columns of the table: function address, first argument word,
blocks, ways (how many threads share the blocks), and check (1 where a kernel may report a failure). A row without a
function stands before a group of so many rows. With words that say how they are shared, these are a wave: they run side
by side, each on one thread. Without, they are a chain: every thread does its share of the blocks of one after the
other.
"""

from numba import int64, prange

from runtime.cpu.intrinsics import call_kernel, ptr_int32, ptr_int64, write_time
from runtime.cpu.objects import address_of_object

COLUMNS = 5
FUNCTION, ARGUMENTS, BLOCKS, WAYS, CHECK = range(COLUMNS)
CHAIN = -1  # instead of a group's words
# Words of the control block: a kernel's report of failure; whole steps done since it was made; the addresses of the
# word that asks for an end between steps, and of the run counter; what a step adds to that; the address of the clock,
# or 0; where its next time goes.
FAILED, DONE, CANCEL, COUNTER, ADVANCE, CLOCK, TIMES = range(7)
CONTROL_WORDS = 7
TIME_WORDS = 2  # seconds and nanoseconds
# Words of a request: addresses and lengths of the table, the argument words and their patches; the addresses of
# bases, control block, the word with the arena's address, and scalars; the steps to do; the numbers of arrays fed and
# of arrays to fill, and the address of what is expected of them; the sizes of what comes before a Python object's own
# members, and before a tuple's items; the type of arrays; whether each step has arrays of its own; the address of the
# threads' scratch memory, and the bytes from one thread's to the next.
TABLE, CALLS, WORDS, PATCHES, PATCH_COUNT, BASES, CONTROL, ARENA_AT, SCALARS_AT = range(9)
STEPS, FED, FILLED, EXPECTED, HEADER, ITEMS, ARRAY_TYPE, EACH, SCRATCH, SCRATCH_STEP = range(9, 19)
REQUEST_WORDS = 19
# What is expected of an array that is fed: the base its address goes to, or -1; its dtype object; its rank, and its
# extents. Of one to be filled there is the base alone.
BASE, DTYPE, RANK, EXTENTS = range(4)
# Where NumPy's ABI puts the members of an array object behind the object's header, in units of eight bytes. The last
# member of the header is the object's type.
DATA, NDIM, DIMENSIONS, DESCRIPTOR, FLAGS = 0, 1, 2, 5, 6
CONTIGUOUS_AND_ALIGNED = 0x101
FINISHED, MISFIT = -1, -2
# Where addresses are counted from: the arena, the scalars of a binding, the status word; then the program's buffers.
ARENA, SCALARS, STATUS, FIRST = 0, 1, 2, 3


def prepare(request, feeds, outputs):
    """Check the arrays whose addresses are at ``feeds``, and fill in where they and the ``outputs`` have their data.
    Returns ``FINISHED`` or ``MISFIT``.
    """
    r = ptr_int64(request)
    bases = ptr_int64(r[BASES])
    objects = ptr_int64(feeds)
    at, header = r[EXPECTED], r[HEADER]
    for i in range(r[FED]):
        expected = ptr_int64(at)
        if ptr_int64(objects[i] + header - 8)[0] != r[ARRAY_TYPE]:
            return MISFIT
        array, rank = ptr_int64(objects[i] + header), expected[RANK]
        if array[DESCRIPTOR] != expected[DTYPE] or ptr_int32(objects[i] + header + 8 * NDIM)[0] != rank:
            return MISFIT
        flags = ptr_int32(objects[i] + header + 8 * FLAGS)[0]
        if (flags & CONTIGUOUS_AND_ALIGNED) != CONTIGUOUS_AND_ALIGNED:
            return MISFIT
        extents = ptr_int64(array[DIMENSIONS])
        for axis in range(rank):
            if extents[axis] != expected[EXTENTS + axis]:
                return MISFIT
        if expected[BASE] >= 0:
            bases[expected[BASE]] = array[DATA]
        at += 8 * (EXTENTS + rank)
    objects = ptr_int64(outputs)
    for i in range(r[FILLED]):
        bases[ptr_int64(at + 8 * i)[0]] = ptr_int64(objects[i] + header)[DATA]
    bases[ARENA] = ptr_int64(r[ARENA_AT])[0]
    bases[SCALARS] = r[SCALARS_AT]
    words, patches = ptr_int64(r[WORDS]), ptr_int64(r[PATCHES])
    for i in range(r[PATCH_COUNT]):
        words[patches[3 * i]] = bases[patches[3 * i + 1]] + patches[3 * i + 2]
    return FINISHED


def share(place, words, scratch, way):
    """What one of the threads does of the row at address ``place``: blocks of a call, or of the calls of a group."""
    row = ptr_int64(place)
    ways, begin, end = row[WAYS], 0, 1
    if row[FUNCTION] == 0:
        begin, end = 1, row[BLOCKS] + 1
        if row[ARGUMENTS] != CHAIN:
            shares = ptr_int64(words + 8 * row[ARGUMENTS])
            ways, way, begin, end = 1, 0, shares[way] + 1, shares[way + 1] + 1
    for k in range(begin, end):
        one = ptr_int64(place + 8 * COLUMNS * k)
        blocks = one[BLOCKS]
        call_kernel(
            one[FUNCTION], words + 8 * one[ARGUMENTS], scratch, blocks * way // ways, blocks * (way + 1) // ways
        )


def launch(place, words, scratch, each, ways):
    """Have threads share the row at address ``place``; every one has ``each`` bytes of scratch memory."""
    for way in prange(ways):
        share(place, words, scratch + each * int64(way), int64(way))  # else compiled for unsigned integers, too


def run(request, feeds, outputs):
    """Do what the words at address ``request`` say, with the arrays in two tuples; or in two tuples of such tuples, one
    for each step.

    Returns ``FINISHED``; ``MISFIT`` if an array is not what is expected; or the number of the call in which a kernel
    has reported a failure: that step has changed nothing. With a clock, the time is written at the start of each step
    and after each call.
    """
    r = ptr_int64(request)
    fed, filled = address_of_object(feeds) + r[ITEMS], address_of_object(outputs) + r[ITEMS]
    if r[EACH] == 0 and prepare(request, fed, filled) == MISFIT:
        return MISFIT
    c = ptr_int64(r[CONTROL])
    words = r[WORDS]
    cancel = ptr_int64(c[CANCEL])
    counter = ptr_int64(c[COUNTER])
    clock = c[CLOCK]
    c[FAILED] = 0
    for step in range(r[STEPS]):
        if step > 0 and cancel[0] != 0:
            return FINISHED
        if r[EACH] != 0:
            own_fed, own_filled = ptr_int64(fed)[step] + r[ITEMS], ptr_int64(filled)[step] + r[ITEMS]
            if prepare(request, own_fed, own_filled) == MISFIT:
                return MISFIT
        if clock != 0:
            write_time(clock, c[TIMES])
            c[TIMES] += 8 * TIME_WORDS
        at = -1
        while at + 1 < r[CALLS]:
            at += 1
            place = r[TABLE] + 8 * COLUMNS * at
            row = ptr_int64(place)
            if row[WAYS] > 1:
                launch(place, words, r[SCRATCH], r[SCRATCH_STEP], row[WAYS])
            elif row[BLOCKS] > 0:
                call_kernel(row[FUNCTION], words + 8 * row[ARGUMENTS], r[SCRATCH], 0, row[BLOCKS])
            if row[FUNCTION] == 0:
                at += row[BLOCKS]
            if row[CHECK] != 0 and c[FAILED] != 0:
                return at
            if clock != 0:
                write_time(clock, c[TIMES])
                c[TIMES] += 8 * TIME_WORDS
        c[DONE] += 1
        counter[0] += c[ADVANCE]
    return FINISHED
