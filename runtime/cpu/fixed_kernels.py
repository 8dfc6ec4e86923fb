"""Kernels that are not loops over elements: matrix products through BLAS, and copies. Same ABI, same cache."""

from __future__ import annotations

from graphc.dtypes import DType

_HEADER = "from runtime.cpu.intrinsics import *\n\n\n"

# Words of a matrix product's argument block. After them come, for each batch axis from the innermost, its extent and
# the steps along it in both operands, in bytes; then the words of the epilogue.
GEMM_WORDS = (
    "function", "trans_a", "trans_b", "m", "n", "k", "lda", "ldb", "alpha", "beta", "block", "blocks_per_matrix",
    "by_columns", "batch_axes", "a", "b", "c", "epilogue", "epilogue_words", "set_threads",
)  # fmt: skip
COPY_WORDS = ("bytes", "block", "source", "target")

_GEMM = """def {name}(args, scratch, lo, hi):
    w = ptr_int64(args)
    function, trans_a, trans_b, m, n, k, lda, ldb = w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]
    alpha, beta, size, per_matrix, by_columns, batch_axes = w[8], w[9], w[10], w[11], w[12], w[13]
    threads = set_number(w[19], 1) if w[19] != 0 else 0
    for block in range(lo, hi):
        matrix = block // per_matrix
        first = (block - matrix * per_matrix) * size
        a, b, c = w[14], w[15], w[16] + matrix * m * n * {bytes}
        for axis in range(batch_axes):
            at = {words} + 3 * axis
            rest = matrix // w[at]
            a += (matrix - rest * w[at]) * w[at + 1]
            b += (matrix - rest * w[at]) * w[at + 2]
            matrix = rest
        rows, columns = m, n
        if by_columns != 0:
            columns = min(size, n - first)
            b += first * {bytes} * (ldb if trans_b == {T} else 1)
            c += first * {bytes}
        else:
            rows = min(size, m - first)
            a += first * {bytes} * (1 if trans_a == {T} else lda)
            c += first * {bytes} * n
        # BLAS sees columns first: the transposed product of the exchanged operands has the same memory.
        call_gemm(function, trans_b, trans_a, columns, rows, k, alpha, b, ldb, a, lda, beta, c, max(n, 1))
        if w[17] != 0:
            call_kernel(w[17], args + 8 * w[18], scratch, block, block + 1)
    if w[19] != 0:
        set_number(w[19], threads)
"""

_COPY = """def {name}(args, scratch, lo, hi):
    w = ptr_int64(args)
    for block in range(lo, hi):
        first = block * w[1]
        copy_bytes(w[3] + first, w[2] + first, min(w[1], w[0] - first))
"""


def gemm_source(dtype: DType) -> tuple[str, str]:
    """Label and source (with a ``{name}`` to fill) of the matrix product for float32 or float64."""
    text = _GEMM.replace("{bytes}", str(dtype.itemsize)).replace("{words}", str(len(GEMM_WORDS)))
    text = _HEADER + text.replace("{T}", str(ord("T")))
    return f"gemm_{dtype}", text


def copy_source() -> tuple[str, str]:
    """Label and source of the copy of bytes."""
    return "copy", _HEADER + _COPY
