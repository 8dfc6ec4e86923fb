"""Bindings: what a program becomes at known extents is the same whatever it was bound to before."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.dims import Symbol
from runtime.cpu.binding import Binder, Bound

F32 = np.float32
N = Symbol("n")
EXTENTS = (5, 3000, 0, 1, 40_000, 3, 5, 3000)


def training() -> list[Any]:
    """Products with epilogues, reductions over the batch in parts, updates of small parameters in a wave."""
    x = graphc.placeholder(("n", 20), name="x")
    h: Any = x
    for i in range(4):
        w = graphc.parameter(graphc.init.he_normal(), shape=(20, 20), name=f"w{i}")
        h = graphc.nn.relu(h @ w + graphc.parameter(np.zeros(20, F32), name=f"b{i}"))
    loss = graphc.mean(graphc.square(h))
    return [loss, graphc.optim.Adam(0.1).minimize(loss)]


def routines() -> list[Any]:
    """Running sums, rows scattered, a copy, and extents as numbers, some of them equal."""
    x = graphc.placeholder(("n", 3), name="x")
    n = x.shape[0]
    ones = graphc.broadcast_to(graphc.constant(np.int64(1)), (n,))
    taken = graphc.take(x, graphc.cumulative_sum(ones) - 1, axis=0)
    gradient = graphc.gradients(graphc.sum(taken * taken), x)
    return [graphc.cumulative_sum(x, axis=0), gradient, x * n, graphc.sum(x) / (n + 3), x, x[::2] * 1.0]


def batched() -> list[Any]:
    """Products of many matrices, transposed, and sums of symbolic extents."""
    x = graphc.placeholder(("n", 4, 6), name="x")
    y = graphc.nn.softmax(x @ x.mT * 0.5, axis=-1)
    return [y @ x, graphc.concat([x, x[:, ::-1]], axis=0).sum(axis=0), graphc.sum(x, axis=(0, 2))]


def waves() -> list[Any]:
    """Products that nobody waits for: side by side at thousands of rows, not at less or more."""
    x = graphc.placeholder(("n", 20), name="x")
    w = [graphc.parameter(graphc.init.he_normal(), shape=(20, 20), name=f"w{i}") for i in range(12)]
    return [graphc.tanh(x @ w[2 * i]) @ w[2 * i + 1] for i in range(6)]


def facts(bound: Bound) -> list[Any]:
    arrays = [bound.table, bound.words, bound.patches, bound.scalars]
    return [*(a.tolist() for a in arrays), bound.arena_size, bound.output_shapes, bound.largest_live]


MAKERS = [training, routines, batched, waves]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("side_by_side", [True, False])
def test_bindings_do_not_depend_on_those_before(make: Any, side_by_side: bool) -> None:
    with graphc.Session(threads=2) as session:
        program = session.compile(make()).program
        binder = program._binder

        def fresh() -> Binder:
            return Binder(binder.program, binder.addresses, binder.outline._slots, 2, binder.products)

        for n in EXTENTS:
            values = {N: n}
            assert facts(binder.bind(values, waves=side_by_side)) == facts(fresh().bind(values, waves=side_by_side)), n
            assert binder.sizes(values) == fresh().sizes(values)
            assert binder.steps(values) == fresh().steps(values)


def test_which_bindings_have_waves() -> None:
    with graphc.Session(threads=2) as session:
        step = session.compile(waves())
        longest = [max(map(len, step.program.steps({N: n}))) for n in EXTENTS]
    assert longest == [6 if n == 3000 else 1 for n in EXTENTS]


@pytest.mark.parametrize("make", MAKERS)
def test_runs_have_the_bits_of_a_session_that_was_bound_to_nothing_else(make: Any, tmp_path: Path) -> None:
    fetches, state = make(), tmp_path / "state.safetensors"
    with graphc.Session(threads=2) as lasting:
        step = lasting.compile(fetches)
        for n in (5, 3000, 1, 700, 3, 256, 3000):
            data = np.random.default_rng(n).normal(size=(n, *step.feeds[0].shape[1:])).astype(F32)
            lasting.save(state)
            with graphc.Session(threads=2) as fresh:
                other = fresh.compile(fetches)
                fresh.load(state)
                for found, expected in zip(step(data), other(data), strict=True):
                    np.testing.assert_array_equal(found, expected, strict=found is not None)
