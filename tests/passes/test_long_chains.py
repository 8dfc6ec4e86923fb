"""Graphs of a hundred thousand nodes: no recursion, few kernels, and work in proportion to length."""

from __future__ import annotations

import gc as gc_module
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import graphc as gc
from graphc import node as node_module
from graphc.node import Tensor
from passes import fuse as fuse_module
from passes import lower as lower_module
from passes.cluster import MAX_OPS, MAX_POINTERS
from passes.fuse import Fusion
from passes.gradient import expand_gradients
from passes.graph import Graph
from passes.lower import lower
from passes.memory import plan_memory
from passes.options import CompileOptions
from passes.order import TopologicalOrder
from passes.pipeline import optimize
from passes.program import LoopCall, Program
from passes.waves import one_by_one
from runtime.fetches import flatten

LENGTH = 11_000  # repetitions of four nodes, which are nine with their derivatives


@pytest.fixture(autouse=True)
def no_garbage_collection() -> Iterator[None]:
    """As the backend does while it compiles: what is made is kept, and looking through it again costs more and more."""
    gc_module.collect()
    gc_module.disable()
    yield
    gc_module.enable()


def optimized(*fetches: Any) -> Graph:
    return optimize(flatten(list(fetches)).graph, CompileOptions())


def chain(length: int) -> tuple[Tensor, Tensor]:
    x = y = gc.placeholder(("n",), name="x")
    for _ in range(length):
        y = gc.tanh(y * 0.5 + x) - 0.1
    return x, y


def digests(program: Program) -> set[str]:
    return {c.kernel.digest for c in program.calls if isinstance(c, LoopCall)}


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """Calls of what the compiler does once or a few times for each node."""
    found: dict[str, int] = {}

    def count(owner: Any, name: str, label: str) -> None:
        original = getattr(owner, name)

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            found[label] = found.get(label, 0) + 1
            return original(*args, **kwargs)

        patch.setattr(owner, name, wrapper)

    with monkeypatch.context() as patch:
        count(node_module.Node, "__init__", "nodes made")
        count(Fusion, "_place", "nodes placed")
        count(Fusion, "_add", "nodes added to clusters")
        count(Fusion, "_accepts", "clusters asked")
        count(TopologicalOrder, "connect", "edges asked for")
        count(TopologicalOrder, "_reorder", "searches")
        count(fuse_module, "input_maps", "maps")
        count(lower_module.KernelBuilder, "_value", "values built")
        count(lower_module._Lowering, "_buffer", "buffers looked up")
        yield found


def compile_step(length: int) -> tuple[Graph, Program]:
    x, y = chain(length)
    loss = gc.sum(gc.square(y))
    graph = optimized(loss, gc.gradients(loss, x))
    return graph, lower(graph)


def test_a_hundred_thousand_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Built, differentiated, optimised, lowered and laid out; four times the length is four times the work."""
    before = sys.getrecursionlimit()
    with counted(monkeypatch) as short:
        compile_step(LENGTH // 4)
    with counted(monkeypatch) as long:
        graph, program = compile_step(LENGTH)
    assert sys.getrecursionlimit() == before
    assert len(graph.nodes) > 95_000
    assert len(digests(program)) < 12
    assert len(program.calls) < len(graph.nodes) / 10
    for call in program.calls:
        assert isinstance(call, LoopCall)
        assert len(call.nodes) <= MAX_OPS
        assert sum(any(s != 0 for s in o.strides) for o in call.operands) <= MAX_POINTERS
    for what, number in long.items():
        assert number <= 4.2 * short[what] + 100, what
    plan = plan_memory(program, {b.id: 4000 for b in program.buffers}, one_by_one(program.calls))
    assert plan.size <= 1.15 * plan.largest_live


def test_deep_gradients_of_gradients() -> None:
    x, y = chain(600)
    for _ in range(2):
        y = gc.sum(gc.gradients(gc.sum(y), x))
    graph = expand_gradients(flatten(y).graph)
    assert len(graph.nodes) > 12_000
    assert len(digests(lower(graph))) < 60


def test_a_chain_of_products_and_updates() -> None:
    """A deep network: one product, one bias and one update a layer, and the same kernels in every layer."""
    h = gc.placeholder(("n", 8), name="x")
    params = []
    for i in range(300):
        w, c = (gc.parameter(gc.init.zeros(), shape=s, name=f"{k}{i}") for k, s in (("w", (8, 8)), ("c", (8,))))
        h = gc.tanh(h @ w + c)
        params += [w, c]
    loss = gc.sum(h)
    program = lower(optimized(loss, gc.optim.SGD(0.1).minimize(loss, params)))
    assert len(digests(program)) < 12
    assert len(program.calls) <= 300 * 8 + 20


def test_a_wide_graph() -> None:
    """Ten thousand branches that meet in a chain of sums."""
    x = gc.placeholder(("n",), name="x")
    total = x
    for i in range(10_000):
        total = total + gc.tanh(x * float(i % 7))
    program = lower(optimized(total))
    assert len(digests(program)) < 12
