"""Learning rates that follow the count of steps: functions of an int64 scalar tensor, the steps done so far.

An optimiser takes one as its ``learning_rate`` and gives it its own count, which starts at 0 and is saved with the
rest. They are computed in float64 and rounded once, to the dtype of the parameter. ``rate`` is a number or a float
scalar tensor. Any function from that count to a float scalar tensor is a schedule too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

from graphc.dtypes import float64
from graphc.node import Tensor
from graphc.ops import constant, cos, floor, less, maximum, minimum, pow, where
from graphc.optim.hyperparameters import Hyperparameter, not_negative, whole

Schedule: TypeAlias = Callable[[Tensor], Tensor]


def step_decay(rate: Hyperparameter, every: int, factor: Hyperparameter = 0.1) -> Schedule:
    """``rate * factor**(step // every)``: times ``factor`` after each ``every`` steps (PyTorch's StepLR)."""
    start, base = _scalar(rate, "step_decay: rate"), _scalar(factor, "step_decay: factor")
    length = whole(every, "step_decay: every")
    return lambda step: start * pow(base, floor(step.astype(float64) / length))


def exponential(rate: Hyperparameter, factor: Hyperparameter) -> Schedule:
    """``rate * factor**step`` (PyTorch's ExponentialLR)."""
    start, base = _scalar(rate, "exponential: rate"), _scalar(factor, "exponential: factor")
    return lambda step: start * pow(base, step.astype(float64))


def cosine(rate: Hyperparameter, steps: int, end: Hyperparameter = 0.0) -> Schedule:
    """From ``rate`` down to ``end`` along half a cosine in ``steps`` steps, and ``end`` from then on:
    ``end + (rate - end) * (1 + cos(pi * step / steps)) / 2`` (I. Loshchilov and F. Hutter, "SGDR", ICLR 2017,
    equation 5, without restarts).
    """
    start, last = _scalar(rate, "cosine: rate"), _scalar(end, "cosine: end")
    length = whole(steps, "cosine: steps")

    def schedule(step: Tensor) -> Tensor:
        turn = minimum(step.astype(float64), length) * (math.pi / length)
        return last + (start - last) * ((1 + cos(turn)) * 0.5)

    return schedule


def warmup(steps: int, then: Hyperparameter | Schedule, start: Hyperparameter = 0.0) -> Schedule:
    """In ``steps`` equal steps from ``start`` to where ``then`` begins, and on with ``then`` (P. Goyal et al.,
    arXiv:1706.02677): a number or tensor stays, a schedule is given the steps done since.

    ``warmup(500, cosine(1e-3, 9500))`` is a rise over 500 steps and a fall over 9500.
    """
    length, low = whole(steps, "warmup: steps"), _scalar(start, "warmup: start")
    rest = then if callable(then) and not isinstance(then, Tensor) else _always(_scalar(then, "warmup: then"))

    def schedule(step: Tensor) -> Tensor:
        top = rest(constant(0, "int64")).astype(float64)
        rise = low + (top - low) * (step.astype(float64) / length)
        return where(less(step, length), rise, rest(maximum(step - length, 0)).astype(float64))

    return schedule


def _always(rate: Tensor) -> Schedule:
    def schedule(step: Tensor) -> Tensor:
        return rate

    return schedule


def _scalar(value: Hyperparameter, what: str) -> Tensor:
    known = not_negative(value, what)
    return known.astype(float64) if isinstance(known, Tensor) else constant(known, float64)
