"""Layer norm, RMS norm and batch norm against NumPy in double precision, and what batch norm keeps."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.errors import ArgumentError, DTypeError, ShapeError

Array = np.ndarray[Any, Any]
EPS = float(np.finfo(np.float32).eps)
STEP = float(np.finfo(np.float64).eps) ** (1 / 3)


@pytest.fixture(params=["reference", "cpu"])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def sample(shape: tuple[int, ...], seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def normalised(x: Array, axes: tuple[int, ...], epsilon: float = 1e-5) -> Array:
    wide = x.astype(np.float64)
    found: Array = (wide - wide.mean(axes, keepdims=True)) / np.sqrt(wide.var(axes, keepdims=True) + epsilon)
    return found


def root_mean_square(x: Array, axes: tuple[int, ...], epsilon: float = EPS) -> Array:
    wide = x.astype(np.float64)
    found: Array = wide / np.sqrt((wide**2).mean(axes, keepdims=True) + epsilon)
    return found


def check_gradient(function: Callable[..., graphc.Tensor], arrays: list[Array]) -> None:
    """For every argument, of a weighted sum of the result, against central differences in float64."""
    inputs = [graphc.placeholder(a.shape, dtype="float64") for a in arrays]
    result = function(*inputs)
    weights = np.random.default_rng(9).uniform(0.5, 1.5, tuple(int(e) for e in result.shape))  # type: ignore[arg-type]
    target = (result * weights).sum()
    slopes = graphc.gradients(target, inputs)
    with graphc.Session(device="reference") as session:
        feeds = dict(zip(inputs, arrays, strict=True))
        for x, array, found in zip(inputs, arrays, session.run(slopes, feeds), strict=True):
            for place in np.ndindex(array.shape):
                ends = []
                for sign in (1, -1):
                    moved = array.copy()
                    moved[place] += sign * STEP
                    ends.append(float(session.run(target, {**feeds, x: moved})))
                numeric = (ends[0] - ends[1]) / (2 * STEP)
                assert abs(found[place] - numeric) <= 200 * STEP**2 * (1 + np.abs(weights).sum() + abs(numeric)), place


# Layer norm and RMS norm.


@pytest.mark.parametrize("axis", [-1, 0, 1, (1, 2), (0, 2), (-2, -1), (0, 1, 2)])
def test_functions(device: str, axis: Any) -> None:
    x, data = graphc.placeholder((4, 3, 5)), sample((4, 3, 5)) * 3 + 1
    axes = tuple(a % 3 for a in (axis if isinstance(axis, tuple) else (axis,)))
    shape = tuple(data.shape[a] for a in sorted(axes))
    weight, bias = sample(shape, 1), sample(shape, 2)
    aligned = [v.reshape([data.shape[a] if a in axes else 1 for a in range(3)]).astype(float) for v in (weight, bias)]
    with graphc.Session(device=device) as session:
        found = session.run(
            [
                nn.layer_norm(x, axis), nn.layer_norm(x, axis, weight, bias), nn.rms_norm(x, axis),
                nn.rms_norm(x, axis, weight), nn.layer_norm(x, axis, bias=bias, epsilon=0.5),
            ],
            {x: data},
        )  # fmt: skip
    expected = [
        normalised(data, axes), normalised(data, axes) * aligned[0] + aligned[1], root_mean_square(data, axes),
        root_mean_square(data, axes) * aligned[0], normalised(data, axes, 0.5) + aligned[1],
    ]  # fmt: skip
    for value, wanted in zip(found, expected, strict=True):
        assert value.dtype == np.float32
        # Sums of up to 60 terms in lanes, a root, a quotient, a product: within a dozen roundings of values up to 10.
        np.testing.assert_allclose(value, wanted, rtol=16 * EPS, atol=64 * EPS)


def test_a_large_mean_leaves_the_variance_its_digits(device: str) -> None:
    """The mean square less the squared mean would give about -600 to 600 here, for a variance near 1."""
    data = (1e5 + sample((6, 300))).astype(np.float32)
    x = graphc.placeholder((None, 300))
    with graphc.Session(device=device) as session:
        found = session.run(nn.layer_norm(x), {x: data})
    # The mean is rounded at 1e5, to 0.004, which shifts all results alike.
    assert np.abs(found - normalised(data, (1,))).max() < 0.02
    assert np.abs(found.std(axis=1) - 1).max() < 1e-3


def test_equal_and_extreme_rows(device: str) -> None:
    """A row without variance gives the bias, and finite slopes; so do rows near the ends of float32."""
    x = graphc.placeholder((None, 4))
    data = np.array([[3, 3, 3, 3], [0, 0, 0, 0], [1e-30, -1e-30, 0, 2e-30], [1e18, -1e18, 3e17, 0]], np.float32)
    value = nn.layer_norm(x, bias=np.ones(4, np.float32))
    slope = graphc.gradients((value * np.arange(4, dtype=np.float32)).sum(), x)
    with graphc.Session(device=device) as session:
        found, slopes = session.run([value, slope], {x: data})
        squares = session.run(nn.rms_norm(x), {x: data[:3]})
    assert (found[:2] == 1).all()
    assert np.isfinite(found).all()
    assert np.isfinite(slopes).all()
    np.testing.assert_allclose(found[3], normalised(data, (1,))[3] + 1, rtol=1e-5)
    assert np.isfinite(squares).all()


def test_gradients() -> None:
    x = sample((3, 4)).astype(np.float64)
    w, b = (sample((4,), s).astype(np.float64) for s in (1, 2))
    check_gradient(lambda t, u, v: nn.layer_norm(t, -1, u, v), [x, w, b])
    check_gradient(lambda t, u: nn.rms_norm(t, -1, u), [x, w])
    check_gradient(lambda t: nn.layer_norm(t, (0, 1)), [x])
    check_gradient(lambda t, u, v: nn.batch_norm(t, weight=u, bias=v, training=True), [x, w, b])
    mean, var = sample((4,), 3).astype(np.float64), np.abs(sample((4,), 4)).astype(np.float64) + 0.5
    check_gradient(lambda t, m, s, u, v: nn.batch_norm(t, m, s, u, v), [x, mean, var, w, b])


def test_layer_norm_needs_no_reshape() -> None:
    """Over trailing axes everything is a row-wise chain: reductions that keep their axes, and elementwise ops."""
    x = graphc.placeholder((None, 3, 4))
    weight = graphc.parameter(np.ones((3, 4), np.float32))
    pending, ops = [nn.layer_norm(x, (-2, -1), weight, weight).node], set()
    while pending:
        node = pending.pop()
        ops.add(node.op.name)
        assert node.attrs.get("keepdims", True)
        pending += [t.node for t in node.inputs]
    assert not ops & {"reshape", "expand_dims", "squeeze", "broadcast_to", "permute_dims"}


def test_layers(device: str) -> None:
    layer, plain = nn.LayerNorm((3, 4), name="norm"), nn.LayerNorm(4, affine=False)
    square, unbiased = nn.RMSNorm(4), nn.LayerNorm(4, bias=False)
    assert [(n, p.shape) for n, p in layer.named_parameters()] == [("weight", (3, 4)), ("bias", (3, 4))]
    assert layer.weight is not None
    assert layer.bias is not None
    assert layer.weight.name == "norm.weight"
    assert [n for n, _ in square.named_parameters()] == [n for n, _ in unbiased.named_parameters()] == ["weight"]
    assert plain.parameters() == []
    assert repr(layer) == "LayerNorm(shape=(3, 4), epsilon=1e-05)"
    assert repr(square) == "RMSNorm(shape=(4,), epsilon=None)"
    x, data = graphc.placeholder((None, 3, 4)), sample((2, 3, 4))
    with graphc.Session(device=device) as session:
        session.set(layer.weight, 2 * np.ones((3, 4)))
        session.set(layer.bias, np.ones((3, 4)))
        found = session.run([layer(x), plain(x), square(x)], {x: data})
    for value, wanted in zip(
        found, [2 * normalised(data, (1, 2)) + 1, normalised(data, (2,)), root_mean_square(data, (2,))], strict=True
    ):
        np.testing.assert_allclose(value, wanted, rtol=16 * EPS, atol=32 * EPS)
    assert nn.LayerNorm(2, dtype="float64").parameters()[0].dtype == np.float64


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda x: nn.LayerNorm(5)(x), ShapeError, r"LayerNorm: the last extents of the input must be \(5,\), got x: "),
        (lambda x: nn.RMSNorm((2, 3, 4))(x), ShapeError, r"RMSNorm: the last extents of the input must be \(2, 3, 4\)"),
        (lambda x: nn.layer_norm(x, weight=np.ones(5)), ShapeError, r"layer_norm: weight must .*\(4,\), got \(5,\)"),
        (lambda x: nn.layer_norm(x, bias=1.0), ShapeError, r"layer_norm: bias must have .*\(4,\), got \(\)"),
        (lambda x: nn.layer_norm(x, 2), ShapeError, "axis 2 does not exist"),
        (lambda x: nn.LayerNorm(4, dtype="int32"), DTypeError, "LayerNorm: dtype must be float32 or float64"),
        (lambda x: nn.batch_norm(x), ArgumentError, "without training=True it needs running_mean and running_var"),
        (lambda x: nn.batch_norm(x[0], training=True, axis=0), ShapeError, "needs an axis besides that of channels"),
        (lambda x: nn.batch_norm(x, np.ones(3), np.ones(4)), ShapeError, r"running_mean must .*\(4,\), got \(3,\)"),
        (lambda x: nn.BatchNorm(3)(x, training=True), ShapeError, r"batch_norm: weight must have .*\(4,\), got \(3,\)"),
    ],
)  # fmt: skip
def test_bad_arguments(make: Callable[[Any], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=f"(?s){words}"):
        make(graphc.placeholder(("n", 4), name="x"))


# Batch norm.


def test_batch_norm_of_a_batch(device: str) -> None:
    for shape, axis in (((6, 4), 1), ((3, 4, 5), 1), ((3, 5, 4), -1), ((2, 4, 3, 3), 1)):
        data = sample(shape) * 2 + 3
        others = tuple(a for a in range(len(shape)) if a != axis % len(shape))
        x = graphc.placeholder((None, *shape[1:]))
        weight, bias = sample((4,), 1), sample((4,), 2)
        form = [4 if a == axis % len(shape) else 1 for a in range(len(shape))]
        with graphc.Session(device=device) as session:
            value = nn.batch_norm(x, weight=weight, bias=bias, training=True, axis=axis)
            found = session.run(value, {x: data})
        expected = normalised(data, others) * weight.reshape(form) + bias.reshape(form)
        np.testing.assert_allclose(found, expected, rtol=32 * EPS, atol=64 * EPS)


def test_batch_norm_by_running_values(device: str) -> None:
    data, mean, var = sample((5, 4)), sample((4,), 1), np.abs(sample((4,), 2)) + 0.1
    x = graphc.placeholder((None, 4))
    with graphc.Session(device=device) as session:
        found = session.run(nn.batch_norm(x, mean, var, epsilon=1e-3), {x: data})
    expected = (data.astype(np.float64) - mean) / np.sqrt(var.astype(np.float64) + 1e-3)
    np.testing.assert_allclose(found, expected, rtol=16 * EPS, atol=16 * EPS)


def test_batch_norm_learns_and_predicts(device: str) -> None:
    """PyTorch's BatchNorm over three batches of different sizes, transcribed."""
    layer = nn.BatchNorm(4, momentum=0.3, name="bn")
    names = [p.name for p in layer.parameters()]
    assert names == ["bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"]
    x = graphc.placeholder((None, 4))
    y = layer(x, training=True)
    loss = graphc.sum(graphc.square(y))
    train = graphc.group(graphc.optim.SGD(0.1).minimize(loss), layer.updates(loss))
    predicted = layer(x, training=False)
    mean, var = np.zeros(4), np.ones(4)
    with graphc.Session(device=device) as session:
        for seed, rows in enumerate((5, 2, 9)):
            data = sample((rows, 4), seed) * 2 + 1
            found, _ = session.run([y, train], {x: data})
            wide = data.astype(np.float64)
            if seed == 0:
                np.testing.assert_allclose(found, normalised(data, (0,)), rtol=32 * EPS, atol=32 * EPS)
            mean = 0.7 * mean + 0.3 * wide.mean(0)
            var = 0.7 * var + 0.3 * wide.var(0, ddof=1)
            np.testing.assert_allclose(session.get(layer.running_mean), mean, rtol=32 * EPS, atol=32 * EPS)
            np.testing.assert_allclose(session.get(layer.running_var), var, rtol=32 * EPS)
        weight, bias = session.get(layer.weight), session.get(layer.bias)
        assert not np.allclose(weight, 1)
        found = session.run(predicted, {x: data})
        expected = (wide - mean) / np.sqrt(var + 1e-5) * weight + bias
        np.testing.assert_allclose(found, expected, rtol=64 * EPS, atol=64 * EPS)


