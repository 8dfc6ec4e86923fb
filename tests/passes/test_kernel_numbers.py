"""The numbers of every kernel pattern, at the extents where loops, lanes and blocks begin and end."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.node import Tensor

ROWS = (0, 1, 2, 255, 256, 257, 1000)
COLUMNS = (1, 63, 100, 1024, 1025)
Form = Callable[[Tensor], Any]


def both(fetches: Any, feeds: dict[Tensor, Any]) -> list[list[Any]]:
    found = []
    for device in ("cpu", "reference"):
        with gc.Session(device) as session, np.errstate(all="ignore"):
            found.append([np.asarray(v) for v in session.run(fetches, feeds)])
    return found


def close(found: list[Any], expected: list[Any], rtol: float = 1e-12) -> None:
    for mine, right in zip(found, expected, strict=True):
        assert mine.dtype == right.dtype
        scale = float(np.max(np.abs(right), initial=0, where=np.isfinite(right)))
        np.testing.assert_allclose(mine, right, rtol=rtol, atol=rtol * scale)


def layer_norm(x: Tensor) -> Tensor:
    centred = x - x.mean(1, keepdims=True)
    return centred / gc.sqrt(gc.square(centred).mean(1, keepdims=True) + 1)


PATTERNS: dict[str, Form] = {
    "elementwise": lambda x: [gc.tanh(x * 2) + 1],
    "value and derivative": lambda x: [gc.tanh(x), gc.gradients(gc.tanh(x), x, x)],
    "row sums": lambda x: [gc.sum(x, 1), gc.sum(gc.square(x), 1, keepdims=True) + 1],
    "column sums": lambda x: [gc.sum(x, 0), gc.sum(gc.square(x), 0, keepdims=True) + 1],
    "full sum": lambda x: [gc.sum(x), gc.sum(x * x) * 3],
    "full sum and the elements": lambda x: [gc.sum(gc.exp(x)), gc.exp(x)],
    "column sum and the elements": lambda x: [gc.sum(gc.exp(x), 0), gc.exp(x)],
    "row sum and the elements": lambda x: [gc.sum(gc.exp(x), 1), gc.exp(x)],
    "centred": lambda x: [x - gc.sum(x, 1, keepdims=True), x - gc.sum(x, 0, keepdims=True)],
    "broadcast": lambda x: [x * gc.sum(x, 0) + gc.sum(x, 1, keepdims=True)],
    "transposed": lambda x: [x.T + 1, gc.sum(x.T * 2, 1), gc.sum(x.T, 0), x.T.astype("int32")],
    "integers": lambda x: [gc.sum(x.astype("int8"), 0), gc.sum((x > 0).astype("uint8"), 1), (x > 0).sum()],
    "index": lambda x: [gc.arange("n", "float64") + x.sum(1), gc.expand_dims(gc.arange("n"), 1) * x.astype("int64")],
}  # fmt: skip
NONEMPTY: dict[str, Form] = {
    "softmax": lambda x: [gc.softmax(x), gc.log_softmax(x), gc.logsumexp(x, 1)],
    "softmax over columns": lambda x: [gc.softmax(x, 0), gc.logsumexp(x, 0)],
    "extrema": lambda x: [gc.max(x, 1), gc.min(x, 0), gc.max(x), gc.min(x, 1, keepdims=True)],
    "positions": lambda x: [gc.argmax(x, 1), gc.argmin(x, 0)],
    "softmax gradient": lambda x: [gc.gradients(gc.sum(gc.square(gc.softmax(x))), x)],
    "layer norm": lambda x: [layer_norm(x), gc.gradients(gc.sum(gc.square(layer_norm(x) + 1)), x)],
}  # fmt: skip


@pytest.mark.parametrize("name", [*PATTERNS, *NONEMPTY])
def test_pattern(name: str) -> None:
    x = gc.placeholder(("n", "m"), "float64", name="x")
    fetches = {**PATTERNS, **NONEMPTY}[name](x)
    with gc.Session("cpu") as cpu, gc.Session("reference") as reference:
        for n, m in [*itertools.product(ROWS, COLUMNS), *itertools.product(COLUMNS, ROWS)]:
            if name in NONEMPTY and 0 in (n, m):
                continue
            data = np.random.default_rng([n, m]).normal(size=(n, m))
            found, expected = (s.run(fetches, {x: data}) for s in (cpu, reference))
            close(found, expected)
        assert cpu.stats()["steps"] == 1


@pytest.mark.parametrize("name", PATTERNS)
def test_pattern_of_static_extents(name: str) -> None:
    """Small extents that are known take other ways: no split, extents of 1 dropped."""
    for shape in ((3, 1), (1, 3), (1, 1), (0, 3), (3, 0), (5, 7)):
        x = gc.placeholder(shape, "float64", name="x")
        y = gc.placeholder(("n",), "float64", name="y")
        fetches = PATTERNS[name](x) if name != "index" else [gc.arange("n", "float64") + y]
        feeds = {x: np.random.default_rng(1).normal(size=shape)} if name != "index" else {y: np.ones(3)}
        close(*both(fetches, feeds))


@pytest.mark.parametrize(
    "axes", [(0,), (1,), (2,), (3,), (0, 1), (0, 2), (1, 3), (0, 3), (0, 1, 3), (1, 2, 3), (0, 1, 2, 3)]
)
def test_reductions_of_rank_four(axes: tuple[int, ...]) -> None:
    x = gc.placeholder(("a", "b", "c", "d"), "float64", name="x")
    fetches = [gc.sum(gc.exp(x), axes), gc.sum(x * 2, axes, keepdims=True) + x]
    with gc.Session("cpu") as cpu, gc.Session("reference") as reference:
        for shape in ((2, 3, 4, 5), (1, 300, 2, 3), (3, 1, 257, 1), (2, 0, 3, 4), (33, 2, 9, 70)):
            data = np.random.default_rng(0).normal(size=shape)
            close(cpu.run(fetches, {x: data}), reference.run(fetches, {x: data}))


@pytest.mark.parametrize("axes", [*itertools.permutations(range(3)), (3, 1, 0, 2), (1, 0, 3, 2), (0, 2, 3, 1)])
def test_permutations(axes: tuple[int, ...]) -> None:
    shape = (4, 3, 5, 2)[: len(axes)]
    x = gc.placeholder(shape, "float64", name="x")
    y = gc.placeholder(tuple(shape[a] for a in axes), "float64", name="y")
    moved = gc.permute_dims(x, axes)
    fetches = [
        moved + y,
        gc.sum(moved * y, 0),
        gc.sum(moved, -1),
        gc.permute_dims(y * 2, tuple(np.argsort(axes))),
        moved,
    ]
    feeds = {x: np.random.default_rng(2).normal(size=shape), y: np.random.default_rng(3).normal(size=y.shape)}
    close(*both(fetches, feeds))


def test_many_views_of_one_tensor_in_one_kernel() -> None:
    x = gc.placeholder(("n", "n", "n"), "float64", name="x")
    y = sum((gc.permute_dims(x, p) * (i + 2) for i, p in enumerate(itertools.permutations(range(3)))), start=x)
    close(*both([y, gc.sum(y, 0), gc.sum(y, (1, 2))], {x: np.random.default_rng(4).normal(size=(5, 5, 5))}))


def test_a_symbolic_extent_that_must_be_one() -> None:
    x = gc.placeholder(("n", 3), "float64", name="x")
    one = gc.squeeze(x, 0)
    fetches = [
        one, gc.expand_dims(gc.arange("n", "float64"), 1) + x, gc.sum(x, 0), gc.sum(x, 1), gc.sum(x), gc.softmax(x, 0),
        gc.sum(gc.expand_dims(gc.arange("n", "float64") + 4, 1) * x, 0), gc.argmax(x, 0),
    ]  # fmt: skip
    close(*both(fetches, {x: np.array([[1.0, 2.0, 3.0]])}))


def test_extents_that_must_be_equal() -> None:
    x, y = gc.placeholder(("n", 3), "float64", name="x"), gc.placeholder((None, 3), "float64", name="y")
    z = gc.placeholder((None,), "float64", name="z")
    total = x + y
    fetches = [total, gc.sum(total, 0), gc.sum(total, 1) * z, gc.softmax(total, 1) * gc.expand_dims(z, 1), total.T @ y]
    for n in (1, 4, 300):
        rng = np.random.default_rng(n)
        close(*both(fetches, {x: rng.normal(size=(n, 3)), y: rng.normal(size=(n, 3)), z: rng.normal(size=n)}))


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_bits_for_any_number_of_threads(threads: int) -> None:
    x = gc.placeholder(("n", "m"), name="x")
    fetches = [gc.sum(x), gc.sum(x, 0), gc.sum(x, 1), gc.softmax(x), gc.sum(gc.exp(x) * x)]
    data = np.random.default_rng(5).normal(size=(700, 300)).astype(np.float32)
    with gc.Session(threads=threads) as session, gc.Session(threads=1) as alone:
        for mine, expected in zip(session.run(fetches, {x: data}), alone.run(fetches, {x: data}), strict=True):
            np.testing.assert_array_equal(mine, expected)


@pytest.mark.parametrize("n", [0, 3])
def test_an_index_is_checked_even_where_what_reads_it_is_empty(n: int) -> None:
    """The check may not disappear into a loop that never runs."""
    i = gc.placeholder((2, 1), dtype="int64", name="i")
    x = gc.placeholder((2, "n"), dtype="int64", name="x")
    total = gc.ops.check_index(i, 3) + x
    for device in ("cpu", "reference"):
        with gc.Session(device=device) as session:
            feeds = {i: [[0], [2]], x: np.ones((2, n), np.int64)}
            np.testing.assert_array_equal(session.run(total, feeds), feeds[x] + [[0], [2]])
            with pytest.raises(gc.errors.IndexRangeError, match="0 to 2, found 0 to 9"):
                session.run(total, {**feeds, i: [[0], [9]]})
