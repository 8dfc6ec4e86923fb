"""RMSprop."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graphc.node import Tensor
from graphc.ops import maximum, sqrt, square
from graphc.optim.hyperparameters import Hyperparameter, fraction, in_dtype, not_negative
from graphc.optim.optimizer import LearningRate, Optimizer, Pairs, Step
from graphc.state import Update, assign


class RMSprop(Optimizer):
    """RMSprop (T. Tieleman and G. Hinton, "Neural networks for machine learning", lecture 6.5, 2012), in PyTorch's
    formula.

        s' = alpha * s + (1 - alpha) * g**2       w' = w - learning_rate * g / (sqrt(s') + epsilon)

    ``centered=True`` divides by the standard deviation (A. Graves, arXiv:1308.0850): with the mean
    ``a' = alpha * a + (1 - alpha) * g`` it is ``sqrt(s' - a'**2)``, where a difference that rounding made negative
    counts as 0. With ``momentum`` the quotient ``q`` is gathered first: ``b' = momentum * b + q``, then
    ``w' = w - learning_rate * b'``. ``g`` has the weight decay in it. Slots, which start at 0:
    ``<parameter>/rmsprop_square`` and, where needed, ``rmsprop_mean`` and ``rmsprop_momentum``.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 1e-2,
        alpha: Hyperparameter = 0.99,
        epsilon: Hyperparameter = 1e-8,
        momentum: Hyperparameter = 0.0,
        centered: bool = False,
        **shared: Any,
    ) -> None:
        super().__init__(learning_rate, **shared)
        name = type(self).__name__
        self.alpha = fraction(alpha, f"{name}: alpha")
        self.epsilon = not_negative(epsilon, f"{name}: epsilon")
        self.momentum = fraction(momentum, f"{name}: momentum")
        self.centered = centered

    def updates(self, step: Step, pairs: Pairs) -> Iterable[Update]:
        for gradient, w in pairs:
            g, alpha = self.penalised(gradient, w), in_dtype(self.alpha, w.dtype)
            s = step.slot(w, "rmsprop_square")
            variance = next_s = alpha * s + (1 - alpha) * square(g)
            yield assign(s, next_s)
            if self.centered:
                a = step.slot(w, "rmsprop_mean")
                next_a = alpha * a + (1 - alpha) * g
                yield assign(a, next_a)
                variance = maximum(next_s - square(next_a), 0.0)
            direction = g / (sqrt(variance) + in_dtype(self.epsilon, w.dtype))
            if isinstance(self.momentum, Tensor) or self.momentum:
                b = step.slot(w, "rmsprop_momentum")
                direction = in_dtype(self.momentum, w.dtype) * b + direction
                yield assign(b, direction)
            yield assign(w, w - step.rate(w.dtype) * direction)
