"""Matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.dims import Extent
from graphc.errors import DTypeError
from graphc.node import Node, Tensor, TensorType, attrs_of, make_node
from graphc.opdef import Domain, Inference, Kind, NotDifferentiable, OpDef, register
from graphc.ops.leaf import as_operands
from graphc.ops.rules import unbroadcast
from graphc.ops.shape import broadcast_to, expand_dims, matrix_transpose, squeeze


def _infer_matmul(c: Inference) -> tuple[TensorType, ...]:
    x, y = c.inputs
    if x.dtype != y.dtype:
        raise c.fail(f"operands must have one dtype, got {x.dtype} and {y.dtype}", DTypeError)
    c.require_dtype("f")
    if x.ndim < 2 or y.ndim < 2:
        raise c.fail(f"needs matrices, got ranks {x.ndim} and {y.ndim}")
    c.equal(x.shape[-1], y.shape[-2], "the columns of the first and the rows of the second operand")
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
    a, b, scale, start = c.inputs
    rows, inner = a.shape[::-1] if c.attrs["trans_a"] else a.shape
    inner_b, columns = b.shape[::-1] if c.attrs["trans_b"] else b.shape
    c.equal(inner, inner_b, "the inner extents")
    c.equal(start.shape[0], rows, "the rows of the product and of what it is added to")
    c.equal(start.shape[1], columns, "the columns of the product and of what it is added to")
    if scale.shape != ():
        raise c.fail(f"the factor must be a scalar, got shape {scale.shape}")
    return (start.type,)


def _gemm_reference(r: Any, a: Any, b: Any, scale: Any, start: Any) -> Any:
    left = a.T if r.attrs["trans_a"] else a
    right = b.T if r.attrs["trans_b"] else b
    with np.errstate(all="ignore"):
        return start + scale * (left @ right)


GEMM_ADD = register(
    OpDef(
        "gemm_add", Kind.MATMUL, _infer_gemm, _gemm_reference,
        NotDifferentiable("made by the compiler after gradients are expanded"), cost=1000,
        domain=Domain(
            ("f", "f", "f", "f"),
            shapes=(
                ((2, 3), (3, 4), (), (2, 4)), ((1, 1), (1, 1), (), (1, 1)), ((2, 0), (0, 3), (), (2, 3)),
                (("n", 3), (3, 2), (), ("n", 2)),
            ),
        ),
        samples=(
            lambda a, b, s, c: gemm_add(a, b, s, c),
            lambda a, b, s, c: gemm_add(a.mT, b, s, c, trans_a=True),
            lambda a, b, s, c: gemm_add(a, b.mT, s, c, trans_b=True),
            lambda a, b, s, c: gemm_add(a.mT, b.mT, s, c, trans_a=True, trans_b=True),
        ),
        doc="c + s * (a @ b) as one BLAS call, in place when c may be overwritten.",
    )
)  # fmt: skip


def gemm_add(
    a: Tensor, b: Tensor, scale: Tensor, start: Tensor, *, trans_a: bool = False, trans_b: bool = False
) -> Tensor:
    """``start + scale * (a @ b)``, ``a`` and ``b`` transposed on demand. Matrices of one float dtype; ``scale`` is
    0-d.
    """
    return make_node(GEMM_ADD, (a, b, scale, start), attrs_of(trans_a=trans_a, trans_b=trans_b)).outputs[0]


def matmul(x: Any, y: Any) -> Tensor:
    """Matrix product with NumPy's rules: vectors count as one row (left) or column (right), leading axes broadcast.

    Float operands. Raises ``ShapeError`` when the inner extents are known to differ, ``DTypeError`` for integers.
    """
    left, right = as_operands("matmul", x, y)
    if left.ndim == 0 or right.ndim == 0:
        raise Inference(MATMUL, (left, right), {}).fail("a scalar has no matrix product; use * instead")
    row, column = left.ndim == 1, right.ndim == 1
    left = expand_dims(left, 0) if row else left
    right = expand_dims(right, 1) if column else right
    if left.ndim > 2 or right.ndim > 2:
        left, right = _same_batch(left, right)
    product = make_node(MATMUL, (left, right)).outputs[0]
    dropped = tuple(axis for axis, gone in ((product.ndim - 2, row), (product.ndim - 1, column)) if gone)
    return squeeze(product, dropped)


def _same_batch(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    batch: Sequence[Extent] = Inference(MATMUL, (left, right), {}).broadcast([left.shape[:-2], right.shape[:-2]])
    return broadcast_to(left, (*batch, *left.shape[-2:])), broadcast_to(right, (*batch, *right.shape[-2:]))
