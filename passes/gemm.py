"""Parameter updates by a matrix product: ``w - s * (a @ b)`` becomes one product that adds into ``w``."""

from __future__ import annotations

from graphc import ops
from graphc.node import Node, Tensor
from graphc.ops.elementwise import ADD, MULTIPLY, SUBTRACT
from graphc.ops.leaf import CONSTANT
from graphc.ops.linalg import MATMUL
from graphc.ops.shape import BROADCAST_TO, PERMUTE_DIMS
from graphc.where import derived_from
from passes.graph import Graph, rebuild


def fuse_updates(graph: Graph) -> Graph:
    """``graph`` with matching update values rewritten to ``gemm_add``.

    Only where the product and its multiple are read once: otherwise both would have to be computed anyway.
    """
    values = {assign.inputs[1]: assign.inputs[0] for assign in graph.updates}
    if not values:
        return graph
    fetched = set(graph.outputs)
    single = {t for t, readers in graph.readers.items() if len(readers) == 1 and t not in fetched}

    def rewrite(node: Node, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if (node.op is not ADD and node.op is not SUBTRACT) or node.outputs[0] not in values:
            return None
        for place in (1, 0) if node.op is ADD else (1,):
            start, term = inputs[1 - place], node.inputs[place]
            if start is not values[node.outputs[0]]:
                continue
            found = _scaled_product(inputs[place], term, single)
            if found is not None and _same_shape(inputs[place], start):
                with derived_from(node.where, node.role):
                    return (_gemm(node, start, *found),)
        return None

    return rebuild(graph, rewrite)


def _scaled_product(term: Tensor, old: Tensor, single: set[Tensor]) -> tuple[float, Tensor] | None:
    """``(s, product)`` when ``term`` is ``s * product`` with a constant ``s``, or ``(1, term)`` for a product alone.

    ``old`` is what ``term`` was in the graph whose tensors read once are ``single``.
    """
    if _is_product(term, old, single):
        return 1.0, term
    if term.node.op is not MULTIPLY or old not in single:
        return None
    for place in (0, 1):
        scale, product = _scalar(term.node.inputs[place]), term.node.inputs[1 - place]
        if scale is not None and _is_product(product, old.node.inputs[1 - place], single):
            return scale, product
    return None


def _is_product(tensor: Tensor, old: Tensor, single: set[Tensor]) -> bool:
    """Whether ``tensor`` is ``a @ b`` or its transpose, of two matrices, and read once."""
    if old not in single or tensor.ndim != 2:
        return False
    if tensor.node.op is PERMUTE_DIMS:
        tensor, old = tensor.node.inputs[0], old.node.inputs[0]
    return tensor.node.op is MATMUL and old in single


def _same_shape(product: Tensor, start: Tensor) -> bool:
    """Whether ``product`` is added to ``start`` without being broadcast."""
    return all(a == b or a != 1 for a, b in zip(product.shape, start.shape, strict=True))


def _scalar(tensor: Tensor) -> float | None:
    while tensor.node.op is BROADCAST_TO:
        tensor = tensor.node.inputs[0]
    if tensor.ndim or tensor.node.op is not CONSTANT or not tensor.node.attrs["value"]:
        return None  # BLAS skips a product whose factor is 0, and with it what it has of NaN
    return float(tensor.node.attrs["value"])


def _gemm(node: Node, start: Tensor, scale: float, product: Tensor) -> Tensor:
    turned = product.node.op is PERMUTE_DIMS
    a, b = (product.node.inputs[0] if turned else product).node.inputs
    (left, trans_a), (right, trans_b) = _untransposed(a), _untransposed(b)
    if turned:  # (a @ b).T = b.T @ a.T
        left, trans_a, right, trans_b = right, not trans_b, left, not trans_a
    scale = -scale if node.op is SUBTRACT else scale
    return ops.gemm_add(left, right, start, scale=scale, trans_a=trans_a, trans_b=trans_b)


def _untransposed(matrix: Tensor) -> tuple[Tensor, bool]:
    return (matrix.node.inputs[0], True) if matrix.node.op is PERMUTE_DIMS else (matrix, False)
