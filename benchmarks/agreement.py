"""Do all sides compute the same? Results are compared as digests: shape, norm and a few elements.

The truth is the NumPy side in float64. A side may differ from it ``FACTOR`` times as much as the NumPy side in the
same dtype does, or as rounding each term of the longest sum would make it differ by chance, whichever is more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

ELEMENTS = 16
FACTOR = 8.0

Digest = Mapping[str, Any]
Digests = Mapping[str, Digest]


def digest(array: Any) -> dict[str, Any]:
    """Of an array of numbers; the elements are spread evenly over it."""
    values = np.asarray(array, np.float64)
    flat = values.ravel()
    places = np.unique(np.linspace(0, flat.size - 1, min(ELEMENTS, flat.size)).astype(np.int64))
    return {"shape": list(values.shape), "norm": float(np.linalg.norm(flat)), "elements": flat[places].tolist()}


def difference(found: Digests, truth: Digests) -> float:
    """The largest relative difference: of norms, and of elements relative to themselves or to the root mean square,
    whichever is more. Infinite where shapes or names differ or something is not finite.
    """
    if set(found) != set(truth):
        return math.inf
    return max((_difference(found[name], truth[name]) for name in truth), default=math.inf)


def _difference(found: Digest, truth: Digest) -> float:
    if list(found["shape"]) != list(truth["shape"]):
        return math.inf
    size = max(math.prod(truth["shape"]), 1)
    typical = truth["norm"] / math.sqrt(size)
    pairs = [(found["norm"], truth["norm"], truth["norm"])]
    pairs += [(f, t, max(abs(t), typical)) for f, t in zip(found["elements"], truth["elements"], strict=True)]
    return max(_relative(*pair) for pair in pairs)


def _relative(found: float, truth: float, scale: float) -> float:
    if not math.isfinite(found):
        return math.inf
    return abs(found - truth) / scale if scale else (0.0 if found == truth else math.inf)


def allowed(of_numpy: float, terms: int, dtype: str = "float32") -> float:
    """The difference that is still agreement, from that of NumPy in this dtype and the length of the longest sum."""
    rounding = float(np.finfo(dtype).eps) / 2
    return FACTOR * max(of_numpy if math.isfinite(of_numpy) else 0.0, rounding * math.sqrt(terms))
