"""The scalar expression builder: the vocabulary in which an op says what it does to one element.

An op's ``emit`` rule is a function of a :class:`Builder`, for example ``lambda b, a, x, y: b.mul(x, y)``. Three
builders exist: the loop IR's (``passes/loop_ir.py``), which CPU and CUDA printers turn into source, and the one here
that evaluates with NumPy, which is the plain Python meaning of every primitive.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from graphc.dtypes import DType

V = TypeVar("V")

ARITHMETIC = (
    "add", "sub", "mul", "div", "pow", "maximum", "minimum", "floordiv", "mod", "fmod", "atan2", "hypot", "copysign",
)  # fmt: skip
COMPARISON = ("lt", "le", "gt", "ge", "eq", "ne")
LOGICAL = ("and_", "or_", "xor")
BITWISE = ("bitand", "bitor", "bitxor", "shl", "shr")
UNARY = (
    "neg", "abs", "sqrt", "floor", "ceil", "trunc", "round", "exp", "exp2", "expm1", "log", "log1p", "log2", "log10",
    "sigmoid", "erf", "erfc", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh",
    "atanh",
)  # fmt: skip


class Builder(Protocol[V]):
    """Primitives over values of type ``V``, each of one dtype.

    Arithmetic takes operands of one dtype and returns it; comparisons return bool; ``select(c, x, y)`` takes a bool
    and two values of one dtype; ``fma(x, y, z)`` is ``x*y + z`` rounded once, the only contraction there is.
    ``maximum`` and ``minimum`` propagate NaN; ``floordiv``, ``mod`` and ``fmod`` of integers give 0 for a divisor of
    0; ``pow`` of integers with a negative exponent is ``1 / x**-y`` without its fraction. ``index(axis)`` is the
    element's position along an axis of the op's result, int64; ``flat_index()`` its position in C order.
    ``guard(bad)`` reports the node as failed when ``bad`` is true for any element. ``load(source, indices, mask)``
    reads an element of the op's first input, in memory, at an int64 index for each of its axes, and gives 0 where the
    mask is false. Bitwise primitives take integers of one dtype; a shift by the width or more gives 0 (or the sign).
    """

    def dtype(self, x: V) -> DType: ...
    def const(self, value: float | int | bool, dtype: DType) -> V: ...
    def cast(self, x: V, dtype: DType) -> V: ...
    def unary(self, name: str, x: V) -> V: ...
    def binary(self, name: str, x: V, y: V) -> V: ...
    def compare(self, name: str, x: V, y: V) -> V: ...
    def not_(self, x: V) -> V: ...
    def select(self, condition: V, x: V, y: V) -> V: ...
    def fma(self, x: V, y: V, z: V) -> V: ...
    def index(self, axis: int) -> V: ...
    def flat_index(self) -> V: ...
    def load(self, source: Any, indices: Sequence[V], mask: V | None = None) -> V: ...
    def extent(self, key: str) -> V: ...
    def guard(self, bad: V) -> None: ...


class Primitives:
    """Short spellings of the named primitives, mixed into every builder: ``b.mul(x, y)``, ``b.exp(x)``."""

    def add(self: Builder[V], x: V, y: V) -> V:
        return self.binary("add", x, y)

    def sub(self: Builder[V], x: V, y: V) -> V:
        return self.binary("sub", x, y)

    def mul(self: Builder[V], x: V, y: V) -> V:
        return self.binary("mul", x, y)

    def div(self: Builder[V], x: V, y: V) -> V:
        return self.binary("div", x, y)

    def literal(self: Builder[V], like: V, value: float | int) -> V:
        """``value`` in the dtype of ``like``."""
        return self.const(value, self.dtype(like))


def sigmoid(x: Any) -> Any:
    """Logistic function of a NumPy array, without overflow: ``exp(min(x, 0)) / (1 + exp(-|x|))``."""
    return np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x)))


def _by_library(function: Callable[[float], float]) -> Callable[[Any], Any]:
    """A function of floats, for the elements of a NumPy array."""

    def elementwise(x: Any) -> Any:
        x = np.asarray(x)
        return np.fromiter((function(v) for v in x.ravel()), x.dtype, x.size).reshape(x.shape)

    return elementwise


erf, erfc = _by_library(math.erf), _by_library(math.erfc)


def power(x: Any, y: Any) -> Any:
    """``x ** y``. NumPy refuses negative integer exponents; here the result is the true power without its fraction,
    and 0 for 0 to a negative power.
    """
    if np.asarray(y).dtype.kind != "i":
        return np.power(x, y)
    small = np.where(x == 1, 1, np.where(x == -1, 1 - 2 * (y & 1), 0)).astype(np.asarray(x).dtype)
    return np.where(y < 0, small, np.power(x, np.maximum(y, 0)))


_NUMPY_UNARY: dict[str, Any] = {
    "neg": np.negative, "abs": np.abs, "sqrt": np.sqrt, "floor": np.floor, "ceil": np.ceil, "trunc": np.trunc,
    "round": np.rint, "exp": np.exp, "exp2": np.exp2, "expm1": np.expm1, "log": np.log, "log1p": np.log1p,
    "log2": np.log2, "log10": np.log10, "sigmoid": sigmoid, "erf": erf, "erfc": erfc, "sin": np.sin, "cos": np.cos,
    "tan": np.tan, "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "sinh": np.sinh, "cosh": np.cosh,
    "tanh": np.tanh, "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh,
}  # fmt: skip
_NUMPY_BINARY: dict[str, Any] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "pow": power, "maximum": np.maximum,
    "minimum": np.minimum, "floordiv": np.floor_divide, "mod": np.remainder, "fmod": np.fmod, "atan2": np.arctan2,
    "hypot": np.hypot, "copysign": np.copysign, "and_": np.logical_and, "or_": np.logical_or, "xor": np.logical_xor,
    "bitand": np.bitwise_and, "bitor": np.bitwise_or, "bitxor": np.bitwise_xor, "shl": np.left_shift,
    "shr": np.right_shift,
}  # fmt: skip
_NUMPY_COMPARE: dict[str, Any] = {
    "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal, "ne": np.not_equal,
}  # fmt: skip


def cast(x: Any, dtype: DType) -> Any:
    """A NumPy array in another dtype. Floats saturate into integers, and NaN becomes 0: NumPy leaves both undefined."""
    x = np.asarray(x)
    if x.dtype.kind != "f" or dtype.kind not in "iu":
        with np.errstate(all="ignore"):
            return x.astype(dtype)
    info = np.iinfo(dtype)
    past = 2.0 ** (info.bits - (dtype.kind == "i"))  # the least float above every value of the dtype
    inside = (x > float(info.min)) & (x < past)
    ends = np.where(x >= past, dtype.type(info.max), np.where(np.isnan(x), dtype.type(0), dtype.type(info.min)))
    return np.where(inside, np.where(inside, x, 0).astype(dtype), ends)


class NumpyBuilder(Primitives):
    """Evaluates an ``emit`` rule on whole arrays of the result's shape: the meaning of each primitive, executable.

    ``shape`` is the result's shape, ``extents`` the numbers that ``extent`` looks up. Whether a guard fired is in
    ``failed``.
    """

    def __init__(self, shape: tuple[int, ...], extents: Mapping[str, int]) -> None:
        self._shape = shape
        self._extents = extents
        self.failed = False

    def dtype(self, x: Any) -> DType:
        found: DType = np.asarray(x).dtype
        return found

    def const(self, value: float | int | bool, dtype: DType) -> Any:
        return np.asarray(value, dtype)

    def cast(self, x: Any, dtype: DType) -> Any:
        return cast(x, dtype)

    def unary(self, name: str, x: Any) -> Any:
        with np.errstate(all="ignore"):
            return _NUMPY_UNARY[name](x)

    def binary(self, name: str, x: Any, y: Any) -> Any:
        with np.errstate(all="ignore"):
            return _NUMPY_BINARY[name](x, y)

    def compare(self, name: str, x: Any, y: Any) -> Any:
        return _NUMPY_COMPARE[name](x, y)

    def not_(self, x: Any) -> Any:
        return np.logical_not(x)

    def select(self, condition: Any, x: Any, y: Any) -> Any:
        return np.where(condition, x, y)

    def fma(self, x: Any, y: Any, z: Any) -> Any:
        # Exact in twice the precision for float32; float64 rounds twice, which the callers' tolerances allow.
        wide = np.float64 if self.dtype(x) == np.float32 else np.longdouble
        return (np.asarray(x, wide) * np.asarray(y, wide) + np.asarray(z, wide)).astype(self.dtype(x))

    def index(self, axis: int) -> Any:
        form = [1] * len(self._shape)
        form[axis] = self._shape[axis]
        return np.arange(self._shape[axis], dtype=np.int64).reshape(form)

    def flat_index(self) -> Any:
        return np.arange(math.prod(self._shape), dtype=np.int64).reshape(self._shape)

    def load(self, source: Any, indices: Sequence[Any], mask: Any = None) -> Any:
        if mask is None:
            return source[tuple(indices)]
        if not source.size:
            return np.zeros(np.broadcast_shapes(self._shape, np.shape(mask)), source.dtype)
        safe = tuple(np.where(mask, i, 0) for i in indices)
        return np.where(mask, source[safe], source.dtype.type(0))

    def extent(self, key: str) -> Any:
        return np.int64(self._extents[key])

    def guard(self, bad: Any) -> None:
        self.failed |= bool(np.any(bad))
