"""Arguments read across the loops: the values of the reference, whatever the extents leave of the last tiles."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import graphc
from passes.program import LoopCall
from runtime.cpu.grid import loop_grid, work_per_element
from runtime.cpu.tiling import DEEP, WIDE, tiled

SHAPES = [
    (1, 1),
    (2, 1),
    (1, 70),
    (5, 3),
    (DEEP, WIDE),
    (WIDE, DEEP),
    (65, 33),
    (63, 31),
    (300, 129),
    (3, 5000),
    (5000, 3),
]


def agree(fetches: list[Any], feeds: dict[Any, Any]) -> None:
    with graphc.Session(device="reference") as reference:
        expected = reference.run(fetches, feeds)
    for threads in (None, 1):
        with graphc.Session(threads=threads) as session:
            for found, wanted in zip(session.run(fetches, feeds), expected, strict=True):
                assert found.tobytes() == np.ascontiguousarray(wanted).tobytes()


def kernels(fetches: Any) -> list[LoopCall]:
    with graphc.Session() as session:
        return [c for c in session.compile(fetches).kernels if isinstance(c, LoopCall)]


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", "int64", "float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES)
def test_transposed(shape: tuple[int, int], dtype: str) -> None:
    x, y = graphc.placeholder((None, None), dtype, name="x"), graphc.placeholder((None, None), dtype, name="y")
    turned = graphc.matrix_transpose(x)
    both = graphc.logical_or(turned, y) if dtype == "bool" else turned + y
    assert [len(tiled(c.kernel)) for c in kernels(both)] == [1]
    rng = np.random.default_rng(0)
    high = 2 if dtype == "bool" else 50
    values = rng.integers(0, high, shape).astype(dtype), rng.integers(0, high, shape[::-1]).astype(dtype)
    agree([both, graphc.equal(turned, y)], {x: values[0], y: values[1]})


@pytest.mark.parametrize("axes", [*itertools.permutations(range(3)), (0, 2, 1, 3), (3, 1, 2, 0), (1, 0, 3, 2)])
def test_permuted(axes: tuple[int, ...]) -> None:
    """Batches of tiles, whose rows never cross from one matrix to the next."""
    shape = (7, 66, 35) if len(axes) == 3 else (3, 34, 5, 70)
    x = graphc.placeholder((None,) * len(shape), name="x")
    bias = graphc.arange(shape[axes[-1]], dtype="float32")
    values = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    agree([graphc.permute_dims(x, axes) * 2 + bias], {x: values})


def test_values_of_rows_and_several_arguments() -> None:
    """One value a row, slices, a reversed one, and more arguments across than are tiled."""
    x, scale = graphc.placeholder((None, None), name="x"), graphc.placeholder((None, 1), name="scale")
    others = [graphc.placeholder((None, None), name=f"y{k}") for k in range(5)]
    rng = np.random.default_rng(2)
    shape = (90, 150)
    feeds = {t: rng.normal(size=shape).astype(np.float32) for t in [x, *others]}
    feeds[scale] = rng.normal(size=(150, 1)).astype(np.float32)
    total = sum((graphc.matrix_transpose(y) for y in others), graphc.matrix_transpose(x) * scale)
    agree([total, graphc.matrix_transpose(x)[3:, 5:] + 1, graphc.matrix_transpose(x)[::-1, :] + 1], feeds)


def test_an_update_reads_the_old_value_across() -> None:
    w = graphc.parameter(np.arange(70.0 * 70).reshape(70, 70).astype(np.float32), name="w")
    with graphc.Session() as session:
        before = session.get(w)
        session.run(graphc.assign(w, w + graphc.matrix_transpose(w) * 2))
        np.testing.assert_array_equal(session.get(w), before + before.T * 2)


def test_blocks_are_as_deep_as_tiles() -> None:
    (call,) = kernels(graphc.matrix_transpose(graphc.placeholder((4096, 4096), name="x")) + 1)
    grid = loop_grid(call.kernel, (4096, 4096), work_per_element(call.kernel))
    assert grid.rows == DEEP


def test_what_runs_along_memory_is_not_tiled() -> None:
    x = graphc.placeholder((None, None), name="x")
    for fetches in (x + 1, x[:, ::2] * 2, x + graphc.sum(x, 1, keepdims=True)):
        assert all(tiled(c.kernel) == () for c in kernels(fetches))


@pytest.mark.parametrize("shape", [(130, 70), (70, 300), (1, 40)])
def test_epilogue_of_a_product(shape: tuple[int, int]) -> None:
    """The product calls it on blocks of rows or of columns."""
    a, b, x = (graphc.placeholder((None, None), name=name) for name in "abx")
    fetches = [graphc.relu(a @ b + graphc.matrix_transpose(x))]
    m, n = shape
    rng = np.random.default_rng(3)
    values = [rng.integers(-3, 4, size).astype(np.float32) for size in ((m, 40), (40, n), (n, m))]
    agree(fetches, dict(zip((a, b, x), values, strict=True)))
