"""The reference backend: every op by its NumPy definition, one node at a time. Slow, plain, and right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.dims import Symbol, Unifier, evaluate
from graphc.errors import CompilerError
from graphc.node import Node, Tensor
from graphc.opdef import Reference
from graphc.state import PARAMETER
from passes.gradient import expand_gradients
from passes.graph import Graph
from runtime.store import ParameterStore

Array = np.ndarray[Any, Any]


class ReferenceProgram:
    """A graph with its gradients expanded, evaluated node by node."""

    kernels: tuple[()] = ()

    def __init__(self, graph: Graph, unifier: Unifier, placeholders: Sequence[Tensor], store: ParameterStore) -> None:
        self._graph = expand_gradients(graph)
        self._placeholders = placeholders
        self._store = store

    def run(self, values: Mapping[Symbol, int], feeds: Sequence[Array]) -> list[Any]:
        """Outputs in order; parameters are updated when everything has been computed."""
        environment = leaf_values(self._graph, self._placeholders, feeds, self._store)
        evaluate_graph(self._graph, values, environment)
        outputs = [np.array(environment[t])[()] for t in self._graph.outputs]
        new = [(a.inputs[0], np.array(environment[a.inputs[1]])) for a in self._graph.updates]
        for parameter, value in new:
            self._store.array(parameter)[...] = value
        return outputs


def leaf_values(
    graph: Graph, placeholders: Sequence[Tensor], feeds: Sequence[Array], store: ParameterStore
) -> dict[Tensor, Array]:
    """Values of the placeholders and parameters of ``graph``, from which all others follow."""
    found = dict(zip(placeholders, feeds, strict=True))
    for node in graph.nodes:
        if node.op is PARAMETER:
            found[node.outputs[0]] = store.array(node.outputs[0])
    return found


def evaluate_graph(graph: Graph, values: Mapping[Symbol, int], environment: dict[Tensor, Array]) -> None:
    """Fill ``environment`` with the value of every tensor; it holds those of placeholders and parameters already."""
    for node in graph.nodes:
        if not node.outputs or node.outputs[0] in environment:
            continue
        environment[node.outputs[0]] = evaluate_node(node, values, [environment[t] for t in node.inputs])


def evaluate_node(node: Node, values: Mapping[Symbol, int], inputs: Sequence[Array]) -> Array:
    """One node by its reference rule; ``CompilerError`` if the result has not the inferred type."""
    if node.op.reference is None:
        raise CompilerError(f"{node.op.name} has no reference rule, and nothing replaced it ({node.where})")
    result = np.asarray(node.op.reference(Reference(node, values), *inputs))
    expected = node.results[0]
    shape = tuple(evaluate(e, values) for e in expected.shape)
    if result.shape != shape or result.dtype != expected.dtype:
        raise CompilerError(
            f"{node.op.name} at {node.where}: the reference gives {result.dtype}{list(result.shape)} "
            f"where {expected.dtype}{list(shape)} was inferred"
        )
    return result
