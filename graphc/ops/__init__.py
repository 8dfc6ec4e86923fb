"""The ops, one family a file, and the functions that build their nodes."""

from __future__ import annotations

from graphc.ops.comparison import (
    equal,
    greater,
    greater_equal,
    less,
    less_equal,
    logical_and,
    logical_not,
    logical_or,
    not_equal,
    where,
)
from graphc.ops.elementwise import (
    abs,
    add,
    astype,
    divide,
    exp,
    expm1,
    log,
    log1p,
    maximum,
    minimum,
    multiply,
    negative,
    pow,
    relu,
    sigmoid,
    sign,
    sqrt,
    square,
    stop_gradient,
    subtract,
    tanh,
)
from graphc.ops.indexing import check_index, one_hot
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
