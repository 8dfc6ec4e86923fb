"""graphc: a define-then-run compiler for tensor programs.

Write a graph of placeholders and parameters, ask for gradients and updates, and let a session compile and run the whole
step. ``import graphc`` is the only import needed; what compiles and runs is loaded on first use.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Any

from graphc import _log, data, errors, hints, init, nn, optim, random
from graphc._version import __version__
from graphc.custom import custom_gradient
from graphc.dims import Dim, dim
from graphc.errors import GraphcError
from graphc.gradients import gradients
from graphc.node import Node, Tensor
from graphc.ops import (
    abs,
    acos,
    acosh,
    add,
    all,
    any,
    arange,
    argmax,
    argmin,
    asin,
    asinh,
    astype,
    atan,
    atan2,
    atanh,
    bitwise_and,
    bitwise_invert,
    bitwise_left_shift,
    bitwise_or,
    bitwise_right_shift,
    bitwise_xor,
    broadcast_arrays,
    broadcast_to,
    ceil,
    clip,
    concat,
    constant,
    copysign,
    cos,
    cosh,
    count_nonzero,
    cumulative_prod,
    cumulative_sum,
    diagonal,
    divide,
    einsum,
    equal,
    erf,
    erfc,
    exp,
    exp2,
    expand_dims,
    expm1,
    eye,
    flip,
    floor,
    floor_divide,
    fmod,
    full,
    full_like,
    greater,
    greater_equal,
    hypot,
    isfinite,
    isinf,
    isnan,
    less,
    less_equal,
    linspace,
    log,
    log1p,
    log2,
    log10,
    log_softmax,
    logaddexp,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    logsumexp,
    matmul,
    matrix_transpose,
    max,
    maximum,
    mean,
    min,
    minimum,
    moveaxis,
    multiply,
    negative,
    not_equal,
    one_hot,
    ones,
    ones_like,
    outer,
    pad,
    permute_dims,
    placeholder,
    pow,
    prod,
    reciprocal,
    relu,
    remainder,
    repeat,
    reshape,
    roll,
    round,
    rsqrt,
    sigmoid,
    sign,
    signbit,
    sin,
    sinh,
    softmax,
    split,
    sqrt,
    square,
    squeeze,
    stack,
    std,
    stop_gradient,
    subtract,
    sum,
    take,
    take_along_axis,
    tan,
    tanh,
    tensordot,
    tile,
    trace,
    tril,
    triu,
    trunc,
    unstack,
    var,
    vecdot,
    where,
    zeros,
    zeros_like,
)
from graphc.state import Update, assign, group, parameter

if TYPE_CHECKING:
    from passes import export
    from runtime.config import devices, show_config
    from runtime.session import Session


_LAZY = {
    "Session": ("runtime.session", "Session"),
    "devices": ("runtime.config", "devices"),
    "show_config": ("runtime.config", "show_config"),
    "export": ("passes.export", None),
}
__all__ = [
    "Dim", "GraphcError", "Node", "Session", "Tensor", "Update", "__version__", "abs", "acos", "acosh", "add", "all",
    "any", "arange", "argmax", "argmin", "asin", "asinh", "assign", "astype", "atan", "atan2", "atanh", "bitwise_and",
    "bitwise_invert", "bitwise_left_shift", "bitwise_or", "bitwise_right_shift", "bitwise_xor", "broadcast_arrays",
    "broadcast_to", "ceil", "clip", "concat", "constant", "copysign", "cos", "cosh", "count_nonzero", "cumulative_prod",
    "cumulative_sum", "custom_gradient", "data", "devices", "diagonal", "dim", "divide", "einsum", "equal", "erf",
    "erfc", "errors", "exp", "exp2", "expand_dims", "expm1", "export", "eye", "flip", "floor", "floor_divide", "fmod",
    "full", "full_like", "gradients", "greater", "greater_equal", "group", "hypot", "init", "isfinite", "isinf",
    "isnan", "less", "less_equal", "linspace", "log", "log1p", "log2", "log10", "log_softmax", "logaddexp",
    "logical_and", "logical_not", "logical_or", "logical_xor", "logsumexp", "matmul", "matrix_transpose", "max",
    "maximum", "mean", "min", "minimum", "moveaxis", "multiply", "negative", "nn", "not_equal", "one_hot", "ones",
    "ones_like", "optim", "outer", "pad", "parameter", "permute_dims", "placeholder", "pow", "prod", "random",
    "reciprocal", "relu", "remainder", "repeat", "reshape", "roll", "round", "rsqrt", "show_config", "sigmoid", "sign",
    "signbit", "sin", "sinh", "softmax", "split", "sqrt", "square", "squeeze", "stack", "std", "stop_gradient",
    "subtract", "sum", "take", "take_along_axis", "tan", "tanh", "tensordot", "tile", "trace", "tril", "triu", "trunc",
    "unstack", "var", "vecdot", "where", "zeros", "zeros_like",
]  # fmt: skip


_log.configure()


def _check_not_shadowed(package: str) -> None:
    """A user's own ``runtime.py`` beside their script hides ours: say so, with both files."""
    spec = importlib.util.find_spec(package)
    ours = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), package, "__init__.py")
    found = spec.origin if spec else None
    if found is None and spec is not None and spec.submodule_search_locations:
        found = next(iter(spec.submodule_search_locations), None)  # a folder without an __init__.py
    if found is None or not os.path.exists(found) or not os.path.samefile(found, ours):
        raise ImportError(
            f"graphc needs its own package {package!r}, but Python finds another of that name first:\n"
            f"    found:  {found}\n    needed: {ours}\n"
            f"  rename your file, or run from another folder",
            name=package,
        )


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise hints.missing(sys.modules[__name__], "graphc", name, __all__)
    module, attribute = _LAZY[name]
    for package in ("passes", "runtime"):
        _check_not_shadowed(package)
    loaded = importlib.import_module(module)
    value = getattr(loaded, attribute) if attribute else loaded
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
