"""Gradient descent, plain and with momentum."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graphc.optim.hyperparameters import Hyperparameter, fraction, in_dtype
from graphc.optim.optimizer import LearningRate, Optimizer, Pairs, Step
from graphc.state import Update, assign


class SGD(Optimizer):
    """Gradient descent: ``w' = w - learning_rate * g``, where ``g`` has the weight decay in it."""

    def updates(self, step: Step, pairs: Pairs) -> Iterable[Update]:
        return [assign(w, w - step.rate(w.dtype) * self.penalised(g, w)) for g, w in pairs]


class Momentum(Optimizer):
    """Gradient descent with momentum (B. Polyak, 1964), as in PyTorch's SGD.

        v' = momentum * v + g           w' = w - learning_rate * v'

    ``nesterov=True`` looks ahead: ``w' = w - learning_rate * (g + momentum * v')`` (I. Sutskever et al., ICML 2013).
    ``g`` has the weight decay in it. The slot ``v`` is ``<parameter>/momentum``; it starts at 0.
    """

    def __init__(
        self, learning_rate: LearningRate, momentum: Hyperparameter = 0.9, nesterov: bool = False, **shared: Any
    ) -> None:
        super().__init__(learning_rate, **shared)
        self.momentum = fraction(momentum, f"{type(self).__name__}: momentum")
        self.nesterov = nesterov

    def updates(self, step: Step, pairs: Pairs) -> Iterable[Update]:
        for gradient, w in pairs:
            g, v = self.penalised(gradient, w), step.slot(w, "momentum")
            momentum = in_dtype(self.momentum, w.dtype)
            moved = momentum * v + g
            yield assign(v, moved)
            yield assign(w, w - step.rate(w.dtype) * (g + momentum * moved if self.nesterov else moved))
