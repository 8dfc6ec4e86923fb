"""The order of calls: nothing runs before what it reads, and little lives at one time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.dims import Symbol, evaluate
from graphc.dtypes import bool_
from passes import schedule as schedule_module
from passes.graph import Graph
from passes.lower import lower
from passes.memory import ALIGNMENT, largest_live, lifetimes
from passes.pipeline import optimize
from passes.program import Buffer, Call, Program, RoutineCall
from passes.schedule import schedule
from passes.waves import one_by_one
from runtime.fetches import flatten
from runtime.session import unify_constraints


def lowered(fetches: Any) -> Program:
    graph = flatten(fetches).graph
    unifier = unify_constraints(graph.nodes)
    return lower(optimize(graph, unifier=unifier), unifier=unifier)


def live(calls: Sequence[Call], sizes: Mapping[Buffer, int]) -> int:
    """The largest live set, by counting step by step."""
    spans = lifetimes(calls, one_by_one(calls))
    found = [sum(sizes[b] for b, (a, z) in spans.items() if a <= i <= z) for i in range(len(calls))]
    assert largest_live(spans, sizes) == max(found)
    return max(found)


def buffer(number: int, size: int, kind: str = "temp") -> Buffer:
    return Buffer(number, kind, (size * ALIGNMENT,), bool_)


def call(name: str, reads: Sequence[Buffer], writes: Sequence[Buffer]) -> Call:
    return RoutineCall(name, (), tuple(reads), tuple(writes), name, ())


def scheduled(calls: Sequence[Call]) -> list[Call]:
    return schedule(calls, [], Graph(()), lambda extent: extent)


def sizes_of(calls: Sequence[Call]) -> dict[Buffer, int]:
    return {b: math.prod(b.shape) for c in calls for b in (*c.reads, *c.writes) if b.kind == "temp"}


@pytest.mark.parametrize("seed", range(40))
def test_the_best_order_of_calls_that_do_not_wait_for_each_other(seed: int) -> None:
    """Each reads something large that is there, and makes something not larger: all orders are tried."""
    rng = np.random.default_rng(seed)
    calls: list[Call] = [call("start", [], [])]
    for i in range(5):
        read, kept = (int(n) for n in sorted(rng.integers(1, 20, 2))[::-1])
        source, scratch, result = (
            buffer(3 * i, read),
            buffer(3 * i + 1, int(rng.integers(1, 40))),
            buffer(3 * i + 2, kept),
        )
        calls[0] = call("start", [], [*calls[0].writes, source])
        calls.append(call(f"c{i}", [source], [result, scratch]))
    results = [c.writes[0] for c in calls[1:]]
    calls.append(call("end", results, [buffer(99, 1)]))
    sizes = sizes_of(calls)
    best = min(live([calls[0], *middle, calls[-1]], sizes) for middle in itertools.permutations(calls[1:-1]))
    assert live(scheduled(calls), sizes) == best


@pytest.mark.parametrize("seed", range(200))
def test_random_programs(seed: int) -> None:
    """Each call once, after all that writes what it reads; never more alive than in the order of the graph."""
    rng = np.random.default_rng(seed)
    buffers = [buffer(0, 3)]
    calls = [call("0", [], buffers[:])]
    for i in range(1, int(rng.integers(2, 25))):
        reads = [buffers[int(n)] for n in rng.choice(len(buffers), min(len(buffers), int(rng.integers(0, 4))), False)]
        kind = str(rng.choice(["temp", "temp", "temp", "output"]))
        made = [buffer(len(buffers) + k, int(rng.integers(1, 30)), kind) for k in range(int(rng.integers(1, 3)))]
        buffers += made
        calls.append(call(str(i), reads, made))
    found, sizes = scheduled(calls), sizes_of(calls)
    assert sorted(int(c.label) for c in found) == list(range(len(calls)))
    place = {c.label: i for i, c in enumerate(found)}
    maker = {b: c.label for c in calls for b in c.writes}
    assert all(place[maker[b]] < place[c.label] for c in calls for b in c.reads)
    if sizes:
        assert live(found, sizes) <= live(calls, sizes)


def test_what_adds_to_a_buffer_comes_between_what_fills_and_what_reads_it() -> None:
    a, b, c = (buffer(i, 2) for i in range(3))
    calls = [call("read", [a], [c]), call("add", [a, b], [a]), call("fill", [], [a]), call("other", [], [b])]
    names = [c.label for c in scheduled(calls)]
    assert names.index("fill") < names.index("add") < names.index("read")
    assert names.index("other") < names.index("add")


def test_an_update_follows_its_gradient() -> None:
    """At the largest step of a perceptron live two layers' activations at most, the gradient that comes back, and one
    gradient of weights.
    """
    x, t = gc.placeholder(("n", 784), name="x"), gc.placeholder(("n",), "int64", name="t")
    widths, h = (784, 512, 512, 10), x
    for i, (a, b) in enumerate(itertools.pairwise(widths)):
        h = h @ gc.parameter(np.ones((a, b), np.float32), name=f"w{i}")
        h = gc.relu(h) if i < 2 else h
    loss = gc.nn.cross_entropy(h, t)
    program = lowered([loss, gc.optim.Adam(1e-3).minimize(loss)])
    for batch in (64, 256, 1024):
        values = {Symbol("n"): batch}
        sizes = {b: math.prod(evaluate(e, values) for e in b.shape) * b.dtype.itemsize for b in program.buffers}
        activation = 4 * batch * 512
        updates = [3 * activation + 4 * 512 * 512, activation + 4 * 784 * 512]
        little = 4 * batch * 32 + 2**14  # of ten classes, or of one number a row
        assert live(program.calls, sizes) <= max(updates) + little


def test_extents_that_assumed_numbers_do_not_fit() -> None:
    """Quotients that are exact in every run, minima, and extents that would be negative."""
    n = gc.dim("n")
    x = gc.placeholder((n, 4), name="x")
    y = gc.reshape(gc.tanh(x @ np.ones((4, 4), np.float32)), (-1, 7))
    sums = gc.cumulative_sum(x, axis=0)
    parts = [gc.softmax(y)[3:], gc.flip(gc.tanh(sums)[::3], axis=0), gc.cumulative_sum(x[1000:], axis=0)]
    fetches = [gc.sum(p * 2) for p in parts]
    feeds = {x: np.random.default_rng(0).normal(size=(1015, 4))}
    with gc.Session() as session, gc.Session("reference") as reference:
        for mine, expected in zip(session.run(fetches, feeds), reference.run(fetches, feeds), strict=True):
            np.testing.assert_allclose(mine, expected, rtol=1e-4)


def test_the_work_grows_with_the_number_of_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparisons for a chain with a value that everyone reads, and a branch at every call."""
    counts = []
    asked = 0
    rank = schedule_module._Room.rank

    def counted(self: Any, number: int) -> Any:
        nonlocal asked
        asked += 1
        return rank(self, number)

    monkeypatch.setattr(schedule_module._Room, "rank", counted)
    for length in (500, 5000):
        asked = 0
        shared, last, chain = buffer(0, 1), buffer(1, 2), []
        chain.append(call("start", [], [shared, last]))
        for i in range(length):
            made, scratch = buffer(2 * i + 2, 1 + i % 7), buffer(2 * i + 3, 1)
            chain += [call("on", [shared, last], [made]), call("branch", [shared, last], [scratch])]
            last = made
        assert len(scheduled(chain)) == 2 * length + 1
        counts.append(asked / length)
    assert counts[1] < 1.1 * counts[0]
