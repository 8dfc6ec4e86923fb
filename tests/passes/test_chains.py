"""Chains: which calls are in one, which end one, and that results do not change by it."""

from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.dims import Symbol
from passes import chains
from passes.chains import MEMORY, Chain, Chaining
from passes.memory import lifetimes
from passes.waves import Steps
from runtime.cpu import grid
from runtime.cpu.runner_source import ARGUMENTS, BLOCKS, CHAIN, CHECK, FUNCTION, WAYS

F32 = np.float32
N = Symbol("n")


@pytest.fixture
def any_chain(monkeypatch: pytest.MonkeyPatch) -> list[Chain]:
    """Every chain that can be is one, of blocks of a few rows; the fixture's value lists those that were found."""
    found: list[Chain] = []
    usual = Chaining.chained

    def chained(self: Chaining, *args: Any) -> Steps:
        steps = usual(self, *args)
        found.extend(step for step in steps if isinstance(step, Chain))
        return steps

    monkeypatch.setattr(Chaining, "chained", chained)
    monkeypatch.setattr(grid, "PARALLEL_WORK", 1)
    monkeypatch.setattr(grid, "CHAIN_WORK", -float("inf"))
    monkeypatch.setattr(grid, "SMALL_CALL", float("inf"))
    monkeypatch.setattr(chains, "BLOCK_ROWS", 3)
    return found


def weight(*shape: int) -> graphc.Tensor:
    return graphc.parameter(graphc.init.he_normal(), shape=shape)


def layers(x: Any, count: int, width: int = 64) -> Any:
    for _ in range(count):
        x = nn.relu(x @ weight(width, width) + graphc.parameter(np.zeros(width, F32)))
    return x


def rows_of_chains(fetches: list[Any], n: int) -> list[tuple[int, int]]:
    """Calls and rows of each chain at ``n``."""
    with graphc.Session(threads=2) as session:
        steps = session.compile(fetches).program.steps({N: n})
    return [(len(step), step.rows) for step in steps if isinstance(step, Chain)]


def inputs(*rest: int) -> graphc.Tensor:
    return graphc.placeholder(("n", *rest), name="x")


def test_layers_are_a_chain_where_they_have_work_for_several_threads() -> None:
    value = layers(inputs(64), 20)
    assert [rows_of_chains([value], n) for n in (1, 8, 40, 128)] == [[], [], [(20, 40)], [(20, 128)]]
    assert rows_of_chains([value], 20_000) == []  # calls that are large each


def test_blocks_are_whole_tiles_and_few() -> None:
    assert [(Chain((), rows).block, Chain((), rows).blocks) for rows in (9, 16, 100, 128, 129, 5000)] == [
        (8, 2), (8, 2), (8, 13), (8, 16), (16, 9), (320, 16),
    ]  # fmt: skip


def test_what_a_run_changes_is_fetched_anew_by_every_thread() -> None:
    """So training needs more rows for each weight than inference."""
    value = layers(inputs(64), 20)
    train = graphc.optim.SGD(0.1).minimize(graphc.mean(value * value))
    assert rows_of_chains([value], 16)
    assert not rows_of_chains([value, train], 16)
    assert rows_of_chains([value, train], 64) == [(39, 64)]  # forward and backward


@pytest.mark.parametrize(
    "between",
    [
        lambda x: x - graphc.mean(x, axis=0),
        lambda x: (graphc.permute_dims(x, (1, 0)) @ x) @ graphc.constant(np.eye(64, dtype=F32)),
        lambda x: x[::-1],
        lambda x: graphc.cumulative_sum(x, axis=0),
        lambda x: x @ (x[:64] * 0.1),
    ],
    ids=["mean", "gram", "flip", "scan", "right"],
)
def test_a_call_that_needs_other_rows_ends_a_chain(between: Any, any_chain: list[Chain]) -> None:
    x = inputs(64)
    value = layers(between(layers(x, 3)), 3)
    assert len(rows_of_chains([value], 64)) >= 2
    compare([value], x, np.random.default_rng(0).normal(size=(64, 64)).astype(F32))


def compare(fetches: list[Any], x: graphc.Tensor, data: np.ndarray[Any, Any], runs: int = 2) -> None:
    """The same bits on one thread, two and three; and what the reference finds, up to the rounding of some dozen calls:
    a row that nobody had made yet would be off by its size.
    """
    found = []
    for options in ({"threads": 1}, {"threads": 2}, {"threads": 3}, {"device": "reference"}):
        with graphc.Session(**options) as session:
            results = [v for _ in range(runs) for v in session.run(fetches, {x: data})]
        found.append([np.asarray(v) for v in results if v is not None])
    *ours, reference = found
    for other in ours[1:]:
        for mine, theirs in zip(ours[0], other, strict=True):
            np.testing.assert_array_equal(mine, theirs)
    for mine, theirs in zip(ours[0], reference, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-3 * np.abs(theirs).max())


