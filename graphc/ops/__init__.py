"""The ops, one family a file, and the functions that build their nodes."""

from __future__ import annotations

from graphc.ops.bitwise import (
    bitwise_and,
    bitwise_invert,
    bitwise_left_shift,
    bitwise_or,
    bitwise_right_shift,
    bitwise_xor,
)
from graphc.ops.comparison import (
    equal,
    greater,
    greater_equal,
    less,
    less_equal,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    not_equal,
    where,
)
from graphc.ops.creation import eye, full, linspace, ones, tril, triu, zeros
from graphc.ops.einsum import einsum, tensordot
from graphc.ops.elementwise import (
    abs,
    add,
    astype,
    clip,
    divide,
    maximum,
    minimum,
    multiply,
    negative,
    relu,
    sign,
    square,
    stop_gradient,
    subtract,
)
from graphc.ops.exponential import erf, erfc, exp, exp2, expm1, log, log1p, log2, log10, logaddexp, sigmoid, tanh
from graphc.ops.indexing import check_index, gather, one_hot, scatter_add, take, take_along_axis
from graphc.ops.joining import concat, split, stack, unstack
from graphc.ops.leaf import arange, constant, extent_value, full_like, ones_like, placeholder, zeros_like
from graphc.ops.linalg import diagonal, gemm_add, matmul, outer, trace, vecdot
from graphc.ops.philox import permutation, random_bits, random_key, run_counter
from graphc.ops.power import pow, reciprocal, rsqrt, sqrt
from graphc.ops.rearrange import flip, moveaxis, repeat, roll, tile
from graphc.ops.reduce import all, any, argmax, argmin, count_nonzero, max, mean, min, prod, std, sum, var
from graphc.ops.rounding import (
    ceil,
    copysign,
    floor,
    floor_divide,
    fmod,
    isfinite,
    isinf,
    isnan,
    remainder,
    round,
    signbit,
    trunc,
)
from graphc.ops.scan import cumulative_prod, cumulative_sum, linear_recurrence
from graphc.ops.shape import (
    broadcast_arrays,
    broadcast_to,
    expand_dims,
    matrix_transpose,
    permute_dims,
    reshape,
    squeeze,
)
from graphc.ops.slicing import pad, sliced
from graphc.ops.softmax import log_softmax, logsumexp, softmax
from graphc.ops.subscript import subscript
from graphc.ops.trigonometric import acos, acosh, asin, asinh, atan, atan2, atanh, cos, cosh, hypot, sin, sinh, tan

__all__ = [
    "abs", "acos", "acosh", "add", "all", "any", "arange", "argmax", "argmin", "asin", "asinh", "astype", "atan",
    "atan2", "atanh", "bitwise_and", "bitwise_invert", "bitwise_left_shift", "bitwise_or", "bitwise_right_shift",
    "bitwise_xor", "broadcast_arrays", "broadcast_to", "ceil", "check_index", "clip", "concat", "constant", "copysign",
    "cos", "cosh", "count_nonzero", "cumulative_prod", "cumulative_sum", "diagonal", "divide", "einsum", "equal", "erf",
    "erfc", "exp", "exp2", "expand_dims", "expm1", "extent_value", "eye", "flip", "floor", "floor_divide", "fmod",
    "full", "full_like", "gather", "gemm_add", "greater", "greater_equal", "hypot", "isfinite", "isinf", "isnan",
    "less", "less_equal", "linear_recurrence", "linspace", "log", "log1p", "log2", "log10", "log_softmax", "logaddexp",
    "logical_and", "logical_not", "logical_or", "logical_xor", "logsumexp", "matmul", "matrix_transpose", "max",
    "maximum", "mean", "min", "minimum", "moveaxis", "multiply", "negative", "not_equal", "one_hot", "ones",
    "ones_like", "outer", "pad", "permutation", "permute_dims", "placeholder", "pow", "prod", "random_bits",
    "random_key", "reciprocal", "relu", "remainder", "repeat", "reshape", "roll", "round", "rsqrt", "run_counter",
    "scatter_add", "sigmoid", "sign", "signbit", "sin", "sinh", "sliced", "softmax", "split", "sqrt", "square",
    "squeeze", "stack", "std", "stop_gradient", "subscript", "subtract", "sum", "take", "take_along_axis", "tan",
    "tanh", "tensordot", "tile", "trace", "tril", "triu", "trunc", "unstack", "var", "vecdot", "where", "zeros",
    "zeros_like",
]  # fmt: skip
