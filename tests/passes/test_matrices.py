"""Products read their operands through views: no copies, and the same numbers."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from passes.matrices import behind_views
from passes.program import GemmCall
from runtime.fetches import flatten

F32 = np.float32
Build = Callable[[graphc.Tensor], graphc.Tensor]


def kernels(fetch: graphc.Tensor) -> list[str]:
    with graphc.Session() as session:
        return [type(k).__name__ for k in session.compile(fetch).kernels]


# Of x (4, 6, 5), a view of it whose last two axes are multiplied by something, and whether a copy is needed.
VIEWS: dict[str, tuple[Build, bool]] = {
    "itself": (lambda x: x, False),
    "transposed": (lambda x: x.mT, False),
    "batch in the middle": (lambda x: graphc.permute_dims(x, (1, 0, 2)), False),
    "batch last": (lambda x: graphc.permute_dims(x, (2, 0, 1)), True),
    "batch last, transposed": (lambda x: graphc.permute_dims(x, (2, 1, 0)), True),
    "columns first": (lambda x: graphc.permute_dims(x, (1, 2, 0)), False),
    "one matrix": (lambda x: x[2], False),
    "one of the rows of each": (lambda x: x[:, 3], False),
    "one column of each": (lambda x: x[:, :, 1], True),
    "a part of the rows": (lambda x: x[:, 1:5], False),
    "every other row": (lambda x: x[:, ::2], False),
    "rows backwards": (lambda x: x[:, ::-1], True),
    "matrices backwards": (lambda x: x[::-1], False),
    "a part of the columns": (lambda x: x[:, :, 1:4], False),
    "every other column": (lambda x: x[:, :, ::2], True),
    "one row": (lambda x: x[:, 2:3], False),
    "one column": (lambda x: x[:, :, 2:3], False),
    "one column, transposed": (lambda x: x[:, :, 2:3].mT, False),
    "repeated": (lambda x: graphc.broadcast_to(x, (3, 4, 6, 5)), False),
    "a row repeated": (lambda x: graphc.broadcast_to(x[:, :1], (4, 6, 5)), True),
    "with an axis": (lambda x: graphc.expand_dims(x, 1), False),
    "heads": (lambda x: graphc.permute_dims(x.reshape((4, 3, 2, 5)), (2, 0, 1, 3)), False),
    "one of the heads": (lambda x: graphc.permute_dims(x.reshape((4, 3, 2, 5)), (2, 0, 1, 3))[1], False),
}


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("source", ["a placeholder", "computed"])
def test_views_are_read_where_they_lie(name: str, side: str, source: str) -> None:
    view, copied = VIEWS[name]
    x = graphc.placeholder((4, 6, 5), name="x")
    operand = view(x if source == "a placeholder" else graphc.exp(x))
    extent = operand.shape[-1 if side == "left" else -2]
    rng = np.random.default_rng(0)
    shape = (extent, 3) if side == "left" else (3, extent)
    other = graphc.constant(rng.normal(size=shape).astype(F32))
    fetch = operand @ other if side == "left" else other @ operand
    value = rng.normal(size=(4, 6, 5)).astype(F32)
    with graphc.Session() as session, graphc.Session(device="reference") as reference:
        expected = reference.run(fetch, {x: value})
        found = session.run(fetch, {x: value})
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)
        if source == "a placeholder" and (side == "right" or operand.ndim == 2):
            # A left operand of higher rank becomes rows of one matrix, which must lie side by side.
            wanted = ["LoopCall"] if extent == 1 else ["LoopCall", "GemmCall"] if copied else ["GemmCall"]
            assert [type(k).__name__ for k in session.compile(fetch).kernels] == wanted


def test_many_rows_are_one_product_forward_and_backward() -> None:
    x, w = graphc.placeholder(("b", "l", 6), name="x"), graphc.parameter(graphc.init.normal(), shape=(6, 3), name="w")
    y = x @ w
    fetches = [y, *graphc.gradients(graphc.sum(y * y), [x, w])]
    with graphc.Session() as session:
        step = session.compile(fetches)
        products = [k for k in step.kernels if isinstance(k, GemmCall)]
        assert [p.batch for p in products] == [()] * 3
        assert {str(p.m) for p in products} == {"b*l", "6"}
        value = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(F32)
        found = step(value)
        with graphc.Session(device="reference") as reference:
            reference.set(w, session.get(w))
            for mine, theirs in zip(found, reference.run(fetches, {x: value}), strict=True):
                np.testing.assert_allclose(mine, theirs, rtol=2e-5, atol=2e-5)


def test_attention_copies_no_operand() -> None:
    """Queries, keys and values are parts of one tensor with the heads inside its rows."""
    x = graphc.placeholder(("b", 8, 3 * 2 * 4), name="x")
    heads = graphc.permute_dims(x.reshape((-1, 8, 3, 2, 4)), (2, 0, 3, 1, 4))
    q, k, v = heads[0], heads[1], heads[2]
    mixed = graphc.softmax(q @ k.mT * 0.5, axis=-1) @ v
    with graphc.Session() as session:
        step = session.compile(mixed)
        assert [type(c).__name__ for c in step.kernels] == ["GemmCall", "GemmCall"]
        value = np.random.default_rng(0).normal(size=(3, 8, 24)).astype(F32)
        with graphc.Session(device="reference") as reference:
            np.testing.assert_allclose(step(value), reference.run(mixed, {x: value}), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("batch", [0, 1, 5])
@pytest.mark.parametrize("rows", [0, 1, 4])
@pytest.mark.parametrize("inner", [0, 1, 3])
def test_empty_and_single_extents_that_only_the_run_knows(batch: int, rows: int, inner: int) -> None:
    x = graphc.placeholder(("b", "m", "k"), name="x")
    y = graphc.placeholder(("b", "m", "n"), name="y")
    fetch = graphc.permute_dims(x, (0, 2, 1)) @ y
    rng = np.random.default_rng(0)
    feeds: dict[Any, Any] = {x: rng.normal(size=(batch, rows, inner)), y: rng.normal(size=(batch, rows, 2))}
    with graphc.Session() as session:
        expected = np.swapaxes(feeds[x], 1, 2) @ feeds[y]
        np.testing.assert_allclose(session.run(fetch, feeds), expected, rtol=1e-5, atol=1e-5)
    assert kernels(fetch) == ["GemmCall"]


def test_a_small_part_of_what_must_be_computed_is_all_that_is_computed() -> None:
    """Reading through the slice would have the whole of exp(x) stored."""
    x = graphc.placeholder((100, 6), name="x")
    part = graphc.exp(x)[:2]
    assert behind_views(part).tensor is part
    assert behind_views(x[:2]).tensor is x


def test_ranks_that_do_not_fit_name_the_operands_as_written() -> None:
    x, w = graphc.placeholder((2, 3, 4), name="x"), graphc.placeholder((5, 6), name="w")
    with pytest.raises(graphc.errors.ShapeError, match=r"x.*\[2, 3, 4\]|x.*\(2, 3, 4\)"):
        x @ w


def test_a_product_that_is_added_in_place_reads_views_too() -> None:
    x, y = graphc.placeholder((5, 4, 3), name="x"), graphc.placeholder((5, 2, 3), name="y")
    w = graphc.parameter(np.ones((3, 3), F32), name="w")
    update = graphc.assign(w, w - 0.5 * (x[:, 1].T @ y[:, 0]))
    rng = np.random.default_rng(0)
    feeds = {x: rng.normal(size=(5, 4, 3)).astype(F32), y: rng.normal(size=(5, 2, 3)).astype(F32)}
    with graphc.Session() as session:
        step = session.compile(update)
        assert [type(k).__name__ for k in step.kernels] == ["GemmCall"]
        session.run(update, feeds)
        expected = 1 - 0.5 * (feeds[x][:, 1].T @ feeds[y][:, 0])
        np.testing.assert_allclose(session.get(w), expected, rtol=1e-5, atol=1e-5)
    assert flatten(update).graph.updates
