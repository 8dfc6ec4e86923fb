"""``step.memory_report()``: the bytes it tells are those of the plan that runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fuzz.case import holds
from fuzz.catalogue import entries
from fuzz.drawing import draw

import graphc as gc
from graphc.dims import Symbol, evaluate, product
from graphc.errors import DeviceError, FeedError
from graphc.node import Tensor
from passes.lower import lower
from passes.memory import ALIGNMENT, lifetimes, plan_memory, rounded
from passes.memory_report import HOLDERS, ROWS, MemoryReport, memory_report
from passes.pipeline import optimize
from passes.program import Program
from passes.waves import Steps, one_by_one
from runtime.cpu.fixed_kernels import SCRATCH_BYTES, SHARED_BYTES
from runtime.fetches import flatten
from runtime.session import unify_constraints

CATALOGUE = entries()


def lowered(fetches: Any) -> Program:
    graph = flatten(fetches).graph
    unifier = unify_constraints(graph.nodes)
    return lower(optimize(graph, unifier=unifier), unifier=unifier)


def check(program: Program, report: MemoryReport, sizes: dict[int, int], steps: Steps) -> None:
    """Against the definition: what is alive is counted step by step, buffer by buffer."""
    spans = lifetimes(program.calls, steps)
    for i, call in enumerate(report.steps):
        assert call.live == sum(rounded(sizes[b.id]) for b, (first, last) in spans.items() if first <= i <= last)
    assert report.largest_live == max((c.live for c in report.steps), default=0)
    assert report.arena == report.totals["arena"] >= report.largest_live
    assert len(report.temporaries) == len(spans)
    for kind in ("parameter", "constant", "feed", "output"):
        assert report.totals[kind] == sum(sizes[b.id] for b in program.buffers if b.kind == kind)
    if report.peak is not None:
        assert sum(h.bytes for h in report.at_peak) == report.steps[report.peak].live == report.largest_live
        assert all(c.live < report.largest_live for c in report.steps[: report.peak])
    placed = [(h.offset, h.offset + h.bytes, h.first, h.last) for h in report.temporaries]
    for k, (start, end, first, last) in enumerate(placed):
        assert 0 <= start < end <= report.arena
        assert start % ALIGNMENT == 0
        for a, b, c, d in placed[:k]:
            assert end <= a or b <= start or last < c or d < first
    text = str(report)
    assert max(map(len, text.splitlines())) <= 120
    assert len(text.splitlines()) <= ROWS + HOLDERS + 15


@pytest.mark.parametrize("number", range(30))
def test_random_programs(number: int) -> None:
    case, _ = draw(12, number, CATALOGUE)
    program = lowered(case.fetches)
    for run in (run for run in range(len(case.runs)) if holds(case, run)):
        values = case.extents(run)
        sizes = {
            b.id: evaluate(product(b.shape), values) * b.dtype.itemsize * (3 if b.kind == "partial" else 1)
            for b in program.buffers
        }
        steps = one_by_one(program.calls)
        report = memory_report(program, values, sizes, steps)
        check(program, report, sizes, steps)
        assert report.arena == plan_memory(program, sizes, steps).size


def network(name: str = "w") -> tuple[Tensor, list[Any]]:
    x = gc.placeholder(("batch", 32), name="x")
    h = x
    for i in range(3):
        h = gc.tanh(h @ gc.parameter(np.full((32, 32), 0.1, np.float32), name=f"{name}{i}"))
    loss = gc.mean(gc.square(h))
    return x, [loss, gc.optim.Adam(0.1).minimize(loss)]


def test_a_step_tells_before_it_runs_what_the_run_then_takes() -> None:
    x, fetches = network()
    with gc.Session() as session:
        step = session.compile(fetches, feeds=[x])
        for batch in (5, 256, 3000):
            report = step.memory_report(batch=batch)
            again = step.memory_report(np.ones((batch, 32)))
            assert str(report) == str(again)
            assert f"at batch = {batch}" in str(report)
            bound = step.program.request({Symbol("batch"): batch}).bound
            assert (report.arena, report.largest_live) == (bound.arena_size, bound.largest_live)
            values = {Symbol("batch"): batch}
            check(step.program.program, report, dict(step.program.sizes(values)), step.program.steps(values))
            assert report.totals["feed"] == batch * 32 * 4
            assert report.totals["output"] == 4
            assert report.totals["parameter"] >= 3 * 3 * 32 * 32 * 4  # weights, and Adam's two moments of each
        step(np.ones((9, 32)))
        assert "at batch = 9" in str(step.memory_report())


def test_holders_are_told_with_their_lines() -> None:
    x, fetches = network()
    with gc.Session() as session:
        report = session.compile(fetches, feeds=[x]).memory_report(batch=1000)
    text = str(report)
    assert "peak at step" in text
    largest = report.at_peak[0]
    assert largest.shape == (1000, 32)
    assert largest.bytes == 1000 * 32 * 4
    assert largest.op in text
    assert all("test_memory_report.py" in str(line) for h in report.temporaries for line in h.lines)
    assert sum(line.endswith("< peak") for line in text.splitlines()) == 1


def test_long_programs_are_drawn_in_steps() -> None:
    x = gc.placeholder((8, 8), name="x")
    h = x
    for _ in range(300):
        h = gc.tanh(h @ x)
    program = lowered(h)
    sizes = {b.id: evaluate(product(b.shape), {}) * b.dtype.itemsize for b in program.buffers}
    steps = one_by_one(program.calls)
    report = memory_report(program, {}, sizes, steps)
    check(program, report, sizes, steps)
    assert "(the most of every" in str(report)
    assert f"-{len(program.calls) - 1} " in str(report)


def test_long_names_are_cut() -> None:
    x, fetches = network("a_parameter_with_a_name_that_is_longer_than_any_column_of_a_report_can_be_wide_" * 3)
    with gc.Session() as session:
        text = str(session.compile(fetches, feeds=[x]).memory_report(batch=64))
    assert max(map(len, text.splitlines())) <= 120


def test_a_program_without_temporaries() -> None:
    x = gc.placeholder((4,), name="x")
    with gc.Session() as session:
        report = session.compile(x * 2).memory_report()
    assert report.peak is None
    assert report.at_peak == ()
    assert report.arena == 0
    assert "peak" not in str(report)
    assert report.totals["feed"] == report.totals["output"] == 16


def test_what_is_missing_is_said() -> None:
    x, fetches = network()
    a = gc.placeholder((None, 3), name="a")
    with gc.Session() as session:
        step = session.compile(fetches, feeds=[x])
        with pytest.raises(
            FeedError, match=r"(?s)not all extents are known; name them \(batch=\.\.\.\), or give arra.*x:"
        ):
            step.memory_report()
        anonymous = session.compile(gc.sum(gc.exp(a)), feeds=[a])
        with pytest.raises(FeedError, match=r"(?s)not all extents are known; give arrays as in a run.*a: placeholder"):
            anonymous.memory_report()
        with pytest.raises(FeedError, match=r"no extent of the feeds is named n; there are: none has a name"):
            anonymous.memory_report(n=3)
        assert anonymous.memory_report(np.ones((5, 3))).totals["feed"] == 60
    with gc.Session("reference") as session, pytest.raises(DeviceError, match="plans no memory"):
        session.compile(fetches).memory_report()


def test_two_names_of_one_extent_must_agree() -> None:
    x, y = gc.placeholder(("n", 2), name="x"), gc.placeholder(("m", 2), name="y")
    with gc.Session() as session:
        step = session.compile(x + y, feeds=[x, y])
        assert step.memory_report(n=3, m=3).totals["feed"] == 48
        with pytest.raises(FeedError, match="needs equal extents"):
            step.memory_report(n=3, m=4)
        with pytest.raises(FeedError, match=r"name them \(m=\.\.\.\)"):
            step.memory_report(n=3)


def test_scratch_of_threads_is_told_where_products_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transposed right operand is rearranged in it; nothing else is."""
    monkeypatch.setenv("GRAPHC_BLAS", "graphc")
    x, w = gc.placeholder(("batch", 64), name="x"), gc.parameter(np.ones((96, 64), np.float32), name="w")
    with gc.Session(threads=2) as session:
        report = session.compile(x @ w.T, feeds=[x]).memory_report(batch=64)
        assert report.scratch == 2 * SCRATCH_BYTES + SHARED_BYTES
        assert "MB of scratch memory for the session's threads" in str(report)
        assert session.compile(x @ gc.constant(np.ones((64, 96))), feeds=[x]).memory_report(batch=64).scratch == 0
