"""Matrix products, and what concerns the diagonal of a matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.bounds import max_extent, min_extent
from graphc.dims import Extent, product
from graphc.errors import DTypeError, ShapeError
from graphc.node import Node, Tensor, TensorType, attrs_of, make_node
from graphc.opdef import Domain, Inference, Kind, NotDifferentiable, OpDef, Strided, register
from graphc.ops.comparison import equal, where
from graphc.ops.elementwise import astype
from graphc.ops.leaf import arange, as_operands, as_tensor
from graphc.ops.reduce import sum
from graphc.ops.rules import unbroadcast
from graphc.ops.shape import broadcast_to, expand_dims, matrix_transpose, reshape, squeeze
from graphc.ops.slicing import placed

_INNER = "the columns of the first and the rows of the second operand"


def _infer_matmul(c: Inference) -> tuple[TensorType, ...]:
    x, y = c.inputs
    if x.dtype != y.dtype:
        raise c.fail(f"operands must have one dtype, got {x.dtype} and {y.dtype}", DTypeError)
    c.require_dtype("f")
    if x.ndim < 2 or y.ndim < 2:
        raise c.fail(f"needs matrices, got ranks {x.ndim} and {y.ndim}")
    c.equal(x.shape[-1], y.shape[-2], _INNER)
    batch = c.broadcast([x.shape[:-2], y.shape[:-2]])
    return (TensorType((*batch, x.shape[-2], y.shape[-1]), x.dtype),)


def _matmul_reference(r: Any, x: Any, y: Any) -> Any:
    with np.errstate(all="ignore"):
        return np.matmul(x, y)


def _matmul_vjp(node: Node, g: Tensor) -> list[Tensor | None]:
    x, y = node.inputs
    return [unbroadcast(matmul(g, matrix_transpose(y)), x), unbroadcast(matmul(matrix_transpose(x), g), y)]


MATMUL = register(
    OpDef(
        "matmul", Kind.MATMUL, _infer_matmul, _matmul_reference, _matmul_vjp, cost=1000,
        domain=Domain(
            ("f", "f"),
            shapes=(
                ((2, 3), (3, 4)), ((1, 1), (1, 1)), ((0, 3), (3, 2)), ((2, 0), (0, 3)), (("n", 3), (3, "m")),
                ((3,), (3, 4)), ((2, 3), (3,)), ((3,), (3,)), ((2, 2, 3), (2, 3, 4)), ((2, 1, 2, 3), (3, 3, 2)),
            ),
        ),
        doc="Product of matrices, batched over leading axes.",
    )
)  # fmt: skip


def _infer_gemm(c: Inference) -> tuple[TensorType, ...]:
    a, b, start = c.inputs
    rows, inner = a.shape[::-1] if c.attrs["trans_a"] else a.shape
    inner_b, columns = b.shape[::-1] if c.attrs["trans_b"] else b.shape
    c.equal(inner, inner_b, "the inner extents")
    c.equal(start.shape[0], rows, "the rows of the product and of what it is added to")
    c.equal(start.shape[1], columns, "the columns of the product and of what it is added to")
    if not c.attrs["scale"]:
        raise c.fail("the factor must not be 0: BLAS leaves the product out then, and what it has of NaN")
    return (start.type,)


def _gemm_reference(r: Any, a: Any, b: Any, start: Any) -> Any:
    left = a.T if r.attrs["trans_a"] else a
    right = b.T if r.attrs["trans_b"] else b
    with np.errstate(all="ignore"):
        return start + start.dtype.type(r.attrs["scale"]) * (left @ right)


GEMM_ADD = register(
    OpDef(
        "gemm_add", Kind.MATMUL, _infer_gemm, _gemm_reference,
        NotDifferentiable("made by the compiler after gradients are expanded"), cost=1000,
        domain=Domain(
            ("f", "f", "f"),
            shapes=(
                ((2, 3), (3, 4), (2, 4)), ((1, 1), (1, 1), (1, 1)), ((2, 0), (0, 3), (2, 3)),
                (("n", 3), (3, 2), ("n", 2)),
            ),
        ),
        samples=(
            lambda a, b, c: gemm_add(a, b, c),
            lambda a, b, c: gemm_add(a.mT, b, c, scale=-0.1, trans_a=True),
            lambda a, b, c: gemm_add(a, b.mT, c, scale=3.0, trans_b=True),
            lambda a, b, c: gemm_add(a.mT, b.mT, c, scale=-1.0, trans_a=True, trans_b=True),
        ),
        doc="c + s * (a @ b) as one product, in place when c may be overwritten.",
    )
)  # fmt: skip


def gemm_add(
    a: Tensor, b: Tensor, start: Tensor, *, scale: float = 1.0, trans_a: bool = False, trans_b: bool = False
) -> Tensor:
    """``start + scale * (a @ b)``, ``a`` and ``b`` transposed on demand. Matrices of one float dtype; ``scale`` is not
    0.
    """
    attrs = attrs_of(scale=float(scale), trans_a=trans_a, trans_b=trans_b)
    return make_node(GEMM_ADD, (a, b, start), attrs).outputs[0]


def matmul(x: Any, y: Any) -> Tensor:
    """Matrix product with NumPy's rules: vectors count as one row (left) or column (right), leading axes broadcast.

    Floats go through BLAS; integers, which it does not know, are multiplied and added up, and wrap around in their own
    width. Raises ``ShapeError`` when the inner extents are known to differ, ``DTypeError`` for bools.
    """
    left, right = as_operands("matmul", x, y)
    if left.ndim == 0 or right.ndim == 0:
        raise Inference(MATMUL, (left, right), {}).fail("a scalar has no matrix product; use * instead")
    require_numbers(left, "matmul")
    row, column = left.ndim == 1, right.ndim == 1
    left = expand_dims(left, 0) if row else left
    right = expand_dims(right, 1) if column else right
    rows = left.shape[:-1]
    if left.ndim > 2 and right.ndim == 2:
        Inference(MATMUL, (left, right), {}).equal(left.shape[-1], right.shape[0], _INNER)  # named as they are written
        left = reshape(left, (product(rows), left.shape[-1]))  # one product of many rows, and one for each gradient
    elif left.ndim > 2 or right.ndim > 2:
        left, right = _same_batch(left, right)
    found = make_node(MATMUL, (left, right)).outputs[0] if left.dtype.kind == "f" else _by_sums(left, right)
    if len(rows) > 1 and right.ndim == 2:
        found = reshape(found, (*rows, right.shape[-1]))
    dropped = tuple(axis for axis, gone in ((found.ndim - 2, row), (found.ndim - 1, column)) if gone)
    return squeeze(found, dropped)


def _by_sums(left: Tensor, right: Tensor) -> Tensor:
    """The product of integer matrices."""
    left, right = agreed(left, right, [(left.ndim - 1, right.ndim - 2)], "matmul")
    return astype(sum(expand_dims(left, -1) * expand_dims(right, -3), -2), left.dtype)


def require_numbers(x: Tensor, what: str) -> None:
    """``DTypeError`` for bools, which have no sums of products."""
    if x.dtype.kind == "b":
        raise DTypeError(f"{what}: operands must be numbers, got {x.describe()}; convert with .astype('float32')")


def agreed(x: Tensor, y: Tensor, pairs: Sequence[tuple[int, int]], what: str) -> tuple[Tensor, Tensor]:
    """``x`` and ``y`` with one extent along each pair of their axes; what only data can tell becomes a constraint."""
    for i, j in pairs:
        mine, other = x.shape[i], y.shape[j]
        if mine == other:
            continue
        if isinstance(mine, int) and isinstance(other, int):
            raise ShapeError(
                f"{what}: axis {i} of the first and axis {j} of the second operand must have equal extents, got {mine} "
                f"and {other}\n  operands:\n    {x.describe()}\n    {y.describe()}"
            )
        # An extent written 1 would broadcast: it is the other one that must turn out to be 1.
        if other == 1:
            x = with_extent(x, i, other)
        else:
            y = with_extent(y, j, mine)
    return x, y


def with_extent(x: Tensor, axis: int, extent: Extent) -> Tensor:
    """``x`` with another extent along ``axis``: a repetition of one that is 1; an equal one otherwise."""
    return broadcast_to(x, (*x.shape[:axis], extent, *x.shape[axis + 1 :]))


def _same_batch(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    batch: Sequence[Extent] = Inference(MATMUL, (left, right), {}).broadcast([left.shape[:-2], right.shape[:-2]])
    return broadcast_to(left, (*batch, *left.shape[-2:])), broadcast_to(right, (*batch, *right.shape[-2:]))


def vecdot(x: Any, y: Any, axis: int = -1) -> Tensor:
    """Sum of the products along ``axis``, counted from the end, of which both operands have equal extents; all other
    axes broadcast. Integers wrap around in their own width.
    """
    left, right = as_operands("vecdot", x, y)
    require_numbers(left, "vecdot")
    least = min(left.ndim, right.ndim)
    if isinstance(axis, bool) or not isinstance(axis, (int, np.integer)) or not -least <= axis < 0:
        raise ShapeError(
            f"vecdot: axis must be counted from the end, from {-least} to -1, got {axis!r}\n"
            f"  operands:\n    {left.describe()}\n    {right.describe()}"
        )
    left, right = agreed(left, right, [(left.ndim + int(axis), right.ndim + int(axis))], "vecdot")
    return astype(sum(left * right, int(axis)), left.dtype)


def outer(x: Any, y: Any) -> Tensor:
    """Products of each element of the vector ``x`` with each of the vector ``y``: a matrix."""
    left, right = as_operands("outer", x, y)
    for tensor in (left, right):
        if tensor.ndim != 1:
            raise ShapeError(f"outer: operands must be vectors, got {tensor.describe()}; .reshape(-1) makes one")
    return expand_dims(left, 1) * right


# The diagonal.


def _diagonal_start(node: Node) -> tuple[int, int]:
    """Row and column of the first element."""
    offset = node.attrs["offset"]
    return (0, offset) if offset >= 0 else (-offset, 0)


def _infer_diagonal(c: Inference) -> tuple[TensorType, ...]:
    x, offset = c.inputs[0], c.attrs["offset"]
    if x.ndim < 2:
        raise c.fail(f"needs at least two axes, got {x.ndim}")
    rows, columns = x.shape[-2] + (offset if offset < 0 else 0), x.shape[-1] - (offset if offset > 0 else 0)
    return (TensorType((*x.shape[:-2], max_extent(min_extent(rows, columns), 0)), x.dtype),)


def _diagonal_map(node: Node) -> tuple[int | Strided, ...]:
    last = node.outputs[0].ndim - 1
    row, column = _diagonal_start(node)
    return (*range(last), Strided(last, 1, row), Strided(last, 1, column))


def _diagonal_vjp(node: Node, g: Tensor) -> list[Tensor | None]:
    """``g`` beside every row (or above every column), chosen where the diagonal is."""
    x, offset = node.inputs[0], node.attrs["offset"]
    rows, columns = x.shape[-2:]
    on_diagonal = equal(expand_dims(arange(rows), 1) + offset, arange(columns))
    along = rows if offset >= 0 else columns
    long = placed(g, (0,) * g.ndim, (1,) * g.ndim, (*g.shape[:-1], along))
    return [where(on_diagonal, expand_dims(long, -1 if offset >= 0 else -2), 0)]


DIAGONAL = register(
    OpDef(
        "diagonal", Kind.VIEW, _infer_diagonal,
        lambda r, x: np.diagonal(x, r.attrs["offset"], -2, -1), _diagonal_vjp, index_map=_diagonal_map, cost=0,
        domain=Domain(
            ("fiub",),
            shapes=(((3, 3),), ((2, 4),), ((2, 3, 1),), ((0, 3),), (("n", "n"),), (("n", 3),), ((2, "m", "n"),)),
        ),
        samples=(lambda x: diagonal(x), lambda x: diagonal(x, 1), lambda x: diagonal(x, -2)),
        doc="The elements of the last two axes whose column exceeds their row by an offset.",
    )
)  # fmt: skip


def diagonal(x: Any, offset: int = 0) -> Tensor:
    """The diagonal of the last two axes, along one axis: the elements whose column exceeds their row by ``offset``."""
    if isinstance(offset, bool) or not isinstance(offset, (int, np.integer)):
        raise ShapeError(f"diagonal: offset is an int, got {offset!r}")
    return make_node(DIAGONAL, (as_tensor(x, "diagonal"),), attrs_of(offset=int(offset))).outputs[0]


def trace(x: Any, offset: int = 0) -> Tensor:
    """Sum of the diagonal of the last two axes. Integers add up in 64 bits."""
    return sum(diagonal(x, offset), -1)