@pytest.mark.parametrize("rows", [9, 24, 31, 65, 130])
@pytest.mark.parametrize("form", ["relu", "softmax", "norm", "narrow"])
def test_networks_have_the_same_bits_for_all_numbers_of_threads(rows: int, form: str, any_chain: list[Chain]) -> None:
    """Kernels that walk all elements as one axis, rows as a whole, and numbers of rows that no block divides."""
    x = inputs(20)
    h: Any = x @ weight(20, 33)
    for i in range(3):
        width = 1 if form == "narrow" and i == 1 else 33
        if form == "softmax":
            h = nn.softmax(h @ weight(33, 33), axis=-1) * 3
        elif form == "norm":
            h = nn.gelu(nn.layer_norm(h @ weight(33, 33), -1) + h)
        else:
            h = nn.relu(h @ weight(h.shape[-1], width) + graphc.parameter(np.zeros(width, F32)))
    loss = graphc.mean(graphc.square(h - 0.5))
    train = graphc.optim.Adam(1e-3).minimize(loss)
    compare([loss, h, train], x, np.random.default_rng(rows).normal(size=(rows, 20)).astype(F32))
    assert any_chain


def test_calls_without_rows_are_in_no_chain(capfd: pytest.CaptureFixture[str]) -> None:
    """Nor do they begin one that others with rows join."""
    x, z = inputs(64), graphc.placeholder(("k", 64), name="z")
    k = Symbol("k")
    with graphc.Session(threads=2) as session:
        step = session.compile([layers(z, 3), layers(x, 20)], feeds=[z, x])
        steps = step.program.steps({k: 0, N: 128})
        assert [len(one) for one in steps if isinstance(one, Chain)] == [20]
        for few, many in ((0, 128), (128, 0), (0, 0), (128, 128)):
            found = step(np.ones((few, 64), F32), np.ones((many, 64), F32))
            assert [one.shape for one in found] == [(few, 64), (many, 64)]
    assert capfd.readouterr() == ("", "")


def test_memory_of_a_chain_is_nobody_elses(any_chain: list[Chain]) -> None:
    with graphc.Session(threads=2) as session:
        program = session.compile([layers(inputs(64), 6)]).program
        steps, sizes = program.steps({N: 64}), program.sizes({N: 64})
        spans = lifetimes(program.kernels, steps)
    assert [len(step) for step in steps if isinstance(step, Chain)] == [6]
    assert [sizes[buffer.id] for buffer in spans] == [64 * 64 * 4] * 5
    assert len(set(spans.values())) == 1  # they all live as long as the chain


def test_a_chain_writes_no_more_than_a_cache_holds(any_chain: list[Chain]) -> None:
    found = rows_of_chains([layers(inputs(64), 40)], 256)  # 64 KiB each
    assert [calls for calls, _ in found] == [MEMORY // 2**16, MEMORY // 2**16, 8]


def test_a_failure_in_a_chain_is_found_and_nothing_has_changed() -> None:
    x, labels = inputs(64), graphc.placeholder(("n",), dtype="int64", name="labels")
    w = weight(64, 10)
    loss = nn.cross_entropy(layers(x, 20) @ w, labels)
    train = graphc.optim.SGD(0.1).minimize(loss)
    data, right = np.ones((128, 64), F32), np.arange(128) % 10
    with graphc.Session(threads=2) as session:
        step = session.compile([loss, train], feeds=[x, labels])
        table = step.program.request({N: 128}).bound.table
        forward, backward = table[table[:, ARGUMENTS] == CHAIN].tolist()
        for head in (forward, backward):
            assert (head[FUNCTION], head[BLOCKS] >= 20, head[WAYS]) == (0, True, 2)
        assert (forward[CHECK], backward[CHECK]) == (1, 0)
        step(data, right)
        before = session.get(w).copy()
        with pytest.raises(graphc.GraphcError, match="10"):
            step(data, right + 1)
        np.testing.assert_array_equal(session.get(w), before)
        step(data, right)
        assert step.program.runs == 2


def drawn(rng: np.random.Generator, x: graphc.Tensor) -> list[Any]:
    """A value, a loss and an update of a random network, whose tensors are rows of ``x`` and of what follows it."""
    found: list[Any] = [x]
    for _ in range(int(rng.integers(4, 12))):
        h: Any = found[rng.integers(max(0, len(found) - 3), len(found))]
        width = int(rng.choice([1, 5, 16, 33]))
        other = next((g for g in reversed(found[:-1]) if g.shape == h.shape), h)
        makers: list[Any] = [
            lambda h=h, width=width: nn.relu(h @ weight(h.shape[1], width) + graphc.parameter(np.ones(width, F32))),
            lambda h=h, width=width: h @ weight(h.shape[1], width),
            lambda h=h: nn.softmax(h, axis=-1),
            lambda h=h, other=other: h + graphc.tanh(other),
            lambda h=h: h - graphc.mean(h, axis=-1, keepdims=True),
            lambda h=h: h - graphc.mean(h, axis=0),
            lambda h=h, other=other: h @ (graphc.permute_dims(h, (1, 0)) @ graphc.tanh(other)) * 1e-3,
            lambda h=h, other=other: graphc.concat([h, other], axis=1),
            lambda h=h: h[::-1],
        ]
        found.append(makers[rng.choice(len(makers), p=[0.3, 0.15, 0.1, 0.15, 0.1, 0.05, 0.05, 0.05, 0.05])]())
    loss = graphc.mean(graphc.square(found[-1]))
    return [found[-1], loss, graphc.optim.SGD(1e-2).minimize(loss)]


def test_random_networks(any_chain: list[Chain]) -> None:
    with_chains = 0
    for seed in range(30):
        rng, before = np.random.default_rng(seed), len(any_chain)
        x = inputs(16)
        fetches = drawn(rng, graphc.tanh(x @ weight(16, 16)))
        compare(fetches, x, rng.normal(size=(int(rng.choice([4, 7, 32, 100])), 16)).astype(F32))
        with_chains += len(any_chain) > before
    assert with_chains >= 25
