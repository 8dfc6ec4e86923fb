"""Every naive form that a stabilising rule knows, as data: how it is written, where it breaks, what it should be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

import graphc as gc
from graphc.node import Tensor

Array = np.ndarray[Any, Any]
Function = Callable[[Array], Any]


@dataclass(frozen=True)
class Form:
    """``write`` makes the naive form of x; ``rule`` is the one that must fire (perhaps with others).

    ``points`` are float32 values of x at which the form as written fails, in its value or its gradient; there the
    result must be ``value`` and the gradient of its sum ``gradient``, functions of float64. ``mild`` is a range of x in
    which nothing fails. ``slack`` is the absolute error of a gradient that is a difference of numbers near 1.
    Forms that do not break are written more simply.
    """

    name: str
    rule: str
    write: Callable[[Tensor], Tensor]
    points: Any
    value: Function
    gradient: Function
    mild: tuple[float, float] = (-2.0, 2.0)
    slack: float = 0.0
    breaks: bool = True


def _softmax_gradient(x: Array, axis: Any = -1) -> Array:
    """Of the sum of log_softmax."""
    return 1 - special.softmax(x, axis) * np.prod([x.shape[a] for a in np.atleast_1d(axis)])


def _zeros(x: Array) -> Array:
    return np.zeros_like(x)


def _one_minus_exp_gradient(x: Array) -> Array:
    return np.exp(x) / np.expm1(x)


def _variance_gradient(x: Array) -> Array:
    return 2 * (x - x.mean(-1, keepdims=True)) / x.shape[-1]


def _shift(x: Tensor, *, keepdims: bool = True, stop: bool = False, axis: Any = -1) -> Tensor:
    largest = gc.max(x, axis, keepdims=keepdims)
    return gc.stop_gradient(largest) if stop else largest


def _shifted_logsumexp(x: Tensor, *, stop: bool) -> Tensor:
    m = _shift(x, stop=stop)
    return m + gc.log(gc.sum(gc.exp(x - m), -1, keepdims=True))


def _dropped_logsumexp(x: Tensor) -> Tensor:
    m = _shift(x, keepdims=False)
    return gc.log(gc.sum(gc.exp(x - gc.expand_dims(m, -1)), -1)) + m


def _squeezed_logsumexp(x: Tensor) -> Tensor:
    m = _shift(x, stop=True)
    return gc.squeeze(m, -1) + gc.log(gc.sum(gc.exp(x - m), -1))


def _written_out_softmax(x: Tensor) -> Tensor:
    return gc.exp(x - gc.max(x, -1, keepdims=True)) / gc.sum(
        gc.exp(x - gc.max(x, -1, keepdims=True)), -1, keepdims=True
    )


def _row_sums_restored(x: Tensor) -> Tensor:
    e = gc.exp(x)
    return e / gc.broadcast_to(gc.reshape(gc.sum(e, -1), (2, 1)), (2, 3))


def _cross_entropy_of(x: Tensor) -> Tensor:
    s = gc.sigmoid(x)
    return -(0.25 * gc.log(s) + (1 - 0.25) * gc.log(1 - s))


def _variance(x: Tensor, square: Callable[[Tensor], Tensor], *, keepdims: bool = False) -> Tensor:
    return gc.mean(square(x), -1, keepdims=keepdims) - square(gc.mean(x, -1, keepdims=keepdims))


def _own_mean(x: Tensor) -> Tensor:
    n = x.shape[-1]
    return gc.sum(x * x, -1) / n - (gc.sum(x, -1) / n) ** 2


NEAR_ONE = 4e-7  # four roundings of numbers below 1
ROWS = [[1e4, 0.0, -1e4], [-1e4, 1e4, 1e4]]
EQUAL_ROWS = [[1000.0, 1000.0, 0.0], [-1000.0, -1000.0, -1000.0]]
OFFSET = [[1e4 + 1, 1e4 + 2, 1e4 + 4], [-3e3, -3e3 + 0.5, -3e3 + 1]]
WIDE = [-1000.0, -90.0, 90.0, 1000.0]
TINY = [1e-10, -1e-12, 3e-8]


def _lse(x: Array, axis: Any = -1) -> Any:
    return special.logsumexp(x, axis)


def _soft(x: Array, axis: Any = -1) -> Any:
    return special.softmax(x, axis)


def _sech2(x: Array) -> Array:
    return 4 * special.expit(2 * x) * special.expit(-2 * x)


FORMS = [
    # log(softmax)
    Form("log(softmax)", "log_of_softmax", lambda x: gc.log(gc.softmax(x)), ROWS, lambda x: special.log_softmax(x, -1),
         _softmax_gradient, slack=NEAR_ONE),
    Form("log(softmax) through views", "log_of_softmax", lambda x: gc.log(gc.expand_dims(gc.softmax(x, 0), 1).mT[::-1]),
         np.array(ROWS).T, lambda x: special.log_softmax(x, 0)[::-1, :, None],
         lambda x: _softmax_gradient(x, 0), slack=NEAR_ONE),
    Form("log(softmax) of the wanted class", "log_of_softmax",
         lambda x: gc.log(gc.take_along_axis(gc.softmax(x), gc.constant([[2], [0]]), -1)), ROWS,
         lambda x: np.take_along_axis(special.log_softmax(x, -1), np.array([[2], [0]]), -1),
         lambda x: np.array([[0, 0, 1], [1, 0, 0]]) - _soft(x), slack=NEAR_ONE),
    Form("log(exp / sum(exp))", "softmax_by_hand", lambda x: gc.log(gc.exp(x) / gc.sum(gc.exp(x), -1, keepdims=True)),
         ROWS, lambda x: special.log_softmax(x, -1), _softmax_gradient, slack=NEAR_ONE),
    # log(sum(exp))
    Form("log(sum(exp))", "log_of_sum_of_exp", lambda x: gc.log(gc.sum(gc.exp(x), 1)), EQUAL_ROWS, _lse, _soft),
    Form("log(sum(exp)), keepdims", "log_of_sum_of_exp", lambda x: gc.log(gc.sum(gc.exp(x), 1, keepdims=True)),
         EQUAL_ROWS, lambda x: _lse(x)[:, None], _soft),
    Form("log of a view of sum(exp)", "log_of_sum_of_exp",
         lambda x: gc.log(gc.broadcast_to(gc.expand_dims(gc.sum(gc.exp(x), 1), 1), (2, 3))), EQUAL_ROWS,
         lambda x: np.broadcast_to(_lse(x)[:, None], x.shape), lambda x: 3 * _soft(x)),
    Form("log(sum(exp)) over all axes", "log_of_sum_of_exp", lambda x: gc.log(gc.sum(gc.exp(x))), EQUAL_ROWS,
         lambda x: _lse(x, None), lambda x: _soft(x, None)),
    Form("log(sum(exp)) over two axes of three, keepdims", "log_of_sum_of_exp",
         lambda x: gc.log(gc.sum(gc.exp(x), (0, 2), keepdims=True)), np.array([EQUAL_ROWS, ROWS]),
         lambda x: special.logsumexp(x, (0, 2), keepdims=True), lambda x: _soft(x, (0, 2))),
    Form("log(mean(exp))", "log_of_scaled_sum_of_exp", lambda x: gc.log(gc.mean(gc.exp(x), -1)), EQUAL_ROWS,
         lambda x: _lse(x) - np.log(3), _soft),
    Form("log(c * sum(exp))", "log_of_scaled_sum_of_exp", lambda x: gc.log(0.5 * gc.sum(gc.exp(x), -1)), EQUAL_ROWS,
         lambda x: _lse(x) - np.log(2), _soft),
    Form("m + log(sum(exp(x - m)))", "logsumexp_by_hand", lambda x: _shifted_logsumexp(x, stop=False),
         [[-np.inf, -np.inf, -np.inf], [1.0, 2.0, 3.0]], lambda x: _lse(x)[:, None],
         lambda x: np.vstack([np.full((1, 3), np.nan), _soft(x[1:])])),
    Form("m + log(sum(exp(x - m))), m stopped", "logsumexp_by_hand", lambda x: _shifted_logsumexp(x, stop=True),
         [[-np.inf, -np.inf, -np.inf], [1.0, 2.0, 3.0]], lambda x: _lse(x)[:, None],
         lambda x: np.vstack([np.full((1, 3), np.nan), _soft(x[1:])])),
    Form("log(sum(exp(x - m))) + m, axes dropped", "logsumexp_by_hand", _dropped_logsumexp,
         [[-np.inf, -np.inf, -np.inf], [1.0, 2.0, 3.0]], _lse,
         lambda x: np.vstack([np.full((1, 3), np.nan), _soft(x[1:])])),
    Form("squeeze(m) + log(sum(exp(x - m)))", "logsumexp_by_hand", _squeezed_logsumexp,
         [[-np.inf, -np.inf, -np.inf], [1.0, 2.0, 3.0]], _lse,
         lambda x: np.vstack([np.full((1, 3), np.nan), _soft(x[1:])])),
    Form("x - log(sum(exp))", "minus_logsumexp", lambda x: x - gc.log(gc.sum(gc.exp(x), -1, keepdims=True)), ROWS,
         lambda x: special.log_softmax(x, -1), _softmax_gradient, slack=NEAR_ONE),
    Form("x - log(sum(exp)), leading axis", "minus_logsumexp", lambda x: x - gc.log(gc.sum(gc.exp(x), 0)),
         np.array(ROWS).T, lambda x: special.log_softmax(x, 0), lambda x: _softmax_gradient(x, 0), slack=NEAR_ONE),
    Form("x - logsumexp over two axes of three", "minus_logsumexp",
         lambda x: x - gc.logsumexp(x, (0, 2), keepdims=True), np.array([ROWS, EQUAL_ROWS]),
         lambda x: special.log_softmax(x, (0, 2)), lambda x: _softmax_gradient(x, (0, 2)), slack=NEAR_ONE),
    Form("log(exp + exp)", "log_of_sum_of_two_exp", lambda x: gc.log(gc.exp(x) + gc.exp(3 * x)), WIDE,
         lambda x: np.logaddexp(x, 3 * x), lambda x: 1 + 2 * special.expit(2 * x)),
    # log near 1, sigmoid
    Form("log(1 + x)", "log_of_one_plus", lambda x: gc.log(1 + x), TINY, np.log1p, lambda x: 1 / (1 + x), (-0.8, 3.0)),
    Form("log(x + 1)", "log_of_one_plus", lambda x: gc.log(x + 1), TINY, np.log1p, lambda x: 1 / (1 + x), (-0.8, 3.0)),
    Form("log(x + ones)", "log_of_one_plus", lambda x: gc.log(x + gc.ones_like(x)), TINY, np.log1p,
         lambda x: 1 / (1 + x), (-0.8, 3.0)),
    Form("log(x + ones of more axes)", "log_of_one_plus",
         lambda x: gc.log(x + gc.constant(np.ones((2, 1), x.dtype))), TINY,
         lambda x: np.log1p(np.stack([x, x])), lambda x: 2 / (1 + x), (-0.8, 3.0)),
    Form("log of a view of 1 + x", "log_of_one_plus", lambda x: gc.log(gc.broadcast_to(1 + x, (2, 3))[:, 1:]), TINY,
         lambda x: np.log1p(np.stack([x, x])[:, 1:]), lambda x: 2 * np.array([0, 1, 1]) / (1 + x), (-0.8, 3.0)),
    Form("log(1 - x)", "log_of_one_minus", lambda x: gc.log(1 - x), TINY, lambda x: np.log1p(-x),
         lambda x: -1 / (1 - x), (-3.0, 0.8)),
    Form("log(1 + exp)", "log_of_one_plus", lambda x: gc.log(1 + gc.exp(x)), WIDE, lambda x: np.logaddexp(x, 0),
         special.expit),
    Form("log1p(exp)", "log1p_of_exp", lambda x: gc.log1p(gc.exp(x)), WIDE, lambda x: np.logaddexp(x, 0),
         special.expit),
    Form("log(1 - exp)", "log_of_minus_expm1", lambda x: gc.log(1 - gc.exp(x)), [-1e-10, -30.0, -100.0, -0.5],
         lambda x: np.where(x > -0.69, np.log(-np.expm1(x)), np.log1p(-np.exp(x))), _one_minus_exp_gradient,
         (-3.0, -0.1)),
    Form("log(sigmoid)", "log_of_sigmoid", lambda x: gc.log(gc.sigmoid(x)), WIDE, special.log_expit,
         lambda x: special.expit(-x)),
    Form("log(1 - sigmoid)", "one_minus_sigmoid", lambda x: gc.log(1 - gc.sigmoid(x)), WIDE,
         lambda x: special.log_expit(-x), lambda x: -special.expit(x)),
    Form("log1p(-sigmoid)", "log1p_of_exp", lambda x: gc.log1p(-gc.sigmoid(x)), WIDE, lambda x: special.log_expit(-x),
         lambda x: -special.expit(x)),
    Form("binary cross entropy", "log_of_sigmoid", _cross_entropy_of, WIDE,
         lambda x: -(0.25 * special.log_expit(x) + 0.75 * special.log_expit(-x)), lambda x: special.expit(x) - 0.25),
    Form("log(1 / (1 + exp(-x)))", "sigmoid_by_hand", lambda x: gc.log(1 / (1 + gc.exp(-x))), WIDE, special.log_expit,
         lambda x: special.expit(-x)),
    Form("log(exp)", "log_of_exp", lambda x: gc.log(gc.exp(x)), WIDE, lambda x: x, np.ones_like),
    # differences from 1
    Form("exp - 1", "exp_minus_one", lambda x: gc.exp(x) - 1, TINY, np.expm1, np.exp),
    Form("exp - ones of more axes", "exp_minus_one", lambda x: gc.exp(x) - gc.constant(np.ones((2, 1), x.dtype)), TINY,
         lambda x: np.expm1(np.stack([x, x])), lambda x: 2 * np.exp(x)),
    Form("-1 + exp", "minus_one_plus_exp", lambda x: -1 + gc.exp(x), TINY, np.expm1, np.exp),
    Form("1 - exp", "one_minus_exp", lambda x: 1 - gc.exp(x), TINY, lambda x: -np.expm1(x), lambda x: -np.exp(x)),
    Form("1 - sigmoid", "one_minus_sigmoid", lambda x: 1 - gc.sigmoid(x), [20.0, 40.0, 80.0],
         lambda x: special.expit(-x), lambda x: -special.expit(x) * special.expit(-x)),
    Form("1 - erf", "one_minus_erf", lambda x: 1 - gc.erf(x), [4.0, 6.0, 9.0], special.erfc,
         lambda x: -2 / np.sqrt(np.pi) * np.exp(-x * x)),
    Form("1 + erf", "one_plus_erf", lambda x: gc.erf(x) + 1, [-4.0, -6.0, -9.0], lambda x: special.erfc(-x),
         lambda x: 2 / np.sqrt(np.pi) * np.exp(-x * x)),
    Form("1 - tanh", "one_minus_tanh", lambda x: 1 - gc.tanh(x), [9.0, 15.0, 40.0], lambda x: 2 * special.expit(-2 * x),
         lambda x: -_sech2(x)),
    Form("1 + tanh", "one_plus_tanh", lambda x: 1 + gc.tanh(x), [-9.0, -15.0, -40.0],
         lambda x: 2 * special.expit(2 * x), _sech2),
    Form("1 - cos", "one_minus_cos", lambda x: 1 - gc.cos(x), [1e-4, -3e-5, 1e-10], lambda x: 2 * np.sin(x / 2) ** 2,
         np.sin),
    # quotients of exponentials
    Form("exp / sum(exp)", "softmax_by_hand", lambda x: gc.exp(x) / gc.sum(gc.exp(x), -1, keepdims=True), OFFSET, _soft,
         _zeros, slack=NEAR_ONE),
    Form("exp / sum(exp), leading axis", "softmax_by_hand", lambda x: gc.exp(x) / gc.sum(gc.exp(x), 0),
         np.array(OFFSET).T, lambda x: _soft(x, 0), _zeros, slack=NEAR_ONE),
    Form("exp / sum(exp), axis put back", "softmax_by_hand", _row_sums_restored, OFFSET, _soft, _zeros, slack=NEAR_ONE),
    Form("exp / sum(exp) over all axes", "softmax_by_hand", lambda x: gc.exp(x) / gc.sum(gc.exp(x)), OFFSET,
         lambda x: _soft(x, None), _zeros, slack=NEAR_ONE),
    Form("exp(x - m) / sum(exp(x - m))", "softmax_of_shifted", _written_out_softmax,
         ROWS, _soft, _zeros, slack=NEAR_ONE, breaks=False),
    Form("1 / (1 + exp(-x))", "sigmoid_by_hand", lambda x: 1 / (1 + gc.exp(-x)), WIDE, special.expit,
         lambda x: special.expit(x) * special.expit(-x)),
    Form("1 / (exp(x) + 1)", "sigmoid_by_hand", lambda x: 1 / (gc.exp(x) + 1), WIDE, lambda x: special.expit(-x),
         lambda x: -special.expit(x) * special.expit(-x)),
    Form("reciprocal(1 + exp(-x))", "sigmoid_by_hand", lambda x: gc.reciprocal(1 + gc.exp(-x)), WIDE, special.expit,
         lambda x: special.expit(x) * special.expit(-x)),
    Form("(1 + exp(-x)) ** -1", "sigmoid_by_hand", lambda x: (1 + gc.exp(-x)) ** -1, WIDE, special.expit,
         lambda x: special.expit(x) * special.expit(-x)),
    Form("exp(x) / (1 + exp(x))", "sigmoid_by_hand", lambda x: gc.exp(x) / (1 + gc.exp(x)), WIDE, special.expit,
         lambda x: special.expit(x) * special.expit(-x)),
    Form("x / (1 + exp(-x))", "over_one_plus_exp", lambda x: x / (1 + gc.exp(-x)), WIDE, lambda x: x * special.expit(x),
         lambda x: special.expit(x) * (1 + x * special.expit(-x))),
    Form("exp(x) / (1 + exp(3x))", "over_one_plus_exp", lambda x: gc.exp(x) / (1 + gc.exp(3 * x)), [60.0, -60.0, 1.0],
         lambda x: np.exp(x) * special.expit(-3 * x),
         lambda x: np.exp(x) * special.expit(-3 * x) * (1 - 3 * special.expit(3 * x))),
    Form("exp(x) / (exp(x) + exp(-2x))", "softmax_of_two", lambda x: gc.exp(x) / (gc.exp(x) + gc.exp(-2 * x)), WIDE,
         lambda x: special.expit(3 * x), lambda x: 3 * special.expit(3 * x) * special.expit(-3 * x)),
    Form("exp(x) / (exp(2x) + exp(x))", "softmax_of_two", lambda x: gc.exp(x) / (gc.exp(2 * x) + gc.exp(x)), WIDE,
         lambda x: special.expit(-x), lambda x: -special.expit(x) * special.expit(-x)),
    Form("tanh", "tanh_by_hand", lambda x: (gc.exp(x) - gc.exp(-x)) / (gc.exp(x) + gc.exp(-x)), WIDE, np.tanh, _sech2),
    Form("tanh, sum turned", "tanh_by_hand", lambda x: (gc.exp(x) - gc.exp(-x)) / (gc.exp(-x) + gc.exp(x)), WIDE,
         np.tanh, _sech2),
    Form("tanh by exp(2x)", "tanh_of_half", lambda x: (gc.exp(2 * x) - 1) / (gc.exp(2 * x) + 1), WIDE, np.tanh, _sech2),
    Form("tanh by exp(-2x)", "tanh_of_half", lambda x: (1 - gc.exp(-2 * x)) / (1 + gc.exp(-2 * x)), WIDE, np.tanh,
         _sech2),
    Form("sinh", "sinh_by_hand", lambda x: (gc.exp(x) - gc.exp(-x)) / 2, TINY, np.sinh, np.cosh),
    Form("sinh, half first", "sinh_by_hand", lambda x: 0.5 * (gc.exp(3 * x) - gc.exp(-3 * x)), TINY,
         lambda x: np.sinh(3 * x), lambda x: 3 * np.cosh(3 * x)),
    Form("exp(log_softmax)", "exp_of_log_softmax", lambda x: gc.exp(gc.log_softmax(x)), ROWS, _soft, _zeros,
         slack=NEAR_ONE, breaks=False),
    # moments
    Form("sqrt(x**2)", "root_of_square", lambda x: gc.sqrt(x**2), [0.0, -1e30, 1e-30], np.abs, np.sign),
    Form("sqrt(x * x)", "root_of_square", lambda x: gc.sqrt(x * x), [0.0, -1e30, 1e-30], np.abs, np.sign),
    Form("(x**2) ** 0.5", "root_of_square", lambda x: (x**2) ** 0.5, [0.0, -1e30, 1e-30], np.abs, np.sign),
    Form("mean(x**2) - mean(x)**2", "variance_by_two_passes", lambda x: _variance(x, gc.square), OFFSET,
         lambda x: x.var(-1), _variance_gradient),
    Form("mean(x * x) - mean(x) * mean(x), keepdims", "variance_by_two_passes",
         lambda x: _variance(x, lambda t: t * t, keepdims=True), OFFSET, lambda x: x.var(-1, keepdims=True),
         _variance_gradient),
    Form("sum(x * x) / n - (sum(x) / n)**2", "variance_by_two_passes", _own_mean, OFFSET, lambda x: x.var(-1),
         _variance_gradient),
    Form("covariance", "variance_by_two_passes",
         lambda x: gc.mean(x * (x / 2), -1) - gc.mean(x / 2, -1) * gc.mean(x, -1), OFFSET,
         lambda x: x.var(-1) / 2, lambda x: _variance_gradient(x) / 2),
]  # fmt: skip
