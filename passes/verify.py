"""The verifier: every node obeys its own op's ``infer``; checked between passes.

In the manner of JAX's ``typecheck_jaxpr``: the shape rules are the checker.
"""

from __future__ import annotations

from typing import NoReturn

from graphc.dims import Unifier
from graphc.errors import CompilerError, GraphcError
from graphc.node import Node
from graphc.opdef import Inference
from passes.graph import Graph
from passes.printer import print_window


def verify(graph: Graph, unifier: Unifier, *, after: str) -> None:
    """Raise ``CompilerError``, naming the pass, for a node whose inputs or result types break its op's rules."""
    seen: set[Node] = set()
    for node in graph.nodes:
        for tensor in node.inputs:
            if tensor.node not in seen:
                _fail(graph, node, after, f"reads {tensor.describe()} before it is defined")
        seen.add(node)
        _check_types(graph, node, unifier, after)


def _check_types(graph: Graph, node: Node, unifier: Unifier, after: str) -> None:
    inference = Inference(node.op, node.inputs, node.attrs)
    try:
        results = node.op.infer(inference)
    except GraphcError as error:
        _fail(graph, node, after, str(error))
    for a, b in inference.constraints:
        if b is not None and not unifier.equal(a, b) and isinstance(unifier.canonical(a - b), int):
            _fail(graph, node, after, f"needs {a} = {b}, which cannot hold")
    if len(results) != len(node.results):
        _fail(graph, node, after, f"has {len(node.results)} results, and its op infers {len(results)}")
    for found, stated in zip(results, node.results, strict=True):
        same = found.dtype == stated.dtype and len(found.shape) == len(stated.shape)
        if not same or not all(
            unifier.equal(a, b) or not isinstance(a, int) or not isinstance(b, int)
            for a, b in zip(found.shape, stated.shape, strict=True)
        ):
            _fail(graph, node, after, f"is stated as {stated}, and its op infers {found}")


def _fail(graph: Graph, node: Node, after: str, what: str) -> NoReturn:
    raise CompilerError(
        f"after pass {after!r}: {node.op.name} ({node.where}) {what}\n{print_window(graph.nodes, node)}"
    )
