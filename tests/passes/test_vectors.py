"""Products with vectors: which become sums, and that they are the same products."""

from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from passes.vectors import LONG, WIDE

F32 = np.float32

# Shapes of both operands, whether each is stored transposed, and the kind of kernel.
FORMS: list[tuple[Any, Any, bool, bool, str]] = [
    ((700,), (700,), False, False, "LoopCall"),
    ((1, 7), (7, 1), False, False, "LoopCall"),
    ((1, "k"), ("k", 1), False, False, "LoopCall"),
    (("k", 1), (1, "n"), False, False, "LoopCall"),
    ((5, 1), (1, 1), False, False, "LoopCall"),
    ((0, 1), (1, 4), False, False, "LoopCall"),
    ((1, 0), (0, 1), False, False, "LoopCall"),
    ((3, LONG), (LONG,), False, False, "LoopCall"),
    ((3, LONG - 1), (LONG - 1, 1), False, False, "GemmCall"),
    (("n", LONG), (LONG, 1), False, True, "LoopCall"),
    ((3, "k"), ("k", 1), False, False, "GemmCall"),
    ((1, LONG), (LONG, 9), False, True, "LoopCall"),
    ((1, LONG), (LONG, 9), False, False, "GemmCall"),
    ((WIDE, "k"), ("k", 1), True, False, "LoopCall"),
    ((WIDE - 1, "k"), ("k", 1), True, False, "GemmCall"),
    ((1, "k"), ("k", WIDE), True, False, "LoopCall"),
    ((1, "k"), ("k", "n"), False, False, "GemmCall"),
    ((2, 4, 3, LONG), (2, 4, LONG, 1), False, False, "LoopCall"),
    ((2, 1, 1, LONG), (4, LONG, 5), False, True, "LoopCall"),
    ((3, 2, WIDE, 20), (20, 1), True, False, "GemmCall"),  # one matrix of all rows, which a transposed batch is not
    ((3, WIDE, 20), (3, 20, 1), True, False, "LoopCall"),
    ((2, 3), (3, 4), False, False, "GemmCall"),
]
SIZES = {"k": 41, "n": 6}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_the_product_and_its_gradients(form: Any, dtype: str) -> None:
    *shapes, trans_a, trans_b, kind = form
    rng, fed, operands = np.random.default_rng(0), {}, []
    for shape, turned, name in zip(shapes, (trans_a, trans_b), "ab", strict=True):
        stored = (*shape[:-2], *shape[:-3:-1]) if turned else shape
        x = graphc.placeholder(stored, name=name, dtype=dtype)
        fed[x] = rng.normal(size=[SIZES.get(extent, extent) for extent in stored]).astype(dtype)
        operands.append(x.mT if turned else x)
    value = operands[0] @ operands[1]
    fetches = [value, *graphc.gradients(graphc.sum(graphc.square(value)), list(fed))]
    with graphc.Session(threads=2) as session, graphc.Session(device="reference") as reference:
        for found, expected in zip(session.run(fetches, fed), reference.run(fetches, fed), strict=True):
            tolerance = 2 * (LONG + 1) * np.finfo(dtype).eps  # of a sum of so many products, relative to their sizes
            np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * 50, strict=True)
        kernels = {type(kernel).__name__ for kernel in session.compile(value).kernels}
    assert ("GemmCall" in kernels) == (kind == "GemmCall")


def test_values_that_are_not_finite_stay() -> None:
    a = np.array([[np.inf, 0.0, 1.0], [np.nan, 1.0, 1.0], [3e38, 3e38, 0.0]], F32)
    x = graphc.placeholder((3, 3), name="x")
    with graphc.Session() as session:
        dot, outer = session.run([x[:1] @ x[:, :1], x[:, :1] @ x[:1]], {x: a})
    np.testing.assert_array_equal(dot, [[np.nan]])
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(outer, a[:, :1] * a[:1])


def test_a_regression_is_loops_around_its_hidden_layer() -> None:
    """The head's product, and both of its gradients, are parts of other kernels."""
    x, y = graphc.placeholder(("n", 20), name="x"), graphc.placeholder(("n", 1), name="y")
    w = graphc.parameter(graphc.init.he_normal(), shape=(20, LONG), name="w")
    v = graphc.parameter(graphc.init.he_normal(), shape=(LONG, 1), name="v")
    loss = nn.mse_loss(nn.relu(x @ w) @ v, y)
    train = graphc.optim.SGD(1e-3).minimize(loss)
    with graphc.Session(threads=2) as session, graphc.Session(device="reference") as reference:
        step, expected = (s.compile([loss, train], feeds=[x, y]) for s in (session, reference))
        assert sum(type(kernel).__name__ == "GemmCall" for kernel in step.kernels) == 2  # with w, and its gradient
        for seed in range(5):
            data = np.random.default_rng(seed).normal(size=(32, 20)).astype(F32)
            np.testing.assert_allclose(step(data, data[:, :1])[0], expected(data, data[:, :1])[0], rtol=1e-4)


def test_integers_wrap_around_as_before() -> None:
    x = graphc.placeholder((300,), name="x", dtype="int8")
    value = np.full(300, 100, np.int8)
    with graphc.Session() as session:
        assert session.run(x @ x, {x: value}) == (value @ value)
