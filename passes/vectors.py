"""Products with vectors as sums.

There is nothing in them for a matrix product to use again: what counts is to read each byte once, on all threads, in
one kernel with what comes before and after. That holds where the loop's contiguous axis is known to be long; where it
is short, or a symbol, they stay products.
"""

from __future__ import annotations

from graphc import ops
from graphc.dims import Extent
from graphc.node import Node, Tensor
from graphc.ops.linalg import MATMUL, agreed
from graphc.where import derived_from
from passes.graph import Graph, rebuild
from passes.matrices import layout

LONG = 512  # elements of a row that is summed up by itself
WIDE = 64  # sums made side by side


def products_with_vectors(graph: Graph) -> Graph:
    """``graph`` in which outer products are elementwise ones, and products of two vectors, or of a vector and a matrix
    that is long as it lies in memory, sums of elementwise ones.
    """
    return rebuild(graph, _as_sum)


def _as_sum(node: Node, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    if node.op is not MATMUL:
        return None
    left, right = inputs
    found = None
    with derived_from(node.where, node.role):
        if left.shape[-1] == 1 and right.shape[-2] == 1:
            found = left * right
        elif right.shape[-1] == 1:
            found = _matrix_by_vector(left, ops.matrix_transpose(right))
        elif left.shape[-2] == 1:
            found = _matrix_by_vector(ops.matrix_transpose(right), left)
            found = None if found is None else ops.matrix_transpose(found)
    return None if found is None else (found,)


def _matrix_by_vector(matrix: Tensor, row: Tensor) -> Tensor | None:
    """The product of a matrix with a vector, given as a row, walked as the matrix lies in memory; None if that is not
    worth it.
    """
    rows, inner = matrix.shape[-2:]
    if rows == 1:
        return _summed(matrix, row, -1)
    if layout(matrix, lambda extent: extent)[1]:
        found = _summed(ops.matrix_transpose(matrix), ops.matrix_transpose(row), -2) if _least(rows, WIDE) else None
        return None if found is None else ops.matrix_transpose(found)
    return _summed(matrix, row, -1) if _least(inner, LONG) else None


def _least(extent: Extent, least: int) -> bool:
    return isinstance(extent, int) and extent >= least


def _summed(left: Tensor, right: Tensor, axis: int) -> Tensor:
    along = left.ndim + axis
    left, right = agreed(left, right, [(along, along)], "matmul")
    return ops.sum(left * right, axis=along, keepdims=True)