def test_one_sample_has_no_variance(device: str) -> None:
    layer = nn.BatchNorm(2)
    x = graphc.placeholder((None, 2))
    y = layer(x, training=True)
    update = layer.updates(y)
    with graphc.Session(device=device) as session:
        found, _ = session.run([y, update], {x: [[5.0, -3.0]]})
        assert found.tolist() == [[0.0, 0.0]]
        np.testing.assert_allclose(session.get(layer.running_var), [0.9, 0.9], rtol=EPS)


def test_updates_follow_the_loss(device: str) -> None:
    """Only the calls that the loss is made of; two of them move the running values one after the other."""
    layer = nn.BatchNorm(2, affine=False)
    x, y, z = (graphc.placeholder((None, 2)) for _ in range(3))
    both = graphc.sum(layer(x, training=True)) + graphc.sum(layer(y, training=True))
    alone = graphc.sum(layer(z, training=True))
    data = [sample((4, 2), s) for s in range(3)]
    means = [d.astype(np.float64).mean(0) for d in data]
    with graphc.Session(device=device) as session:
        session.run(layer.updates(both), {x: data[0], y: data[1]})
        mean = 0.9 * 0.1 * means[0] + 0.1 * means[1]
        np.testing.assert_allclose(session.get(layer.running_mean), mean, rtol=16 * EPS, atol=16 * EPS)
        session.run(layer.updates(alone), {z: data[2]})
        mean = 0.9 * mean + 0.1 * means[2]
        np.testing.assert_allclose(session.get(layer.running_mean), mean, rtol=16 * EPS, atol=16 * EPS)
    gradient = graphc.gradients(alone, z)
    assert len(layer.updates(graphc.sum(gradient)).assigns) == 2
    assert layer.updates(graphc.sum(layer(x, training=False))).assigns == ()


