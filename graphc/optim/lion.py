"""Lion."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graphc.ops import sign
from graphc.optim.hyperparameters import Hyperparameter, fraction, in_dtype
from graphc.optim.optimizer import LearningRate, Optimizer, Pairs, Step
from graphc.state import Update, assign


class Lion(Optimizer):
    """Lion (X. Chen et al., "Symbolic discovery of optimization algorithms", NeurIPS 2023, algorithm 2).

        c = beta1 * m + (1 - beta1) * g           w' = w * (1 - learning_rate * weight_decay) - learning_rate * sign(c)
        m' = beta2 * m + (1 - beta2) * g

    The weight decay is decoupled from the gradient, as in AdamW. The slot ``m`` is ``<parameter>/lion_m``; it starts
    at 0.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 1e-4,
        beta1: Hyperparameter = 0.9,
        beta2: Hyperparameter = 0.99,
        **shared: Any,
    ) -> None:
        super().__init__(learning_rate, **shared)
        self.beta1 = fraction(beta1, f"{type(self).__name__}: beta1")
        self.beta2 = fraction(beta2, f"{type(self).__name__}: beta2")

    def updates(self, step: Step, pairs: Pairs) -> Iterable[Update]:
        for g, w in pairs:
            m = step.slot(w, "lion_m")
            beta1, beta2 = in_dtype(self.beta1, w.dtype), in_dtype(self.beta2, w.dtype)
            direction = sign(beta1 * m + (1 - beta1) * g)
            yield assign(w, self.shrunk(step, w) - step.rate(w.dtype) * direction)
            yield assign(m, beta2 * m + (1 - beta2) * g)
