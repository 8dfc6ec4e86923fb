"""Parameter updates by a matrix product: ``w - s * (a @ b)`` becomes one BLAS call that adds into ``w``."""

from __future__ import annotations

from graphc import ops
from graphc.node import Node, Tensor
from graphc.ops.linalg import MATMUL
from graphc.where import derived_from
from passes.graph import Graph, rebuild


def fuse_updates(graph: Graph) -> Graph:
    """``graph`` with matching update values rewritten to ``gemm_add``.

    Only where the product and its multiple are read once: otherwise both would have to be computed anyway.
    """
    values = {assign.inputs[1]: assign.inputs[0] for assign in graph.updates}
    fetched = set(graph.outputs)
    single = {t for t, readers in graph.readers.items() if len(readers) == 1 and t not in fetched}

    def rewrite(node: Node, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if not node.outputs or node.outputs[0] not in values or node.op.name not in ("add", "subtract"):
            return None
        for place in (1, 0) if node.op.name == "add" else (1,):
            start, term = inputs[1 - place], node.inputs[place]
            if start is not values[node.outputs[0]] or term not in single:
                continue
            found = _scaled_product(inputs[place], term, single)
            if found is not None and _same_shape(found[1].outputs[0], start):
                with derived_from(node.where, node.role):
                    return (_gemm(node, start, *found),)
        return None

    return rebuild(graph, rewrite)


def _scaled_product(term: Tensor, written: Tensor, single: set[Tensor]) -> tuple[Tensor | None, Node] | None:
    """``(s, product node)`` when ``term`` is ``s * (a @ b)`` with a 0-d ``s``, or ``(None, node)`` for ``a @ b``."""
    if _is_matrix_product(term):
        return None, term.node
    if term.node.op.name != "multiply":
        return None
    for scale, product, old in (
        (term.node.inputs[0], term.node.inputs[1], written.node.inputs[1]),
        (term.node.inputs[1], term.node.inputs[0], written.node.inputs[0]),
    ):
        scalar = _scalar(scale)
        if scalar is not None and _is_matrix_product(product) and old in single:
            return scalar, product.node
    return None


def _same_shape(product: Tensor, start: Tensor) -> bool:
    """Whether ``product`` is added to ``start`` without being broadcast."""
    return all(a == b or a != 1 for a, b in zip(product.shape, start.shape, strict=True))


def _is_matrix_product(tensor: Tensor) -> bool:
    return tensor.node.op is MATMUL and tensor.ndim == 2


def _scalar(tensor: Tensor) -> Tensor | None:
    while tensor.node.op.name == "broadcast_to":
        tensor = tensor.node.inputs[0]
    return tensor if tensor.ndim == 0 else None


def _gemm(node: Node, start: Tensor, scale: Tensor | None, product: Node) -> Tensor:
    factor = ops.constant(1, start.dtype) if scale is None else scale
    if node.op.name == "subtract":
        factor = (
            ops.constant(-factor.node.attrs["value"]) if factor.node.op.name == "constant" else ops.negative(factor)
        )
    a, b = product.inputs
    trans_a, trans_b = _is_transpose(a), _is_transpose(b)
    return ops.gemm_add(
        a.node.inputs[0] if trans_a else a, b.node.inputs[0] if trans_b else b, factor, start,
        trans_a=trans_a, trans_b=trans_b,
    )  # fmt: skip


def _is_transpose(tensor: Tensor) -> bool:
    return tensor.node.op.name == "permute_dims" and tensor.node.attrs["axes"] == (1, 0)
