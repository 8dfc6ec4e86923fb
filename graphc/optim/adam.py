"""Adam, and AdamW with its decoupled weight decay."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from typing import Any

from graphc.dtypes import DType
from graphc.node import Tensor
from graphc.ops import expm1, log, maximum, sqrt, square
from graphc.optim.hyperparameters import Hyperparameter, fraction, in_dtype, not_negative
from graphc.optim.optimizer import LearningRate, Optimizer, Pairs, Step
from graphc.state import Update, assign


class Adam(Optimizer):
    """Adam (D. Kingma and J. Ba, ICLR 2015, algorithm 1), in PyTorch's formula.

        m' = beta1 * m + (1 - beta1) * g          v' = beta2 * v + (1 - beta2) * g**2
        w' = w - learning_rate * (m' / (1 - beta1**t)) / (sqrt(v' / (1 - beta2**t)) + epsilon)

    ``t`` counts steps from 1; ``g`` has the weight decay in it. Slots: ``<parameter>/adam_m`` and
    ``<parameter>/adam_v``, which start at 0, and one count ``<first parameter>/step`` for each call of ``minimize``.
    """

    _slots = ("adam_m", "adam_v")

    def __init__(
        self,
        learning_rate: LearningRate = 1e-3,
        beta1: Hyperparameter = 0.9,
        beta2: Hyperparameter = 0.999,
        epsilon: Hyperparameter = 1e-8,
        **shared: Any,
    ) -> None:
        super().__init__(learning_rate, **shared)
        name = type(self).__name__
        self.beta1 = fraction(beta1, f"{name}: beta1")
        self.beta2 = fraction(beta2, f"{name}: beta2")
        self.epsilon = not_negative(epsilon, f"{name}: epsilon")

    def updates(self, step: Step, pairs: Pairs) -> Iterable[Update]:
        scalars: dict[DType, tuple[Tensor, Tensor]] = {}
        for gradient, w in pairs:
            if w.dtype not in scalars:
                scalars[w.dtype] = self._scalars(step, w.dtype)
            rate, epsilon = scalars[w.dtype]
            beta1, beta2 = in_dtype(self.beta1, w.dtype), in_dtype(self.beta2, w.dtype)
            start, g = self._decayed(step, gradient, w)
            m, v = (step.slot(w, kind) for kind in self._slots)
            next_m = beta1 * m + (1 - beta1) * g
            next_v = beta2 * v + (1 - beta2) * square(g)
            yield assign(m, next_m)
            yield assign(v, next_v)
            yield assign(w, start - rate * next_m / (sqrt(next_v) + epsilon))

    def _decayed(self, step: Step, g: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """Where the step starts, and along which gradient."""
        return w, self.penalised(g, w)

    def _scalars(self, step: Step, dtype: DType) -> tuple[Tensor, Tensor]:
        """The learning rate and epsilon with the bias corrections in them, so that elements need none.

        Both sides of the quotient are multiplied by ``sqrt(1 - beta2**t)``.
        """
        t = step.number.astype(dtype)
        first, second = _correction(self.beta1, t), sqrt(_correction(self.beta2, t))
        return step.rate(dtype) * second / first, in_dtype(self.epsilon, dtype) * second


class AdamW(Adam):
    """Adam with decoupled weight decay (I. Loshchilov and F. Hutter, ICLR 2019), in PyTorch's formula.

    ``w`` is first made ``w * (1 - learning_rate * weight_decay)``; the step of Adam follows, along the gradient as it
    is. Slots: ``<parameter>/adamw_m``, ``<parameter>/adamw_v`` and the count.
    """

    _slots = ("adamw_m", "adamw_v")

    def __init__(
        self,
        learning_rate: LearningRate = 1e-3,
        beta1: Hyperparameter = 0.9,
        beta2: Hyperparameter = 0.999,
        epsilon: Hyperparameter = 1e-8,
        *,
        weight_decay: Hyperparameter = 1e-2,
        **shared: Any,
    ) -> None:
        super().__init__(learning_rate, beta1, beta2, epsilon, weight_decay=weight_decay, **shared)

    def _decayed(self, step: Step, g: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        return self.shrunk(step, w), g


def _correction(beta: Hyperparameter, t: Tensor) -> Tensor:
    """``1 - beta**t`` to a few rounding errors: beta**t alone would round near 1 and leave few digits.

    The logarithm of a number is taken in double precision; the smallest positive number stands for a beta of 0.
    """
    if isinstance(beta, Tensor):
        return -expm1(t * log(maximum(beta.astype(t.dtype), sys.float_info.min)))
    return -expm1(t * math.log(max(beta, sys.float_info.min)))
