"""dtypes and their promotion.

Between tensors NumPy 2's rules hold, except that the default float is float32: an integer tensor with a Python float,
and true division of integers, give float32. Python and NumPy scalars are weak: they take the kind, never the width,
of the tensor they meet.
"""

from __future__ import annotations

import numbers
import warnings
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np

from graphc.errors import DTypeError, PrecisionWarning
from graphc.where import Location, caller

DType: TypeAlias = "np.dtype[Any]"
DTypeLike: TypeAlias = Any

bool_ = np.dtype(np.bool_)
int32 = np.dtype(np.int32)
int64 = np.dtype(np.int64)
float32 = np.dtype(np.float32)
float64 = np.dtype(np.float64)

SUPPORTED: tuple[DType, ...] = tuple(
    np.dtype(name)
    for name in ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64"]
)
_NARROW = {np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)}
_KIND_ORDER = {"b": 0, "u": 1, "i": 1, "f": 2}
_warned: set[Location] = set()


def as_dtype(dtype: DTypeLike) -> DType:
    """``dtype`` as a supported NumPy dtype in native byte order; ``DTypeError`` if graphc cannot compute in it."""
    try:
        found = np.dtype(dtype).newbyteorder("=")
    except TypeError as error:
        raise DTypeError(f"{dtype!r} is not a dtype; use one of {_names()}") from error
    if found not in SUPPORTED:
        hint = "; convert the data with .astype('float32')" if found in _NARROW else ""
        raise DTypeError(f"dtype {found} is not supported; use one of {_names()}{hint}")
    return SUPPORTED[SUPPORTED.index(found)]  # the one object by which NumPy's own arrays of it are known


def _names() -> str:
    return ", ".join(str(d) for d in SUPPORTED)


def is_float(dtype: DType) -> bool:
    """Whether gradients exist for values of this dtype."""
    return dtype.kind == "f"


def is_weak(value: object) -> bool:
    """Whether ``value`` is a Python or NumPy scalar, whose width never decides a result's dtype."""
    if isinstance(value, (int, float, np.generic)):  # the usual ones; the abstract class is slow to ask
        return True
    return not hasattr(value, "dtype") and isinstance(value, numbers.Number)


def weak_dtype(value: Any, partner: DType) -> DType:
    """dtype that the weak scalar ``value`` takes beside a tensor of dtype ``partner``."""
    if isinstance(value, (complex, np.complexfloating)):
        raise DTypeError(f"complex number {value!r}: graphc computes with real numbers only")
    kind = "b" if isinstance(value, (bool, np.bool_)) else "i" if isinstance(value, numbers.Integral) else "f"
    if _KIND_ORDER[kind] <= _KIND_ORDER[partner.kind]:
        return partner
    return float32 if kind == "f" else int64


def promote(*operands: DType) -> DType:
    """The dtype in which tensors of the given dtypes meet; warns once a line where float32 becomes float64."""
    result = operands[0]
    for other in operands[1:]:
        result = np.promote_types(result, other)
    if result == float64 and float32 in operands:
        where = caller()
        if where not in _warned:
            names = " and ".join(str(d) for d in operands)
            warnings.warn_explicit(
                f"{names} meet in float64 at {where}; use .astype('float32') on the other operand to stay in float32",
                PrecisionWarning,
                where.file,
                where.line,
            )
            _warned.add(where)
    return result


def true_divide_dtype(dtype: DType) -> DType:
    """dtype of a true quotient of operands that met in ``dtype``."""
    return dtype if is_float(dtype) else float32
