"""Waves: which calls are put off to run side by side, and that nothing else changes by it."""

from typing import Any

import numpy as np
import pytest

import graphc
from graphc.dtypes import float32
from passes.memory import lifetimes, plan_memory, rounded
from passes.program import Buffer, Call, Program, RoutineCall
from passes.waves import arrange, one_by_one
from runtime.cpu import grid, products
from runtime.cpu.runner_source import BLOCKS, FUNCTION, WAYS

F32 = np.float32


def buffers(count: int, kind: str = "temp") -> list[Buffer]:
    return [Buffer(i, kind, (10,), float32) for i in range(count)]


def call(reads: list[Buffer], writes: list[Buffer]) -> Call:
    return RoutineCall("any", (), tuple(reads), tuple(writes), "any", ())


def test_what_is_put_off() -> None:
    a, b, c, p, q, r = buffers(6)
    chain = [call([], [a]), call([a], [p]), call([a], [b]), call([b], [q]), call([b], [c]), call([c], [r])]
    work = [1.0] * 6
    assert arrange(chain, work, 2, 100) == ((0,), (2,), (4,), (1, 3, 5))
    assert arrange(chain, work, 2, 2) == ((0,), (2,), (4,), (5,), (1, 3))  # the last is too little for a wave
    assert arrange(chain, work, 5, 100) == one_by_one(chain)  # so are all three
    assert arrange(chain, [1, 1, 1, 9, 1, 1], 2, 100) == ((0,), (2,), (3,), (4,), (1, 5))  # one is large


def test_nobody_overwrites_what_a_wave_still_reads() -> None:
    a, p, q, r = buffers(4)
    calls = [call([a], [p]), call([a], [q]), call([], [a]), call([a], [r])]
    assert arrange(calls, [1.0] * 4, 2, 100) == ((0, 1), (2,), (3,))


def test_waves_run_one_after_the_other() -> None:
    a, *results = buffers(8)
    chain = [call([], [a]), *(call([a], [p]) for p in results[:4]), call([a], [a]), call([a], [results[4]])]
    work = [5.0, 1.0, 1.0, 1.0, 1.0, 5.0, 1.0]
    assert arrange(chain, work, 2, 2) == ((0,), (1, 2), (3, 4), (5,), (6,))
    assert arrange(chain[:5] + chain[6:], work[:5] + work[6:], 2, 3) == ((0,), (1, 2, 3), (4, 5))
    between = [chain[0], chain[1], chain[2], call([], results[5:6]), chain[3], chain[4]]
    assert arrange(between, [5, 1, 1, 5, 1, 1], 2, 2) == ((0,), (3,), (1, 2), (4, 5))


def test_products_that_are_cut_along_k_are_in_no_wave(monkeypatch: pytest.MonkeyPatch) -> None:
    """The threads have memory for the partial results of one at a time."""
    monkeypatch.setattr(products, "DEEP_WORK", 1)
    monkeypatch.setattr(grid, "PARALLEL_WORK", 1)
    monkeypatch.setattr(grid, "WAVE_WORK", 1e12)
    monkeypatch.setattr(grid, "SMALL_CALL", 150_000)
    rng = np.random.default_rng(0)
    x = [graphc.placeholder(("n", 8), name=f"x{i}") for i in range(4)]
    y = graphc.placeholder(("n", 24), name="y")
    arrays = [rng.normal(size=(5000, 8)).astype(F32) for _ in x]
    last = rng.normal(size=(5000, 24)).astype(F32)
    with graphc.Session(threads=2) as session:
        step = session.compile([a.mT @ y for a in x], feeds=[*x, y])
        for _ in range(20):
            for found, a in zip(step(*arrays, last), arrays, strict=True):
                np.testing.assert_allclose(found, a.astype(np.float64).T @ last, rtol=0, atol=0.01)
        (bound,) = [request.bound for request in step.program._requests.values()]
    assert bound.scratch  # of products that are cut along k
    assert (bound.table[:, FUNCTION] != 0).all()  # no row stands before a group


