"""Arrays to feed: plain numbers, and the ends and special values of each dtype; plain memory, and unusual memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.dims import Extent

Array = np.ndarray[Any, Any]
Rng = np.random.Generator

# How the values of one feed are drawn; "plain" is inside the bounds that the reader wants.
MODES = ("plain", "plain", "plain", "plain", "steps", "special", "special", "ends", "small", "equal")
LAYOUTS = ("plain",) * 8 + ("fortran", "stepped", "reversed", "swapped", "readonly", "unaligned", "repeated")


@dataclass(frozen=True)
class Source:
    """What a placeholder or parameter holds. ``bounded`` values are whole numbers within the bounds: indices."""

    shape: tuple[Extent, ...]
    dtype: np.dtype[Any]
    low: float = -2.0
    high: float = 2.0
    bounded: bool = False

    def array(self, rng: Rng, shape: tuple[int, ...], mode: str) -> Array:
        """Values of ``shape`` in one of the ``MODES``."""
        return np.asarray(self._values(rng, shape, mode))

    def _values(self, rng: Rng, shape: tuple[int, ...], mode: str) -> Any:
        if self.dtype.kind == "b":
            return rng.random(shape) < (1.0 if mode == "equal" else 0.5)
        if self.bounded:
            return rng.integers(int(self.low), int(self.high) + 1, shape).astype(self.dtype)
        if mode == "equal":
            return np.full(shape, rng.integers(0, 3)).astype(self.dtype)
        if self.dtype.kind == "f":
            return self._floats(rng, shape, mode)
        return self._integers(rng, shape, mode)

    def _floats(self, rng: Rng, shape: tuple[int, ...], mode: str) -> Array:
        values = rng.uniform(self.low, self.high, shape)
        info = np.finfo(self.dtype)
        if mode == "steps":
            return np.rint(values).astype(self.dtype)
        if mode == "small":
            return (values * float(info.tiny) * rng.choice([1.0, 0.1, 2.0**-10], shape)).astype(self.dtype)
        points: list[float] = []
        if mode == "special":
            points = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, 1e30, 1e-30, 100.0, -100.0, float(info.tiny) / 3]
        if mode == "ends":
            points = [float(info.max), float(info.min), float(info.tiny), float(info.smallest_subnormal), 0.5, 2.0**31]
        if points:
            values = np.where(rng.random(shape) < 0.3, rng.choice(points, shape), values)
        with np.errstate(all="ignore"):
            return values.astype(self.dtype)

    def _integers(self, rng: Rng, shape: tuple[int, ...], mode: str) -> Array:
        info = np.iinfo(self.dtype)
        low = max(int(self.low), 0) if self.dtype.kind == "u" else int(self.low)
        values = rng.integers(low, int(self.high) + 1, shape).astype(self.dtype)
        if mode not in ("special", "ends"):
            return values
        points = np.array([info.min, info.min + 1, info.max - 1, info.max, info.max // 2 + 1, 7, 100], self.dtype)
        return np.where(rng.random(shape) < 0.3, rng.choice(points, shape), values)


def laid_out(array: Array, layout: str) -> Array:
    """The same values (but for "repeated": the first row everywhere) in memory of another kind."""
    if layout == "fortran":
        return np.asfortranarray(array)
    if layout == "swapped":
        return array.astype(array.dtype.newbyteorder())
    if layout == "unaligned":
        raw = np.empty(array.nbytes + 1, np.uint8)
        odd = raw[1:].view(array.dtype).reshape(array.shape)
        odd[...] = array
        return odd
    if layout == "readonly":
        fixed = array.copy()
        fixed.flags.writeable = False
        return fixed
    if not array.ndim:
        return array
    if layout == "stepped":
        return np.repeat(array, 2, -1)[..., ::2]
    if layout == "reversed":
        return np.ascontiguousarray(array[::-1])[::-1]
    if layout == "repeated":
        return np.broadcast_to(array[:1], array.shape) if len(array) else array
    return array
