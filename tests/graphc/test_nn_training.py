"""What differs between learning and predicting: how a call says which it is, dropout; and embedding."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.errors import ArgumentError, DTypeError, IndexRangeError, ShapeError


@pytest.fixture(params=["reference", "cpu"])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Probe(nn.Module):
    def __init__(self) -> None:
        self.seen: list[bool] = []

    def forward(self, x: Any) -> Any:
        self.seen.append(self.training)
        return x


def test_the_nearest_call_says(device: str) -> None:
    inner = Probe()

    class Frozen(nn.Module):
        def __init__(self) -> None:
            self.inner = inner

        def forward(self, x: Any) -> Any:
            return self.inner(self.inner(x, training=False))

    nn.Sequential(inner, Frozen(), inner)(1, training=True)
    assert inner.seen == [True, False, True, True]
    inner.seen.clear()
    nn.Sequential(inner)(1, training=False)
    assert inner.seen == [False]


def test_nobody_said() -> None:
    for layer in (Probe(), nn.Dropout(), nn.BatchNorm(2), nn.Sequential(nn.Linear(2, 2), nn.Dropout())):
        with pytest.raises(ArgumentError, match=r"call the model with training=True or training=False, as in model\("):
            layer(graphc.placeholder((3, 2)))
    with pytest.raises(ArgumentError, match="Probe: training must be True or False, got 1"):
        Probe()(1, training=1)  # type: ignore[arg-type]


def test_what_was_said_ends_with_the_call() -> None:
    class Broken(nn.Module):
        def forward(self, x: Any) -> Any:
            raise KeyError(x)

    with pytest.raises(KeyError):
        Broken()(1, training=True)
    with pytest.raises(ArgumentError):
        Probe()(1)


# Dropout.


def test_dropout_scales_what_it_keeps(device: str) -> None:
    n, p = 100_000, 0.3
    x = graphc.placeholder((None, 10))
    layer = nn.Dropout(p)
    ones = np.ones((n // 10, 10), np.float32)
    with graphc.Session(device=device, seed=2) as session:
        found = session.run(layer(x, training=True), {x: ones})
        same = session.run(layer(x, training=False), {x: ones})
    assert set(np.unique(found).tolist()) == {0.0, float(np.float32(1 / 0.7))}
    assert abs((found == 0).mean() - p) < 5 * math.sqrt(p * (1 - p) / n)
    for axis in (0, 1):  # every row and column by itself
        kept = (found > 0).mean(axis)
        assert np.abs(kept - (1 - p)).max() < 6 * math.sqrt(p * (1 - p) / (n / kept.size))
    assert (same == 1).all()
    assert layer(x, training=False) is x
    assert repr(layer) == "Dropout(p=0.3)"


def test_dropout_has_one_mask_for_value_and_gradient(device: str) -> None:
    x = graphc.placeholder((64,))
    y = nn.dropout(x)
    slope = graphc.gradients(graphc.sum(y), x)
    data = np.linspace(1, 2, 64).astype(np.float32)
    state = graphc.parameter(0.0)
    with graphc.Session(device=device) as session:
        value, found = session.run([y, slope], {x: data})
        assert np.array_equal(value, data * found)
        assert set(found.tolist()) == {0.0, 2.0}
        assert np.array_equal(session.run(y, {x: data}), value)
        session.run(graphc.assign(state, 1.0))
        assert not np.array_equal(session.run(y, {x: data}), value)


def test_dropout_of_nothing_and_everything(device: str) -> None:
    x = graphc.placeholder((3,))
    bad = np.array([np.nan, np.inf, 1.0], np.float32)
    assert nn.dropout(x, 0.0) is x
    with graphc.Session(device=device) as session:
        y = nn.dropout(x, 1.0)
        assert session.run([y, graphc.gradients(y.sum(), x)], {x: bad})[1].tolist() == [0, 0, 0]
        assert session.run(y, {x: bad}).tolist() == [0, 0, 0]
        kept = [session.run(nn.dropout(x, 0.5, seed=s), {x: bad}) for s in range(8)]
    assert all(v[0] == 0 or np.isnan(v[0]) for v in kept)
    assert {float(v[2]) for v in kept} == {0.0, 2.0}


def test_dropout_of_everything_trains() -> None:
    """What a search over settings may ask for: no parameter moves."""
    w = graphc.parameter([1.0, 2.0], name="w")
    train = graphc.optim.SGD(0.1).minimize(graphc.sum(nn.Dropout(1.0)(w, training=True)))
    with graphc.Session(device="reference") as session:
        session.run(train)
        assert session.get(w).tolist() == [1, 2]


def test_dropout_layers_draw_apart_unless_told(device: str) -> None:
    x = graphc.placeholder((100,))
    own, other, fixed, again = nn.Dropout(), nn.Dropout(), nn.Dropout(seed=3), nn.Dropout(seed=3)
    masks = [layer(x, training=True) for layer in (own, other, fixed, again)]
    with graphc.Session(device=device) as session:
        found = session.run(masks, {x: np.ones(100, np.float32)})
    assert not np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])
    assert np.array_equal(found[2], found[3])


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan, True, "half"])
def test_dropout_refuses_what_is_no_probability(p: Any) -> None:
    with pytest.raises(ArgumentError, match="dropout: p must be a number from 0 to 1, got"):
        nn.dropout(graphc.placeholder((2,)), p)
    with pytest.raises(ArgumentError, match="Dropout: p must be a number from 0 to 1, got"):
        nn.Dropout(p)


# Embedding.


@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (0, 2)])
def test_embedding_takes_rows(device: str, shape: tuple[int, ...]) -> None:
    layer = nn.Embedding(7, 3, name="table")
    assert [p.name for p in layer.parameters()] == ["table.weight"]
    assert repr(layer) == "Embedding(rows=7, features=3)"
    places = np.random.default_rng(1).integers(0, 7, shape)
    x = graphc.placeholder(shape, dtype="int64")
    y = layer(x)
    slope = graphc.gradients(graphc.sum(y * 2.0), layer.weight)
    with graphc.Session(device=device) as session:
        found, gradient = session.run([y, slope], {x: places})
        table = session.get(layer.weight)
    assert np.array_equal(found, table[places])
    expected = np.zeros((7, 3), np.float32)
    np.add.at(expected, places, 2.0)
    assert np.array_equal(gradient, expected)


def test_embedding_starts_normal() -> None:
    layer = nn.Embedding(500, 40)
    with graphc.Session(device="reference") as session:
        table = session.get(layer.weight)
    assert abs(table.mean()) < 5 / math.sqrt(table.size)
    assert abs(table.var() - 1) < 5 * math.sqrt(2 / table.size)


@pytest.mark.parametrize("bad", [-1, 7])
def test_embedding_of_a_row_that_is_not_there(device: str, bad: int) -> None:
    x = graphc.placeholder((2,), dtype="int32", name="tokens")
    layer = nn.Embedding(7, 3)
    with graphc.Session(device=device) as session, pytest.raises(IndexRangeError, match=rf"(?s)found .*{bad}.*tokens"):
        session.run(layer(x), {x: [0, bad]})


def test_embedding_of_rows_that_are_known_not_to_be_there() -> None:
    """Negative indices do not count from the end."""
    for bad in (np.array([0, 7]), [-1]):
        with pytest.raises(IndexRangeError, match=r"^embedding at .*test_nn_training.*: indices must be 0 to 6, found"):
            nn.Embedding(7, 3)(bad)


def test_embedding_refuses_what_does_not_fit() -> None:
    layer = nn.Embedding(7, 3)
    with pytest.raises(DTypeError, match="embedding: indices are integers, got"):
        layer(graphc.placeholder((2,)))
    with pytest.raises(ShapeError, match="embedding: weight must be a matrix of rows"):
        nn.embedding(graphc.placeholder((2,), dtype="int64"), graphc.parameter(np.ones(3)))
    with pytest.raises(DTypeError, match="Embedding: dtype must be float32 or float64"):
        nn.Embedding(2, 2, dtype="int64")