def test_results_that_are_needed_are_not_put_off() -> None:
    a, b, p = buffers(3)
    calls = [call([], [a]), call([], [b]), call([a, b], [p])]
    assert arrange(calls, [1.0] * 3, 2, 100) == one_by_one(calls)


@pytest.mark.parametrize("seed", range(200))
def test_random_programs(seed: int) -> None:
    """Each call once; an order that keeps all dependencies; steps without dependencies; memory that nobody shares."""
    rng = np.random.default_rng(seed)
    pool = buffers(int(rng.integers(2, 12)))
    calls: list[Call] = []
    for _ in range(int(rng.integers(1, 30))):
        read, written = (list(rng.choice(len(pool), int(rng.integers(0, 3)))) for _ in range(2))
        calls.append(call([pool[i] for i in read], [pool[i] for i in written or [0]]))
    steps = arrange(calls, rng.uniform(0, 3, len(calls)).tolist(), 2, float(rng.integers(2, 12)))
    place = {number: i for i, step in enumerate(steps) for number in step}
    assert sorted(n for step in steps for n in step) == list(range(len(calls)))
    for i, first in enumerate(calls):
        for j in range(i + 1, len(calls)):
            second = calls[j]
            waits = {*first.writes} & {*second.reads, *second.writes} or {*first.reads} & {*second.writes}
            assert place[i] < place[j] or not waits
    program = Program(tuple(pool), tuple(calls), ())
    sizes = {b.id: int(rng.integers(1, 500)) for b in pool}
    plan, spans = plan_memory(program, sizes, steps), lifetimes(calls, steps)
    for x in spans:
        for y in spans:
            together = spans[x][0] <= spans[y][1] and spans[y][0] <= spans[x][1]
            below = plan.offsets[x.id] + rounded(sizes[x.id]) <= plan.offsets[y.id]
            above = plan.offsets[y.id] + rounded(sizes[y.id]) <= plan.offsets[x.id]
            assert x is y or not together or below or above


def deep(layers: int, optimizer: graphc.optim.Optimizer) -> tuple[Any, list[graphc.Tensor]]:
    x = graphc.placeholder((None, 64), name="x")
    h, weights = x, []
    for i in range(layers):
        w = graphc.parameter(graphc.init.he_normal(), shape=(64, 64), name=f"w{i}")
        b = graphc.parameter(graphc.init.zeros(), shape=(64,), name=f"b{i}")
        h = graphc.relu(h @ w + b)
        weights += [w, b]
    loss = graphc.mean(graphc.square(h - 1))
    return [loss, optimizer.minimize(loss)], [x, *weights]


@pytest.mark.parametrize("optimizer", [graphc.optim.SGD(0.01), graphc.optim.Adam(0.01)], ids=["sgd", "adam"])
def test_a_deep_network_has_the_same_bits_for_all_numbers_of_threads(optimizer: Any) -> None:
    fetches, (x, *weights) = deep(80, optimizer)
    value = np.random.default_rng(0).normal(size=(16, 64)).astype(F32)
    found = []
    for threads in (1, 2, 3):
        with graphc.Session(threads=threads) as session:
            step = session.compile(fetches, feeds=[x])
            losses = [step(value)[0] for _ in range(3)]
            table = next(iter(step.program._requests.values())).bound.table
            waves = table[table[:, FUNCTION] == 0]
            assert len(waves) == 0 if threads == 1 else len(waves) > 0
            assert (waves[:, BLOCKS] > 1).all()
            assert (waves[:, WAYS] == threads).all()
            assert step.profile(2, value).kernels[0].calls == 2
            found.append([losses, *(session.get(w) for w in weights)])
    for other in found[1:]:
        for mine, theirs in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(mine, theirs)
    with graphc.Session(device="reference") as reference:
        expected = [reference.run(fetches, {x: value})[0] for _ in range(3)]
    np.testing.assert_allclose(found[0][0], expected, rtol=1e-4)
