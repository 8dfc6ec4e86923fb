"""What ``make fuzz`` has found, made small: wrong numbers, errors, and none where one was due."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.errors import DTypeError


def test_a_single_number_that_is_also_read_at_computed_indices() -> None:
    """It is in memory under another shape there, and cannot be computed again by that reader."""
    number = gc.parameter(np.float32(2.5), name="number")
    whole = gc.astype(number, "int64")
    padded = gc.pad(gc.expand_dims(whole, 0), ((1, 1),))
    for device in ("reference", "cpu"):
        with gc.Session(device) as sess:
            np.testing.assert_array_equal(sess.run(padded), [0, 2, 0])
            found = sess.run([padded, whole + 1, gc.assign(number, number * 2)])
            assert found[1] == 3


@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_an_extent_that_does_not_fit_the_dtype_that_it_meets(device: str) -> None:
    n = gc.dim("n")
    x = gc.placeholder((n,), "uint8", name="x")
    w = gc.parameter(np.zeros(3, "f4"), name="w")
    with gc.Session(device) as sess:
        fetches = [gc.max(x) * 0 + n, gc.assign(w, w + 1)]
        assert sess.run(fetches, {x: np.zeros(255, "u1")})[0] == 255
        with pytest.raises(DTypeError, match=r"extent n is 256 .* does not fit uint8"):
            sess.run(fetches, {x: np.zeros(256, "u1")})
        np.testing.assert_array_equal(sess.get(w), np.ones(3))


def test_parts_of_one_computed_tensor() -> None:
    """A part that begins at 0 is still a part: what computes the whole is not stored through it."""
    x = gc.placeholder((2, 3, 4), name="x")
    y = gc.erfc(x)
    long = gc.erfc(gc.placeholder((8,), name="long"))
    fetches = [y[:, 0, :], y[:, 1, :], y[:, 2, :], y, y[:, 1:], y[:, :-1], long[0:4], long[4:8]]
    rng = np.random.default_rng(0)
    feeds = {"x": rng.normal(size=(2, 3, 4)), "long": rng.normal(size=8)}
    expected = gc.Session("reference").run(fetches, feeds)
    for found, wanted in zip(gc.Session().run(fetches, feeds), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.parametrize("stop", [0, 1, 3])
def test_a_part_of_each_row_beside_a_sum_of_the_row(stop: int) -> None:
    x = gc.placeholder((64, 7), name="x")
    rows = np.random.default_rng(0).normal(size=(64, 7)).astype("f4")
    with gc.Session() as sess:
        total, part = sess.run([gc.logsumexp(x, axis=1, keepdims=True), x[:, 0:stop]], {x: rows})
    np.testing.assert_array_equal(part, rows[:, :stop])
    assert total.shape == (64, 1)


def test_a_check_in_an_epilogue_comes_before_every_update() -> None:
    x, t = gc.placeholder(("n", 4), name="x"), gc.placeholder(("n",), "int64", name="t")
    w = gc.parameter(np.ones((4, 3), "f4"), name="w")
    runs = gc.parameter(np.int64(0), name="runs")
    loss = gc.nn.cross_entropy(x @ w, t)
    with gc.Session() as sess:
        step = sess.compile([loss, gc.assign(runs, runs + 1), gc.optim.Adam().minimize(loss)], [x, t])
        with pytest.raises(gc.errors.IndexRangeError):
            step(np.ones((2, 4), "f4"), np.array([0, 3]))
        assert sess.get(runs) == 0
        np.testing.assert_array_equal(sess.get(w), np.ones((4, 3), "f4"))


def test_a_gather_beside_the_kernel_that_makes_its_source() -> None:
    """Both read one more tensor, by which they were merged although one waits for the other."""
    x = gc.placeholder((3, 5), "float64", name="x")
    part = x[:, 1:1]
    w = gc.tril(gc.stack([part, gc.tanh(part)])[6:, 6:], -1)
    g = gc.gradients(gc.sum(gc.tanh(gc.flip(w, 0)) * 0.7), x)
    with gc.Session() as sess:
        found = sess.run([w, g], {x: np.ones((3, 5))})
    assert [f.shape for f in found] == [(0, 0, 0), (3, 5)]
    np.testing.assert_array_equal(found[1], np.zeros((3, 5)))
