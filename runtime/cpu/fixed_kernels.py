"""Kernels that are not loops over elements: matrix products, and copies. Same ABI, same cache.

A product is computed block by block, by a BLAS library, or by graphc itself in tiles (microkernel.py). Those read both
operands where they lie; only a transposed right operand is first copied to the thread's scratch memory, panel by panel.
``k`` is cut into pieces, and columns into groups of panels, so that a group's piece stays in the cache. The sum of an
element runs along ``k`` in the same pieces and the same order however the result is cut.

Where the result is small and ``k`` long, blocks cut ``k`` itself: each makes a partial result in memory that the
threads share, and the thread that is done last adds them up, in order.
"""

from __future__ import annotations

import textwrap

from graphc.dtypes import DType
from runtime.cpu.microkernel import VECTORS, tile_rows, vector_length

_HEADER = "from runtime.cpu.intrinsics import *\n"
_PRODUCT_HEADER = (
    "from numba import float32, float64\nfrom runtime.cpu.microkernel import multiply_tile, transpose_rows\n"
)

# Words of a matrix product's argument block. After them come, for each batch axis from the innermost, its extent and
# the steps along it in both operands, in bytes; then the words of the epilogue. Without a ``function`` graphc computes
# the product itself, at most so many blocks ``together``. Where ``k`` is cut into ``of_k`` blocks of ``depth``, they
# are an axis of the batch.
GEMM_WORDS = (
    "function", "trans_a", "trans_b", "m", "n", "k", "lda", "ldb", "alpha", "beta", "block", "blocks_per_matrix",
    "by_columns", "batch_axes", "a", "b", "c", "epilogue", "epilogue_words", "set_threads", "together",
    "depth", "of_k",
)  # fmt: skip
COPY_WORDS = ("bytes", "block", "source", "target")
DEEP_BYTES = 2048  # of a row of the left operand, along which tiles run at a time
BROAD_BYTES = 768  # of a row of a group of panels
PANEL_BYTES = DEEP_BYTES * BROAD_BYTES // 4  # of a thread: for float32, whose groups are largest
LINE = 64
SCRATCH_BYTES = PANEL_BYTES + LINE  # of a thread: panels, then the address of what the threads share
MOST_OF_K = 16  # blocks of k
RESULT_BYTES = 2**14  # of a result that is made in such blocks, at most
SHARED_BYTES = LINE + MOST_OF_K * RESULT_BYTES  # the number of blocks that are done, and their partial results

_GEMM = """def {name}(args, scratch, lo, hi):
    w = ptr_int64(args)
    function, m, n, k, lda, ldb = w[0], w[3], w[4], w[5], w[6], w[7]
    depth, of_k = w[21], w[22]
    across_a, across_b = w[1] == {T}, w[2] == {T}
    a_row, a_step = (1, lda) if across_a else (lda, 1)
    b_column, b_step = (ldb, 1) if across_b else (1, ldb)
    size, per_matrix, by_columns, batch_axes = w[10], w[11], w[12], w[13]
    threads = set_number(w[19], 1) if w[19] != 0 else 0
    panels = ptr_{dtype}(scratch)
    shared = ptr_int64(scratch + {panel_bytes})[0] if depth != 0 else 0
    results = w[16] if depth == 0 else shared + {line}
    block = lo
    while block < hi:
        matrix = block // per_matrix
        first = (block - matrix * per_matrix) * size
        together = max(1, min(w[20], hi - block, (matrix + 1) * per_matrix - block))
        length = k if depth == 0 else min(depth, k - matrix * depth)
        a, b, c = w[14], w[15], results + matrix * m * n * {bytes}
        for axis in range(batch_axes):
            at = {words} + 3 * axis
            rest = matrix // w[at]
            a += (matrix - rest * w[at]) * w[at + 1]
            b += (matrix - rest * w[at]) * w[at + 2]
            matrix = rest
        rows, columns = m, n
        if by_columns != 0:
            columns = min(size * together, n - first)
            b += first * {bytes} * b_column
            c += first * {bytes}
        else:
            rows = min(size * together, m - first)
            a += first * {bytes} * a_row
            c += first * {bytes} * n
        if function != 0:
            # BLAS sees columns first: the transposed product of the exchanged operands has the same memory.
            call_gemm(function, w[2], w[1], columns, rows, k, w[8], b, ldb, a, lda, w[9], c, max(n, 1))
        else:
            alpha, beta = ptr_{dtype}(w[8])[0], ptr_{dtype}(w[9])[0] if depth == 0 else {zero}
            pieces = max(1, (length + {deep} - 1) // {deep})
            deep = max(1, (length + pieces * {lanes} - 1) // (pieces * {lanes})) * {lanes}
            pieces = max(1, (length + deep - 1) // deep)
            first_a, first_b, first_c = ptr_{dtype}(a), ptr_{dtype}(b), ptr_{dtype}(c)
{own}
        if w[17] != 0 and depth == 0:
            call_kernel(w[17], args + 8 * w[18], scratch, block, block + together)
        block += together
    if depth != 0 and add_atomically(ptr_int64(shared), hi - lo) == of_k - (hi - lo):
        ptr_int64(shared)[0] = 0
        beta, total, parts = ptr_{dtype}(w[9])[0], ptr_{dtype}(w[16]), ptr_{dtype}(results)
        for i in range(m * n):
            total[i] = parts[i] if beta == 0 else beta * total[i] + parts[i]
        for part in range(1, of_k):
            for i in range(m * n):
                total[i] += parts[part * m * n + i]
        if w[17] != 0:
            call_kernel(w[17], args + 8 * w[18], scratch, 0, 1)
    if w[19] != 0:
        set_number(w[19], threads)
"""

