"""The order that stays topological while edges are added."""

from __future__ import annotations

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from passes import order
from passes.order import TopologicalOrder


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, int, list[int]]]:
    """Units added before their readers, and edges asked for between any two."""
    steps: list[tuple[str, int, list[int]]] = []
    units = 0
    for _ in range(draw(st.integers(1, 40))):
        some = st.lists(st.integers(0, max(units - 1, 0)), max_size=4, unique=True) if units else st.just([])
        if units < 2 or draw(st.booleans()):
            steps.append(("add", units, draw(some)))
            units += 1
        else:
            unit = draw(st.integers(0, units - 1))
            steps.append(("connect", unit, [r for r in draw(some) if r != unit]))
    return steps


def is_topological(made: TopologicalOrder, edges: nx.DiGraph) -> bool:
    place = {u: i for i, u in enumerate(made.by_place(edges.nodes))}
    return all(place[a] < place[b] for a, b in edges.edges)


@given(histories())
def test_it_refuses_exactly_what_closes_a_circle(steps: list[tuple[str, int, list[int]]]) -> None:
    made, edges = TopologicalOrder(), nx.DiGraph()
    for what, unit, readers in steps:
        if what == "add":
            edges.add_node(made.add(readers))
            edges.add_edges_from((unit, r) for r in readers)
        else:
            wider = nx.DiGraph(edges)
            wider.add_edges_from((unit, r) for r in readers)
            assert made.connect(unit, readers) is nx.is_directed_acyclic_graph(wider)
            edges = wider if nx.is_directed_acyclic_graph(wider) else edges
        assert is_topological(made, edges)


@given(histories())
def test_a_search_given_up_only_refuses_more(steps: list[tuple[str, int, list[int]]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order, "LIMIT", 2)
        made, edges = TopologicalOrder(), nx.DiGraph()
        for what, unit, readers in steps:
            if what == "add":
                edges.add_node(made.add(readers))
                edges.add_edges_from((unit, r) for r in readers)
            elif made.connect(unit, readers):
                edges.add_edges_from((unit, r) for r in readers)
            assert nx.is_directed_acyclic_graph(edges)
            assert is_topological(made, edges)


def test_a_long_way_is_not_searched() -> None:
    made = TopologicalOrder()
    chain = [made.add([])]
    for _ in range(1000):
        chain.append(made.add([chain[-1]]))
    first, last = chain[-1], chain[0]
    assert made.connect(first, [last])
    assert not made.connect(last, [first])
    assert made.by_place(chain) == chain[::-1]
