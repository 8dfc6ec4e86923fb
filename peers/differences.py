"""Where graphc and PyTorch differ on purpose, or PyTorch is less exact, each with the reason. Only the elements named
are excused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Excuse:
    """``where(theirs, ours, *arrays)`` says which elements may differ, given the op's inputs."""

    why: str
    where: Callable[..., Any]

    def apply(self, theirs: Array, ours: Array, arrays: Sequence[Array]) -> Array:
        """PyTorch's values with ours in place of those that may differ."""
        if theirs.shape != ours.shape or theirs.dtype != ours.dtype:
            return theirs
        with np.errstate(all="ignore"):
            return np.where(np.broadcast_to(self.where(theirs, ours, *arrays), ours.shape), ours, theirs)


def _outside(theirs: Array, ours: Array, x: Array) -> Any:
    if ours.dtype.kind not in "iu" or x.dtype.kind != "f":
        return False
    info = np.iinfo(ours.dtype)
    return ~((x > float(info.min) - 1) & (x < 2.0 ** (info.bits - (ours.dtype.kind == "i")))) | (x < info.min)


def _huge_quotient(theirs: Array, ours: Array, x: Array, y: Array) -> Any:
    return ours.dtype.kind == "f" and np.isinf(x / y) & np.isfinite(x)


def _infinite_in_row(theirs: Array, ours: Array, x: Array) -> Any:
    return np.isnan(theirs) & np.isposinf(x).any(axis=-1, keepdims=True)


VALUES: dict[str, Excuse] = {
    "astype": Excuse(
        "a float beyond an integer type saturates here, and NaN becomes 0; PyTorch leaves it open", _outside
    ),
    "sign": Excuse("the sign of NaN is NaN here and in NumPy, 0 in PyTorch", lambda t, o, x: np.isnan(x)),
    "sqrt": Excuse(
        "PyTorch calls MKL's vector function, which may miss the nearest number by one unit",
        lambda t, o, x: np.abs(t - o) <= np.spacing(np.abs(o)),
    ),
    "sigmoid": Excuse(
        "PyTorch's exponential overflows where the result is subnormal, which gives 0",
        lambda t, o, x: (t == 0) & (o < np.finfo(o.dtype).tiny),
    ),
    "remainder": Excuse(
        "a result of 0 has the divisor's sign here and in NumPy, the dividend's in PyTorch; where x / y overflows, "
        "PyTorch gives NaN",
        lambda t, o, x, y: ((t == 0) & (o == 0)) | _huge_quotient(t, o, x, y),
    ),
    "fmod": Excuse("where x / y overflows, PyTorch gives NaN", _huge_quotient),
    "softmax": Excuse("of a row with an infinity PyTorch makes NaN everywhere", _infinite_in_row),
    "log_softmax": Excuse("of a row with an infinity PyTorch makes NaN everywhere", _infinite_in_row),
}
GRADIENTS: dict[str, Excuse] = {}
FUNCTIONS: dict[str, Excuse] = {
    "cosine_embedding_loss": Excuse(
        "PyTorch's loss adds 1e-12 to each squared norm, which its cosine_similarity does not",
        lambda t, o, *arrays: np.abs(t - o) <= 1e-12,
    ),
    "gelu": Excuse(
        "below 0, PyTorch adds 1 to what goes to -1, and loses digits: up to eps * |x|",
        lambda t, o, x: (x < 0) & (np.abs(t - o) <= np.finfo(o.dtype).eps * np.abs(x) * (1 + np.abs(x))),
    ),
    "hardsigmoid": Excuse(
        "PyTorch's derivative in float64 has 1/6 in float32", lambda t, o, x: np.abs(t - o) <= 2.0**-24 * np.abs(o)
    ),
}


def without_signs_of_zero(theirs: Array, ours: Array) -> Array:
    """PyTorch's values with our zeros in place of its own: other formulas give them other signs."""
    if theirs.shape != ours.shape or theirs.dtype != ours.dtype:
        return theirs
    return np.where((theirs == 0) & (ours == 0), ours, theirs)
