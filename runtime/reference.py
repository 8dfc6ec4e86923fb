"""The reference backend: every op by its NumPy definition, one node at a time. Slow, plain, and right."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.dims import Symbol, Unifier, evaluate
from graphc.errors import CompilerError, DeviceError
from graphc.node import Node, Tensor
from graphc.opdef import Reference
from passes.gradient import expand_gradients
from passes.graph import Graph
from passes.waves import Steps
from runtime.profile import Timings
from runtime.store import STATE, ParameterStore, write_together

Array = np.ndarray[Any, Any]


class ReferenceProgram:
    """A graph with its gradients expanded, evaluated node by node."""

    kernels: tuple[()] = ()
    program: None = None

    again = None

    def __init__(self, graph: Graph, unifier: Unifier, placeholders: Sequence[Tensor], store: ParameterStore) -> None:
        self._graph = expand_gradients(graph)
        self._placeholders = placeholders
        self._store = store
        self._runs = np.zeros((), np.int64)

    @property
    def runs(self) -> int:
        """Whole runs since the program was made."""
        return int(self._runs)

    def sizes(self, values: Mapping[Symbol, int]) -> dict[int, int]:
        """No buffers: NumPy allocates."""
        return {}

    def steps(self, values: Mapping[Symbol, int]) -> Steps:
        """No calls."""
        return ()

    def scratch(self, values: Mapping[Symbol, int]) -> int:
        """No threads."""
        return 0

    def run(self, values: Mapping[Symbol, int], feeds: Sequence[Array], steps: int = 1) -> list[Any]:
        """Outputs of the last of ``steps`` runs, in order; parameters are updated when everything of a run has been
        computed.
        """
        outputs: list[Any] = []
        for step in range(steps):
            if step and self._store.cancel:
                break
            environment = leaf_values(self._graph, self._placeholders, feeds, self._store)
            evaluate_graph(self._graph, values, environment)
            outputs = [np.array(environment[t])[()] for t in self._graph.outputs]
            self._finish([(a.inputs[0], np.array(environment[a.inputs[1]])) for a in self._graph.updates])
        return outputs

    def _finish(self, new: Sequence[tuple[Tensor, Array]]) -> None:
        """Write all new values, and count."""
        counter = self._store.counter
        targets = [self._runs, *(self._store.array(parameter) for parameter, _ in new)]
        values = [self._runs + 1, *(value for _, value in new)]
        if new:
            targets, values = [*targets, counter], [*values, counter + np.uint64(1)]
        write_together(targets, values)

    def profile(self, values: Mapping[Symbol, int], feeds: Sequence[Array], steps: int) -> Timings:
        """No kernels to time."""
        raise DeviceError("profile: device 'reference' has no kernels to time")


def leaf_values(
    graph: Graph, placeholders: Sequence[Tensor], feeds: Sequence[Array], store: ParameterStore
) -> dict[Tensor, Array]:
    """Values of the placeholders of ``graph`` and of what the session keeps, from which all others follow."""
    found = dict(zip(placeholders, feeds, strict=True))
    for node in graph.nodes:
        if node.op in STATE:
            found[node.outputs[0]] = store.array(node.outputs[0])
    return found


Change = Callable[[Node, Array, Sequence[Array]], Array]


def evaluate_graph(
    graph: Graph, values: Mapping[Symbol, int], environment: dict[Tensor, Array], change: Change | None = None
) -> None:
    """Fill ``environment`` with the value of every tensor; it holds those of placeholders and parameters already.

    What ``change(node, value, inputs)`` returns is taken in place of each node's value.
    """
    for node in graph.nodes:
        if not node.outputs or node.outputs[0] in environment:
            continue
        inputs = [environment[t] for t in node.inputs]
        value = evaluate_node(node, values, inputs)
        environment[node.outputs[0]] = value if change is None else change(node, value, inputs)


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
