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


@given(histories(), st.sampled_from([order.GAP, 2]))
def test_it_refuses_exactly_what_closes_a_circle(steps: list[tuple[str, int, list[int]]], gap: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order, "GAP", gap)  # so small that all are soon numbered anew
        refuses_exactly_what_closes_a_circle(steps)


def refuses_exactly_what_closes_a_circle(steps: list[tuple[str, int, list[int]]]) -> None:
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


@given(histories(), st.booleans())
def test_a_contraction_that_is_refused_leaves_no_edges(
    steps: list[tuple[str, int, list[int]]], keep_both: bool
) -> None:
    made, edges = TopologicalOrder(), nx.DiGraph()
    gone: set[int] = set()
    for what, unit, readers in steps:
        rest = [r for r in readers if r not in gone]
        if what == "add":
            edges.add_node(made.add(rest))
            edges.add_edges_from((unit, r) for r in rest)
        elif unit not in gone and rest:
            first, second = unit, rest[0]
            between = nx.descendants(edges, first) & nx.ancestors(edges, second)
            fits = not between and not nx.has_path(edges, second, first)
            assert made.contract(first, second, keep_both=keep_both) is fits
            if fits and keep_both:
                edges.add_edge(first, second)
                edges.add_edges_from([(u, first) for u in edges.predecessors(second) if u != first])
                edges.add_edges_from([(first, u) for u in edges.successors(second)])
            elif fits:
                edges = nx.contracted_nodes(edges, second, first, self_loops=False, copy=True)
                gone.add(first)
        assert is_topological(made, edges)


def test_what_goes_right_behind_another_comes_before_its_readers() -> None:
    made = TopologicalOrder()
    last, middle = made.add([]), made.add([])
    first = made.add([last, middle])
    rest = made.add([middle, last], behind=first)
    places = made.by_place([first, middle, last, rest])
    assert places[:2] == [first, rest]
    assert not made.connect(rest, [first])
    assert not made.connect(middle, [rest])


def test_one_end_that_leads_nowhere_is_enough() -> None:
    made = TopologicalOrder()
    chain = [made.add([])]
    for _ in range(1000):
        chain.append(made.add([chain[-1]]))
    free = made.add([])
    assert made.connect(chain[500], [free])  # much comes before, but nothing after it
    assert made.connect(free, [chain[400]])
    other = made.add([])
    assert made.connect(other, [chain[1000]])
    assert not made.connect(chain[399], [free])
    assert made.by_place([chain[400], free, chain[500], other]) == [other, chain[500], free, chain[400]]


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
