"""Adagrad and Adadelta."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graphc.dtypes import DType
from graphc.node import Tensor
from graphc.ops import sqrt, square
from graphc.optim.hyperparameters import Hyperparameter, fraction, in_dtype, not_negative, number
from graphc.optim.optimizer import LearningRate, Optimizer, Pairs, Step
from graphc.state import Update, assign


class Adagrad(Optimizer):
    """Adagrad (J. Duchi, E. Hazan and Y. Singer, JMLR 12, 2011), in PyTorch's formula.

        s' = s + g**2           w' = w - learning_rate * g / (sqrt(s') + epsilon)

    ``g`` has the weight decay in it. With ``decay`` the learning rate of step ``t``, counted from 1, is divided by
    ``1 + (t - 1) * decay``. The slot ``s`` is ``<parameter>/adagrad_sum``; it starts at ``initial_sum``.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 1e-2,
        decay: Hyperparameter = 0.0,
        initial_sum: float = 0.0,
        epsilon: Hyperparameter = 1e-10,
        **shared: Any,
    ) -> None:
        super().__init__(learning_rate, **shared)
        name = type(self).__name__
        self.decay = not_negative(decay, f"{name}: decay")
        self.initial_sum = number(initial_sum, f"{name}: initial_sum")
        self.epsilon = not_negative(epsilon, f"{name}: epsilon")

    def updates(self, step: Step, pairs: Pairs) -> Iterable[Update]:
        for gradient, w in pairs:
            g, s = self.penalised(gradient, w), step.slot(w, "adagrad_sum", self.initial_sum)
            next_s = s + square(g)
            yield assign(s, next_s)
            yield assign(w, w - self._rate(step, w.dtype) * g / (sqrt(next_s) + in_dtype(self.epsilon, w.dtype)))

    def _rate(self, step: Step, dtype: DType) -> Hyperparameter:
        rate = step.rate(dtype)
        if not isinstance(self.decay, Tensor) and self.decay == 0:
            return rate
        return rate / (1 + step.done.astype(dtype) * in_dtype(self.decay, dtype))


class Adadelta(Optimizer):
    """Adadelta (M. Zeiler, arXiv:1212.5701, algorithm 1), in PyTorch's formula.

        s' = rho * s + (1 - rho) * g**2           d = g * sqrt(u + epsilon) / sqrt(s' + epsilon)
        u' = rho * u + (1 - rho) * d**2           w' = w - learning_rate * d

    ``g`` has the weight decay in it. Slots, which start at 0: ``s`` is ``<parameter>/adadelta_square`` and ``u`` is
    ``<parameter>/adadelta_delta``.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 1.0,
        rho: Hyperparameter = 0.9,
        epsilon: Hyperparameter = 1e-6,
        **shared: Any,
    ) -> None:
        super().__init__(learning_rate, **shared)
        name = type(self).__name__
        self.rho = fraction(rho, f"{name}: rho")
        self.epsilon = not_negative(epsilon, f"{name}: epsilon")

    def updates(self, step: Step, pairs: Pairs) -> Iterable[Update]:
        for gradient, w in pairs:
            g, rho = self.penalised(gradient, w), in_dtype(self.rho, w.dtype)
            epsilon = in_dtype(self.epsilon, w.dtype)
            s, u = step.slot(w, "adadelta_square"), step.slot(w, "adadelta_delta")
            next_s = rho * s + (1 - rho) * square(g)
            delta = sqrt(u + epsilon) / sqrt(next_s + epsilon) * g
            yield assign(s, next_s)
            yield assign(u, rho * u + (1 - rho) * square(delta))
            yield assign(w, w - step.rate(w.dtype) * delta)
