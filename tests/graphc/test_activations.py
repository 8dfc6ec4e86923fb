"""Activations: values and derivatives against formulas in extended precision, at arguments of every size."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import special

import graphc
from graphc import nn
from graphc.errors import ArgumentError

Array = np.ndarray[Any, Any]
Function = Callable[[Any], Any]
# Both sides of 0, of the kinks at 1, 3 and 6 without the kinks, of the limits of the gates, and the ends of float32.
SIZES = [
    1e-45, 1e-30, 1e-5, 0.3, 0.999, 1.7, 2.9, 3.1, 5.5, 6.5, 14.0, 17.5, 60.0, 87.0, 101.0, 127.5, 129.0, 800.0, 1e4,
    1e9, 1e19, 1e20, 1e30, 3e38,
]  # fmt: skip
POINTS = np.array([0.0, *SIZES, *(-s for s in SIZES)])


def sigmoid(x: Any) -> Any:
    return np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x)))


def softplus(x: Any) -> Any:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def density(x: Any) -> Any:
    return np.exp(-(np.minimum(np.abs(x), 1e3) ** 2) / 2) / math.sqrt(2 * math.pi)


def gated(x: Any, gate: Function) -> Any:
    """``x * gate(x)`` where the gate is neither 0 nor 1."""
    inner = np.clip(x, -1e3, 1e3)
    return np.where(np.abs(x) > 1e3, np.maximum(x, 0), inner * gate(inner))


def cumulative(x: Any) -> Any:
    return 0.5 * special.erfc(-np.asarray(x, np.float64) / math.sqrt(2))


def cubic(x: Any) -> Any:
    return math.sqrt(8 / math.pi) * (x + 0.044715 * x**3)


def gelu_slope(x: Any) -> Any:
    x = np.clip(x, -1e3, 1e3)
    return cumulative(x) + x * density(x)


def tanh_gelu_slope(x: Any) -> Any:
    x = np.clip(x, -1e3, 1e3)
    s = sigmoid(cubic(x))
    return s + x * s * sigmoid(-cubic(x)) * math.sqrt(8 / math.pi) * (1 + 3 * 0.044715 * x**2)


def silu_slope(x: Any) -> Any:
    x = np.clip(x, -1e3, 1e3)
    return sigmoid(x) * (1 + x * sigmoid(-x))


def mish_slope(x: Any) -> Any:
    x = np.clip(x, -1e3, 1e3)
    t = np.tanh(softplus(x))
    return t + x * sigmoid(x) / np.cosh(np.minimum(softplus(x), 500)) ** 2


def exponential(alpha: float, scale: float = 1.0, rate: float = 1.0) -> tuple[Function, Function]:
    """The ELU family: value and slope."""
    return (
        lambda x: scale * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0) / rate)),
        lambda x: scale * np.where(x > 0, 1, alpha / rate * np.exp(np.minimum(x, 0) / rate)),
    )


ALPHA, SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
# Function of graphc, value, slope, and whether the slope is exact relative to itself, or to 1.
TABLE: dict[str, tuple[Function, Function, Function, bool]] = {
    "relu6": (nn.relu6, lambda x: np.clip(x, 0, 6), lambda x: (x > 0) & (x < 6), True),
    "hardtanh": (nn.hardtanh, lambda x: np.clip(x, -1, 1), lambda x: np.abs(x) < 1, True),
    "hardtanh_of": (
        lambda x: nn.hardtanh(x, -2, 0.5), lambda x: np.clip(x, -2, 0.5), lambda x: (x > -2) & (x < 0.5), True,
    ),
    "hardsigmoid": (nn.hardsigmoid, lambda x: np.clip(x / 6 + 0.5, 0, 1), lambda x: (np.abs(x) < 3) / 6, True),
    "hardswish": (
        nn.hardswish, lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
        lambda x: np.where(x <= -3, 0, np.where(x < 3, x / 3 + 0.5, 1)), False,
    ),
    "leaky_relu": (nn.leaky_relu, lambda x: np.where(x > 0, x, 0.01 * x), lambda x: np.where(x > 0, 1, 0.01), True),
    "prelu": (
        lambda x: nn.prelu(x, np.float32(0.25)), lambda x: np.where(x > 0, x, 0.25 * x),
        lambda x: np.where(x > 0, 1, 0.25), True,
    ),
    "elu": (nn.elu, *exponential(1.0), True),
    "elu_of": (lambda x: nn.elu(x, 0.5), *exponential(0.5), True),
    "selu": (nn.selu, *exponential(ALPHA, SCALE), True),
    "celu": (nn.celu, *exponential(1.0), True),
    "celu_of": (lambda x: nn.celu(x, 2.0), *exponential(2.0, rate=2.0), True),
    "gelu": (nn.gelu, lambda x: gated(x, cumulative), gelu_slope, False),
    "gelu_tanh": (
        lambda x: nn.gelu(x, "tanh"), lambda x: gated(x, lambda t: sigmoid(cubic(t))), tanh_gelu_slope, False,
    ),
    "silu": (nn.silu, lambda x: gated(x, sigmoid), silu_slope, False),
    "mish": (nn.mish, lambda x: gated(x, lambda t: np.tanh(softplus(t))), mish_slope, False),
    "softplus": (nn.softplus, softplus, sigmoid, True),
    "softplus_of": (lambda x: nn.softplus(x, 3.0), lambda x: softplus(3 * x) / 3, lambda x: sigmoid(3 * x), True),
    "log_sigmoid": (nn.log_sigmoid, lambda x: -softplus(-x), lambda x: sigmoid(-x), True),
    "softsign": (nn.softsign, lambda x: x / (1 + np.abs(x)), lambda x: 1 / (1 + np.abs(x)) ** 2, True),
    "tanhshrink": (nn.tanhshrink, lambda x: x - np.tanh(x), lambda x: np.tanh(x) ** 2, False),
}  # fmt: skip
NAMES = list(TABLE)
# x - tanh(x) cancels below 1, and PyTorch's does: it is exact relative to x.
RELATIVE_TO_X = {"tanhshrink"}


@pytest.fixture(params=["reference", "cpu"])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def tolerance(function: Function, x: Array, dtype: str, floor: Array | float) -> Array:
    """Sixteen roundings of the result, and as many of the argument, carried to the result."""
    unit = 16 * float(np.finfo(dtype).eps)
    wide = x.astype(np.longdouble)
    moved = [np.asarray(function(wide * (1 + s)), np.longdouble) for s in (-unit, 0, unit)]
    # A gate below the least normal number is a multiple of the least of all, and x multiplies its error.
    least = 16 * float(np.finfo(dtype).smallest_subnormal) * np.minimum(1 + np.abs(wide), 1e3)
    return unit * (np.abs(moved[1]) + floor) + np.abs(moved[2] - moved[0]) + least


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_and_slopes(device: str, dtype: str) -> None:
    x = graphc.placeholder((None,), dtype=dtype)
    points = POINTS.astype(dtype)
    values = [TABLE[name][0](x) for name in NAMES]
    slopes = [graphc.gradients(v.sum(), x) for v in values]
    with graphc.Session(device=device) as session:
        found = [session.run([v, s], {x: points}) for v, s in zip(values, slopes, strict=True)]
    wide = points.astype(np.longdouble)
    problems = []
    for name, (value, slope) in zip(NAMES, found, strict=True):
        _, exact, exact_slope, relative = TABLE[name]
        floor = np.abs(wide) if name in RELATIVE_TO_X else 0
        with np.errstate(all="ignore"):
            pairs = (("value", value, exact, floor), ("slope", slope, exact_slope, float(not relative)))
            for what, got, function, least in pairs:
                assert got.dtype == np.dtype(dtype)
                wanted, allowed = np.asarray(function(wide)), tolerance(function, points, dtype, least)
                wrong = ~(np.abs(got - wanted) <= allowed)
                if wrong.any():
                    at = int(np.argmax(wrong))
                    problems.append(f"{name} {what} at {points[at]}: {got[at]}, not {wanted[at]} within {allowed[at]}")
    assert not problems, "\n".join(problems)


def test_derivatives_of_every_order_stay_finite(device: str) -> None:
    """Up to the third, at arguments of every size; beyond 800 those of the smooth ones are 0 from the second on."""
    x = graphc.placeholder((None,))
    points = POINTS.astype(np.float32)
    with graphc.Session(device=device) as session:
        for name in NAMES:
            target = TABLE[name][0](x)
            for order in (1, 2, 3):
                target = graphc.gradients(target.sum(), x, unreachable="zero")
                if device == "cpu" and order != 2:
                    continue  # the first is tested above, and kernels take long to compile
                found = session.run(target, {x: points})
                assert np.isfinite(found).all(), (name, order, points[~np.isfinite(found)])
                if order > 1:
                    assert np.abs(found[np.abs(points) >= 1e9]).max() < 1e-17, (name, order)


def test_infinities_and_nan(device: str) -> None:
    """The limits, with their slopes; a NaN stays one."""
    limits: dict[str, tuple[float, float]] = {
        "relu6": (0, 6), "hardtanh": (-1, 1), "hardsigmoid": (0, 1), "hardswish": (0, math.inf),
        "leaky_relu": (-math.inf, math.inf), "elu": (-1, math.inf), "celu": (-1, math.inf), "gelu": (0, math.inf),
        "gelu_tanh": (0, math.inf), "silu": (0, math.inf), "mish": (0, math.inf), "softplus": (0, math.inf),
        "log_sigmoid": (-math.inf, 0), "softsign": (-1, 1),
    }  # fmt: skip
    x = graphc.placeholder((3,))
    values = [TABLE[name][0](x) for name in limits]
    slopes = [graphc.gradients(v.sum(), x) for v in values]
    feed = {x: np.array([-np.inf, np.inf, np.nan], np.float32)}
    with graphc.Session(device=device) as session:
        found = session.run([values, slopes], feed)
    for (name, wanted), value, slope in zip(limits.items(), *found, strict=True):
        assert tuple(value[:2]) == wanted, name
        assert np.isnan(value[2]), name
        ends = [0.01 if name == "leaky_relu" else float(math.isinf(wanted[0])), float(math.isinf(wanted[1]))]
        np.testing.assert_allclose(slope[:2], ends, rtol=1e-6, err_msg=name)


def test_derivatives_agree_with_differences() -> None:
    """The first and second derivatives of the graph, in float64. See tests/registry/test_gradients.py for the bound."""
    x = graphc.placeholder((None,), dtype="float64")
    points = np.array([-7.3, -3.4, -2.1, -0.8, -0.21, 0.13, 0.7, 2.2, 3.6, 7.9])
    step = float(np.finfo(np.float64).eps) ** (1 / 3)
    with graphc.Session(device="reference") as session:
        for name in NAMES:
            target = TABLE[name][0](x)
            for order in (1, 2):
                slope = graphc.gradients(target.sum(), x, unreachable="zero")
                found = session.run(slope, {x: points})
                ends = [session.run(target, {x: points + s * step}) for s in (1, -1)]
                numeric = (ends[0] - ends[1]) / (2 * step)
                bound = 200 * step**2 * (1 + np.abs(ends[0]) + np.abs(numeric))
                assert (np.abs(found - numeric) <= bound).all(), (name, order, found - numeric)
                target = slope


def test_kinks_have_the_slope_of_pytorch() -> None:
    """At the kink itself: 0 of clamped ones, that of the left side elsewhere."""
    cases = {
        "relu6": {0: 0, 6: 0}, "hardtanh": {-1: 0, 1: 0}, "hardsigmoid": {-3: 0, 3: 0}, "hardswish": {-3: 0, 3: 1},
        "leaky_relu": {0: 0.01}, "prelu": {0: 0.25}, "elu_of": {0: 0.5}, "celu_of": {0: 1}, "softsign": {0: 1, 1: 0.25},
    }  # fmt: skip
    x = graphc.placeholder((None,), dtype="float64")
    with graphc.Session(device="reference") as session:
        for name, wanted in cases.items():
            slope = graphc.gradients(TABLE[name][0](x).sum(), x)
            np.testing.assert_allclose(session.run(slope, {x: list(wanted)}), list(wanted.values()), err_msg=name)


def test_prelu_learns_its_weight(device: str) -> None:
    x, w = graphc.placeholder((None, 2)), graphc.parameter([0.5, 0.25])
    y = nn.prelu(x, w)
    feed = {x: np.array([[-2.0, 3.0], [np.inf, -1.0], [-4.0, 0.0]], np.float32)}
    with graphc.Session(device=device) as session:
        value, slope = session.run([y, graphc.gradients(y.sum(), w)], feed)
    assert value.tolist() == [[-1.0, 3.0], [np.inf, -0.25], [-2.0, 0.0]]
    assert slope.tolist() == [-6.0, -1.0]


def test_small_arguments_keep_their_digits(device: str) -> None:
    """Where a naive form cancels: elu of -1e-9, gelu far below 0, log_sigmoid far above, softsign of 1e-9."""
    x = graphc.placeholder(())
    cases = [
        (nn.elu, -1e-9, -1e-9), (nn.gelu, -9.0, -9.0 * 0.5 * math.erfc(9 / math.sqrt(2))),
        (nn.log_sigmoid, 40.0, -math.exp(-40)), (nn.softsign, 1e-9, 1e-9), (nn.softplus, -40.0, math.exp(-40)),
        (nn.silu, -50.0, -50 * math.exp(-50)),
    ]  # fmt: skip
    with graphc.Session(device=device) as session:
        for function, at, wanted in cases:
            found = session.run(function(x), {x: at})
            assert abs(found - wanted) <= 64 * np.finfo(np.float32).eps * abs(wanted), function.__name__


def test_integers_become_float32() -> None:
    with graphc.Session(device="reference") as session:
        for name in NAMES:
            found = session.run(TABLE[name][0](graphc.constant(np.array([-2, 0, 5]))))
            assert found.dtype == np.float32, name
            np.testing.assert_allclose(found, TABLE[name][1](np.array([-2.0, 0.0, 5.0])), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nn.gelu(1.0, "erf"), "gelu: approximate must be 'none' or 'tanh', got 'erf'"),
        (lambda: nn.hardtanh(1.0, 2, 2), "hardtanh: low must be less than high, got low=2 and high=2"),
        (lambda: nn.celu(1.0, 0), "celu: alpha must be positive, got 0"),
        (lambda: nn.softplus(1.0, -1), "softplus: beta must be positive, got -1"),
    ],
)
def test_bad_arguments(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        make()


# Layers.


def test_layers_are_the_functions() -> None:
    pairs: list[tuple[nn.Module, Function]] = [
        (nn.ReLU(), nn.relu), (nn.ReLU6(), nn.relu6), (nn.LeakyReLU(0.2), lambda t: nn.leaky_relu(t, 0.2)),
        (nn.ELU(0.5), lambda t: nn.elu(t, 0.5)), (nn.SELU(), nn.selu), (nn.GELU(), nn.gelu),
        (nn.GELU("tanh"), lambda t: nn.gelu(t, "tanh")), (nn.SiLU(), nn.silu), (nn.Mish(), nn.mish),
        (nn.Softplus(2.0), lambda t: nn.softplus(t, 2.0)), (nn.Hardtanh(-2, 2), lambda t: nn.hardtanh(t, -2, 2)),
        (nn.Hardswish(), nn.hardswish), (nn.Tanh(), nn.tanh), (nn.Sigmoid(), nn.sigmoid),
        (nn.Softmax(0), lambda t: nn.softmax(t, 0)), (nn.LogSoftmax(), nn.log_softmax),
    ]  # fmt: skip
    x = graphc.placeholder((2, 3))
    feed = {x: np.array([[-2.0, 0.0, 0.5], [1.5, -7.0, 3.0]], np.float32)}
    with graphc.Session(device="reference") as session:
        ours = session.run([module(x) for module, _ in pairs], feed)
        theirs = session.run([function(x) for _, function in pairs], feed)
    for (module, _), a, b in zip(pairs, ours, theirs, strict=True):
        assert np.array_equal(a, b), repr(module)
        assert module.parameters() == []


def test_prelu_layer(device: str) -> None:
    layer = nn.PReLU(3, start=0.5, name="act")
    assert layer.weight.name == "act.weight"
    assert repr(layer) == "PReLU(count=3)"
    with graphc.Session(device=device) as session:
        assert session.run(layer(graphc.constant([[-2.0, 2.0, -4.0]]))).tolist() == [[-1.0, 2.0, -2.0]]
    with pytest.raises(graphc.errors.DTypeError, match="PReLU: dtype must be float32 or float64, got int32"):
        nn.PReLU(dtype="int32")


def test_layers_show_what_they_were_made_with() -> None:
    chain = nn.Sequential(nn.LeakyReLU(0.1), nn.GELU("tanh"), nn.Softmax(0), nn.Hardtanh(0, 1), nn.SiLU())
    assert repr(chain).split("\n")[1:-1] == [
        "  0: LeakyReLU(negative_slope=0.1)", "  1: GELU(approximate='tanh')", "  2: Softmax(axis=0)",
        "  3: Hardtanh(low=0, high=1)", "  4: SiLU()",
    ]  # fmt: skip
