"""Rows with one place that differs: the same bits as NumPy's, wherever the place is, and loops that do not compare."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.errors import GraphcError
from passes.program import LoopCall
from runtime.cpu.peeling import one_place

Tensor = graphc.Tensor
FORMS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "at the place": lambda x, at: graphc.where(at, x * 3, x - graphc.max(x, 1, keepdims=True)),
    "elsewhere": lambda x, at: graphc.where(graphc.logical_not(at), x - graphc.max(x, 1, keepdims=True), x),
    "two selects": lambda x, at: (
        graphc.where(at, x, 1.0) - graphc.where(at, graphc.max(x, 1, keepdims=True), graphc.min(x, 1, keepdims=True))
    ),
    "two results": lambda x, at: [
        graphc.where(at, x, graphc.max(x, 1, keepdims=True)), x - graphc.max(x, 1, keepdims=True),
    ],
    "into its own memory": lambda x, at: graphc.where(at, x - graphc.max(x, 1, keepdims=True), x * 0.5) * 2,
    "and its sum": lambda x, at: [
        graphc.where(at, x, graphc.max(x, 1, keepdims=True)), graphc.max(graphc.where(at, x, 0.0), 1),
    ],
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("width", [1, 2, 17, 300])
@pytest.mark.parametrize("form", FORMS)
def test_same_bits_as_the_reference(form: str, width: int, dtype: str) -> None:
    x, place = graphc.placeholder((None, None), dtype, name="x"), graphc.placeholder((None,), "int64", name="place")
    at = graphc.equal(graphc.arange(x.shape[1]), graphc.expand_dims(place, 1))
    made = FORMS[form](x, at)
    fetches = made if isinstance(made, list) else [made]
    rng = np.random.default_rng(width)
    values = rng.integers(-50, 50, (40, width)).astype(dtype)
    values[3, 0], values[5, -1] = np.nan, np.inf
    places = rng.integers(-2, width + 2, 40)  # some are in no row: then nothing differs
    places[:2] = 0, width - 1
    with graphc.Session(device="reference") as session:
        expected = session.run(fetches, {x: values, place: places})
    for threads in (1, 2):
        with graphc.Session(threads=threads) as session:
            found = session.run(fetches, {x: values, place: places})
        for one, other in zip(found, expected, strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)


def peeled(fetches: Any) -> int:
    """Stages whose loop takes one place out."""
    with graphc.Session() as session:
        kernels = [c.kernel for c in session.compile(fetches).kernels if isinstance(c, LoopCall)]
    return sum(
        one_place(k, [(n, i) for n, i in stage if n in k.looped]) is not None for k in kernels for stage in k.numbered
    )


def test_the_gradient_of_a_cross_entropy_does_not_compare() -> None:
    x, labels = graphc.placeholder((None, 300), name="x"), graphc.placeholder((None,), "int64", name="labels")
    loss = graphc.nn.cross_entropy(x, labels)
    assert peeled([loss, graphc.gradients(loss, [x])[0]]) == 1
    columns = graphc.arange(300)
    assert peeled(graphc.where(columns == columns, x, graphc.max(x, 1, keepdims=True))) == 0
    assert peeled(graphc.where(columns < 3, x, graphc.max(x, 1, keepdims=True))) == 0


def test_label_out_of_range_is_an_error() -> None:
    x, labels = graphc.placeholder((None, 30), name="x"), graphc.placeholder((None,), "int64", name="labels")
    loss = graphc.nn.cross_entropy(x, labels)
    fetches = [loss, graphc.gradients(loss, [x])[0]]
    values = np.ones((4, 30), np.float32)
    with graphc.Session() as session:
        for wrong in (-1, 30, 2**40):
            with pytest.raises(GraphcError, match=str(wrong)):
                session.run(fetches, {x: values, labels: np.array([0, 1, wrong, 2])})
        gradient = session.run(fetches, {x: values, labels: np.array([0, 1, 29, 2])})[1]
    expected = np.full((4, 30), 1 / 30) / 4
    expected[np.arange(4), [0, 1, 29, 2]] -= 1 / 4
    np.testing.assert_allclose(gradient, expected, atol=1e-7)