_OWN = """for left in range(0, columns, {broad}):
    broad = min({broad}, columns - left)
    for piece in range(pieces):
        from_k = piece * deep
        along = min(deep, length - from_k)
        kept = beta if piece == 0 else {one}
        right, across, step = advanced(first_b, left * b_column + from_k * b_step), {wide}, ldb
        if across_b:
            for j in range(0, broad, {wide}):
                panel, source = advanced(panels, j * deep), advanced(right, j * ldb)
                transpose_rows({lanes}, panel, {wide}, source, ldb, min({wide}, broad - j), along)
            right, across, step = panels, {wide} * deep, {wide}
        for top in range(0, rows, {rows}):
            height = min({rows}, rows - top)
            lower = advanced(first_a, top * a_row + from_k * a_step)
            for j in range(0, broad, {wide}):
                multiply_tile(
                    {rows}, {lanes}, lower, a_row, a_step, advanced(right, j // {wide} * across), step,
                    advanced(first_c, top * n + left + j), n, along, alpha, kept, height, min({wide}, broad - j)
                )
"""

_COPY = """def {name}(args, scratch, lo, hi):
    w = ptr_int64(args)
    for block in range(lo, hi):
        first = block * w[1]
        copy_bytes(w[3] + first, w[2] + first, min(w[1], w[0] - first))
"""


def gemm_source(dtype: DType) -> tuple[str, str]:
    """Label and source (with a ``{name}`` to fill) of the matrix product for float32 or float64."""
    item, lanes, rows = dtype.itemsize, vector_length(dtype.itemsize), tile_rows()
    wide = VECTORS * lanes
    facts = {
        "dtype": dtype, "bytes": item, "words": len(GEMM_WORDS), "T": ord("T"), "lanes": lanes, "rows": rows,
        "wide": wide, "deep": DEEP_BYTES // item, "broad": BROAD_BYTES // item // wide * wide,
        "one": f"{dtype}(1.0)", "zero": f"{dtype}(0.0)", "panel_bytes": PANEL_BYTES, "line": LINE,
    }  # fmt: skip
    text = _PRODUCT_HEADER + _HEADER + "\n\n" + _GEMM.replace("{own}\n", textwrap.indent(_OWN, 12 * " "))
    for key, value in facts.items():
        text = text.replace(f"{{{key}}}", str(value))
    return f"gemm_{dtype}", text


def copy_source() -> tuple[str, str]:
    """Label and source of the copy of bytes."""
    return "copy", _HEADER + "\n\n" + _COPY
