"""What the tests of rewriting passes share: graphs, which rules fired, and values by the reference alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import graphc as gc
from graphc.node import Tensor
from graphc.opdef import Kind
from passes.gradient import expand_gradients
from passes.graph import Graph
from passes.rewriting import firings
from runtime.fetches import flatten
from runtime.reference import evaluate_graph

Array = np.ndarray[Any, Any]


FLOATS = [
    0.0,
    -0.0,
    1.0,
    1.5,
    -2.0,
    2.5,
    0.3,
    -0.7,
    np.inf,
    -np.inf,
    np.nan,
    1e-40,
    -1e-45,
    2.0**-126,
    -3e38,
    3.4e38,
    7,
]


def special(dtype: str) -> np.ndarray[Any, Any]:
    """Values of a dtype at which a careless rule goes wrong."""
    wanted = np.dtype(dtype)
    if wanted.kind == "f":
        return np.array(FLOATS, wanted)
    if wanted.kind == "b":
        return np.array([False, True])
    info = np.iinfo(wanted)
    return np.array([*range(info.max - 2, info.max + 1), *range(info.min, info.min + 3), 1, 2, 5, 7, 100], wanted)


def graph_of(*fetches: Any) -> Graph:
    return flatten(list(fetches)).graph


def ops_in(graph: Graph) -> Counter[str]:
    return Counter(n.op.name for n in graph.nodes)


def computing(graph: Graph) -> list[str]:
    return [n.op.name for n in graph.nodes if n.op.kind is not Kind.LEAF]


def applied(rewrite: Callable[[Graph], Graph], *fetches: Any) -> tuple[Graph, dict[str, int]]:
    """The graph after a pass, and how often which of its rules fired."""
    with firings() as fired:
        graph = rewrite(graph_of(*fetches))
    return graph, {name.split(".")[1]: count for name, count in fired.items()}


def evaluated(graph: Graph, feeds: Mapping[Tensor, Any]) -> list[Array]:
    """The outputs of a graph by the ops' references, with no pass but the expansion of gradients."""
    expanded = expand_gradients(graph)
    environment = {t: np.asarray(a, t.dtype) for t, a in feeds.items()}
    with np.errstate(all="ignore"):
        evaluate_graph(expanded, {}, environment)
    return [environment[t] for t in expanded.outputs]


def run(fetches: Any, feeds: Mapping[Any, Any], device: str = "cpu") -> Any:
    with np.errstate(all="ignore"), gc.Session(device) as session:
        return session.run(fetches, dict(feeds))


def same_bits(found: Any, expected: Any) -> None:
    """Equal in type and in every bit; NaN for NaN, whichever."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    if expected.dtype.kind == "f":
        there = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(found)[there], np.signbit(expected)[there])
