"""Networks: modules, layers, activations and losses."""

from __future__ import annotations

from graphc.nn.layers import Linear, ReLU, Sequential, Sigmoid, Tanh
from graphc.nn.losses import cross_entropy, mse_loss
from graphc.nn.module import Module
from graphc.ops import log_softmax, logsumexp, relu, sigmoid, softmax, tanh

__all__ = [
    "Linear", "Module", "ReLU", "Sequential", "Sigmoid", "Tanh", "cross_entropy", "log_softmax", "logsumexp",
    "mse_loss", "relu", "sigmoid", "softmax", "tanh",
]  # fmt: skip