def test_updates_of_a_model_are_those_of_its_layers(device: str) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm(4), nn.relu, nn.Sequential(nn.BatchNorm(4), nn.Linear(4, 1)))
    x = graphc.placeholder((None, 3))
    loss = graphc.mean(graphc.square(model(x, training=True)))
    update = model.updates(loss)
    names = [a.inputs[0].name.rpartition(".")[2] for a in update.assigns]
    assert names == ["running_mean", "running_var"] * 2
    assert all(a.role == "update" for a in update.assigns)
    step = graphc.group(graphc.optim.Adam(1e-2).minimize(loss, model), update)
    with graphc.Session(device=device) as session:
        first = session.run([loss, step], {x: sample((16, 3))})[0]
        for _ in range(30):
            last = session.run([loss, step], {x: sample((16, 3))})[0]
        assert last < first
        assert all(np.isfinite(session.get(p)).all() for p in model.parameters())


def test_batches_are_not_kept_alive_and_not_copied() -> None:
    layer = nn.BatchNorm(2)
    x = graphc.placeholder((None, 2))
    y = layer(x, training=True)
    assert copy.deepcopy(layer).updates(y).assigns == ()
    assert len(layer.updates(y).assigns) == 2
    node = weakref.ref(y.node)
    del y
    gc.collect()
    assert node() is None
