"""The ops, one family a file, and the functions that build their nodes."""

from __future__ import annotations

from graphc.ops.elementwise import (
    abs,
    add,
    astype,
    check_index,
    divide,
    equal,
    exp,
    expm1,
    greater,
    greater_equal,
    less,
    less_equal,
    log,
    log1p,
    logical_and,
    logical_not,
    logical_or,
    maximum,
    minimum,
    multiply,
    negative,
    not_equal,
    one_hot,
    pow,
    relu,
    sigmoid,
    sign,
    sqrt,
    square,
    stop_gradient,
    subtract,
    tanh,
    where,
)
from graphc.ops.leaf import arange, constant, extent_value, full_like, ones_like, placeholder, zeros_like
from graphc.ops.linalg import gemm_add, matmul
from graphc.ops.reduce import argmax, argmin, max, mean, min, sum
from graphc.ops.shape import broadcast_to, expand_dims, matrix_transpose, permute_dims, reshape, squeeze
from graphc.ops.softmax import log_softmax, logsumexp, softmax

__all__ = [
    "abs", "add", "arange", "argmax", "argmin", "astype", "broadcast_to", "check_index", "constant", "divide", "equal",
    "exp", "expand_dims", "expm1", "extent_value", "full_like", "gemm_add", "greater", "greater_equal", "less",
    "less_equal", "log", "log1p", "log_softmax", "logical_and", "logical_not", "logical_or", "logsumexp", "matmul",
    "matrix_transpose", "max", "maximum", "mean", "min", "minimum", "multiply", "negative", "not_equal", "one_hot",
    "ones_like", "permute_dims", "placeholder", "pow", "relu", "reshape", "sigmoid", "sign", "softmax", "sqrt",
    "square", "squeeze", "stop_gradient", "subtract", "sum", "tanh", "where", "zeros_like",
]  # fmt: skip
