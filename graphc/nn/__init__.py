"""Networks: modules, layers, activations, norms and losses."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NoReturn

from graphc.hints import missing
from graphc.nn.activation_layers import (
    ELU,
    GELU,
    SELU,
    Hardswish,
    Hardtanh,
    LeakyReLU,
    LogSoftmax,
    Mish,
    PReLU,
    ReLU,
    ReLU6,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from graphc.nn.activations import (
    celu,
    elu,
    gelu,
    hardsigmoid,
    hardswish,
    hardtanh,
    leaky_relu,
    log_sigmoid,
    mish,
    prelu,
    relu6,
    selu,
    silu,
    softplus,
    softsign,
    tanhshrink,
)
from graphc.nn.classification import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    nll_loss,
)
from graphc.nn.functional import dropout, embedding
from graphc.nn.layers import Dropout, Embedding, Linear, Sequential
from graphc.nn.losses import (
    cosine_embedding_loss,
    cosine_similarity,
    hinge_embedding_loss,
    huber_loss,
    kl_div,
    l1_loss,
    mse_loss,
    smooth_l1_loss,
)
from graphc.nn.module import Module
from graphc.nn.norms import BatchNorm, LayerNorm, RMSNorm, batch_norm, layer_norm, rms_norm
from graphc.ops import log_softmax, logsumexp, relu, sigmoid, softmax, tanh

__all__ = [
    "ELU", "GELU", "SELU", "BatchNorm", "Dropout", "Embedding", "Hardswish", "Hardtanh", "LayerNorm", "LeakyReLU",
    "Linear", "LogSoftmax", "Mish", "Module", "PReLU", "RMSNorm", "ReLU", "ReLU6", "Sequential", "SiLU", "Sigmoid",
    "Softmax", "Softplus", "Tanh", "batch_norm", "binary_cross_entropy", "binary_cross_entropy_with_logits", "celu",
    "cosine_embedding_loss", "cosine_similarity", "cross_entropy", "dropout", "elu", "embedding", "gelu", "hardsigmoid",
    "hardswish", "hardtanh", "hinge_embedding_loss", "huber_loss", "kl_div", "l1_loss", "layer_norm", "leaky_relu",
    "log_sigmoid", "log_softmax", "logsumexp", "mish", "mse_loss", "nll_loss", "prelu", "relu", "relu6", "rms_norm",
    "selu", "sigmoid", "silu", "smooth_l1_loss", "softmax", "softplus", "softsign", "tanh", "tanhshrink",
]  # fmt: skip


if not TYPE_CHECKING:  # a type checker shall find fault with unknown names itself

    def __getattr__(name: str) -> NoReturn:
        raise missing(sys.modules[__name__], "graphc.nn", name, __all__)
