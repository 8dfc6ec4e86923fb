"""The sum of a one-hot choice is computed at the one place that it takes, not at all of them."""

from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.errors import IndexRangeError
from passes.program import LoopCall, loops_of

F32 = np.float32


def operations(fetches: Any) -> list[str]:
    """The ops of all instructions of the step's loop kernels."""
    with gc.Session() as session:
        loops = [loop for call in session.compile(fetches).kernels for loop in loops_of(call)]
    return [i.op for loop in loops if isinstance(loop, LoopCall) for i in loop.kernel.instructions()]


def chosen(x: gc.Tensor, index: gc.Tensor, axis: int = -1) -> gc.Tensor:
    """``x`` at ``index`` along ``axis``, by a sum over a one-hot choice."""
    places = gc.arange(x.shape[axis])
    if axis == 0 and x.ndim == 2:
        places = gc.expand_dims(places, 1)
    elif x.ndim == 2:
        index = gc.expand_dims(index, 1)
    return gc.sum(gc.where(gc.equal(index, places), x * 2, 0), axis)


def agree(fetches: Any, feeds: dict[Any, Any]) -> list[np.ndarray]:
    with gc.Session() as cpu, gc.Session(threads=1) as one, gc.Session(device="reference") as reference:
        expected, found = reference.run(fetches, feeds), cpu.run(fetches, feeds)
        for mine, same, theirs in zip(found, one.run(fetches, feeds), expected, strict=True):
            np.testing.assert_array_equal(mine, same)
            np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
    return found


@pytest.mark.parametrize("shape", [(4, 3), (7, 255), (5, 257), (300, 1000), (0, 4)])
def test_only_one_element_is_read(shape: tuple[int, int]) -> None:
    """What is not chosen may be NaN or infinite."""
    rng = np.random.default_rng(0)
    x, index = gc.placeholder((None, shape[1]), name="x"), gc.placeholder((None,), "int64", name="index")
    fetched = chosen(x, index)
    assert operations(fetched).count("pick") == 1
    assert "reduce" not in operations(fetched)
    values, places = np.full(shape, np.nan, F32), rng.integers(0, shape[1], shape[0])
    values[:, ::2] = np.inf
    wanted = rng.normal(size=shape[0]).astype(F32)
    values[np.arange(shape[0]), places] = wanted
    (found,) = agree([fetched], {x: values, index: places})
    np.testing.assert_array_equal(found, wanted * 2)


def test_negative_zero_is_as_in_a_sum() -> None:
    x, index = gc.placeholder((None, 3), name="x"), gc.placeholder((None,), "int64", name="index")
    with gc.Session() as session:
        found = session.run(chosen(x, index), {x: np.full((2, 3), -0.0, F32), index: [0, 2]})
    assert not np.signbit(found).any()


def test_single_row_and_integers() -> None:
    """One row has no outer loop, in which a place could be known before the row begins."""
    rng = np.random.default_rng(1)
    x, index = gc.placeholder((500,), "int32", name="x"), gc.placeholder((), "int64", name="index")
    fetched = chosen(x, index, 0)
    for place in (0, 1, 255, 256, 499):
        agree([fetched], {x: rng.integers(-9, 9, 500).astype(np.int32), index: np.int64(place)})


def test_other_axes_and_other_sums_are_summed() -> None:
    x, index = gc.placeholder((6, 5), name="x"), gc.placeholder((5,), "int64", name="index")
    along_rows = chosen(x, index, 0)
    assert "pick" not in operations(along_rows)
    column = gc.placeholder((6, 1), "int64", name="column")
    not_zero = gc.sum(gc.where(gc.equal(column, gc.arange(5)), x, 1.0), 1)
    varying = gc.sum(gc.where(gc.equal(gc.astype(x, "int64"), gc.arange(5)), x, 0), 1)
    assert "pick" not in operations([not_zero, varying])
    values = np.arange(30, dtype=F32).reshape(6, 5) % 7
    agree(
        [along_rows, not_zero, varying],
        {x: values, index: [0, 5, 2, 1, 3], column: np.array([[0], [4], [9], [-1], [2], [3]])},
    )


def test_place_outside_gives_zero() -> None:
    """No check of the index is asked for here, so none fails."""
    x, place = gc.placeholder((None, 300), name="x"), gc.placeholder((None, 1), "int64", name="place")
    fetched = gc.sum(gc.where(gc.equal(place, gc.arange(300)), gc.exp(x), 0), 1)
    assert "pick" in operations(fetched)
    places = np.array([[-1], [300], [2**40], [-(2**63)], [299], [0]])
    (found,) = agree([fetched], {x: np.zeros((6, 300), F32), place: places})
    assert found.tolist() == [0, 0, 0, 0, 1, 1]


def test_cross_entropy_picks_and_checks_its_labels() -> None:
    x, labels = gc.placeholder((None, 40), name="x"), gc.placeholder((None,), "int64", name="labels")
    loss = gc.nn.cross_entropy(x, labels)
    fetched = [loss, gc.gradients(loss, x)]
    assert operations(fetched).count("pick") == 1
    rng = np.random.default_rng(2)
    values = rng.normal(size=(9, 40)).astype(F32)
    agree(fetched, {x: values, labels: rng.integers(0, 40, 9)})
    with gc.Session() as session, pytest.raises(IndexRangeError):
        session.run(fetched, {x: values, labels: [0, 1, 2, 3, 4, 5, 6, 7, 40]})
