"""Random numbers as values of the graph.

They come from a counter-based generator (``graphc/ops/philox.py``): a number is a pure function of a key, of the run
counter, and of its element's index. The key is made of the session's seed and a *stream*: the ``seed=`` of the call, or
the next number that the session has not given away when it first meets the call, so that fetching more never changes
what others drew. The run counter counts a session's runs with updates. Hence two runs without an update between them
give the same numbers, and nothing depends on fusion, threads or the order of kernels. ``Session.save`` keeps the run
counter, and ``load`` brings it back.

Only the bits are drawn by an op of their own. All else is ordinary arithmetic on them, so that ``uniform`` and
``normal`` have gradients with respect to their parameters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.dims import Dim, Extent
from graphc.dtypes import DType, DTypeLike, as_dtype, float32, float64, is_float, is_weak, promote
from graphc.errors import ArgumentError, DTypeError, ShapeError
from graphc.node import Tensor
from graphc.ops import (
    argmax,
    astype,
    bitwise_and,
    bitwise_right_shift,
    broadcast_to,
    equal,
    expand_dims,
    less,
    log,
    log1p,
    minimum,
    permute_dims,
    philox,
    sqrt,
    square,
    where,
)
from graphc.ops.leaf import as_extent, as_tensor, extent_value, scalar
from graphc.ops.philox import LOW32, random_bits, random_key, run_counter, uint32, uint64
from graphc.ops.shape import known_shape, normalize_axis

__all__ = ["bernoulli", "bits", "categorical", "integers", "normal", "permutation", "run_counter", "uniform"]


def bits(shape: Sequence[Any], dtype: DTypeLike = "uint32", *, seed: int | None = None) -> Tensor:
    """Random bits: every value of ``dtype``, uint32 or uint64, equally often. ``shape`` holds numbers and extents of
    placeholders. Raises ``ShapeError`` and ``DTypeError``.
    """
    wanted = as_dtype(dtype)
    if wanted not in (uint32, uint64):
        raise DTypeError(f"random.bits: dtype must be uint32 or uint64, got {wanted}")
    return random_bits(random_key(seed), run_counter(), known_shape(shape, "random.bits"), wanted, 0)


def uniform(
    shape: Sequence[Any], low: Any = 0.0, high: Any = 1.0, dtype: DTypeLike | None = None, *, seed: int | None = None
) -> Tensor:
    """Uniform in ``[low, high)``: ``low + (high - low) * u`` with u a multiple of 2**-24, or of 2**-53 in float64.

    ``low`` and ``high`` are numbers, or tensors that broadcast to ``shape``; gradients flow to them. ``dtype``: by
    default that of these tensors, or float32. Raises ``ShapeError``, ``DTypeError``, and ``ArgumentError`` for numbers
    of which low is the larger, or whose difference overflows the dtype.
    """
    what = "random.uniform"
    if is_weak(low) and is_weak(high):
        if not low <= high:
            raise ArgumentError(f"{what}: low must not exceed high, got low={low} and high={high}")
        if (low, high) == (0, 1):
            return _unit(known_shape(shape, what), _float_dtype(dtype, what), seed)
    extents, (start, end) = _parameters(shape, dtype, what, low, high)
    if is_weak(low) and is_weak(high):
        _check_difference(low, high, start.dtype, what)
    value = start + (end - start) * _unit(extents, start.dtype, seed)
    # Rounding can reach high itself. It does so for half of the last gap, and low had only half of the first.
    return where(equal(value, end), start, value)


def normal(
    shape: Sequence[Any], mean: Any = 0.0, std: Any = 1.0, dtype: DTypeLike | None = None, *, seed: int | None = None
) -> Tensor:
    """Normal with the given mean and standard deviation, by the method of G. Box and M. Muller (Annals of Mathematical
    Statistics 29, 1958).

    ``mean`` and ``std`` are numbers, or tensors that broadcast to ``shape``; gradients flow to them. ``dtype``: by
    default that of these tensors, or float32. No value lies further than 6.8 standard deviations from the mean
    (9.5 in float64). Raises ``ShapeError``, ``DTypeError``, and ``ArgumentError`` for a negative number ``std``.
    """
    what = "random.normal"
    if is_weak(std) and not std >= 0:
        raise ArgumentError(f"{what}: std must be at least 0, got {std}")
    extents, (centre, spread) = _parameters(shape, dtype, what, mean, std)
    found = centre.dtype
    word, scale = _word(found)
    state = random_key(seed), run_counter()
    first, second = (random_bits(*state, extents, word, i) for i in (0, 1))
    # By half a step it is in (0, 1], so that its logarithm is finite.
    radius = sqrt(-2.0 * log(astype(first, found) * scale + scale / 2))
    # The cosine of a random angle is the sine of one of the first quadrant, with a random sign.
    sine = _quarter_sine(astype(bitwise_right_shift(second, 1), found) * (2 * scale))
    value = radius * where(equal(bitwise_and(second, 1), 0), sine, -sine)
    standard = is_weak(mean) and is_weak(std) and (mean, std) == (0, 1)
    return value if standard else centre + spread * value


def bernoulli(
    p: Any, shape: Sequence[Any] | None = None, dtype: DTypeLike = "bool", *, seed: int | None = None
) -> Tensor:
    """True (or 1) with probability ``p``: a number, or a float tensor that broadcasts to ``shape``.

    ``shape=None`` takes the shape of ``p``. The probability is exact to 2**-24 (to 2**-53 for a float64 tensor), and 0
    and 1 are exact. Raises ``ShapeError``, ``DTypeError``, and ``ArgumentError`` for a number outside 0 to 1.
    """
    what = "random.bernoulli"
    if is_weak(p) and not 0 <= p <= 1:
        raise ArgumentError(f"{what}: p must be from 0 to 1, got {p}")
    given = as_tensor(p, what) if not is_weak(p) else scalar(p, float32)
    extents, (chance,) = _parameters(given.shape if shape is None else shape, None, what, given)
    return astype(less(_unit(extents, chance.dtype, seed), chance), dtype)


def integers(
    low: int, high: Any, shape: Sequence[Any], dtype: DTypeLike = "int64", *, seed: int | None = None
) -> Tensor:
    """Integers from ``low`` to ``high - 1``, equally often to one part in 2**32, or in 2**64 for ranges above 2**32.

    ``high`` may be a symbolic extent, such as the number of rows to choose from; that there are any is then checked
    when data is fed. Raises ``ArgumentError`` for an empty range, ``DTypeError`` when ``dtype`` does not hold it, and
    ``ShapeError``.
    """
    what = "random.integers"
    extents, found = known_shape(shape, what), as_dtype(dtype)
    if found.kind not in "iu":
        raise DTypeError(f"{what}: dtype must be an integer type, got {found}")
    _check_range(low, high, found, what)
    size = high - low
    state = random_key(seed), run_counter()
    if isinstance(size, Dim) or 2**32 < size < 2**64:
        upper, lower = (random_bits(*state, extents, uint64, i, size) for i in (0, 1))
        value = _scaled_wide(upper, lower, size)
    else:
        value = random_bits(*state, extents, uint64, 0)
        if size < 2**64:
            value = _scaled(value, size)
    return astype(value + scalar(low % 2**64, uint64) if low else value, found)


def categorical(logits: Any, axis: int = -1, *, num: int | None = None, seed: int | None = None) -> Tensor:
    """Index (int64) of a class drawn with probability ``softmax(logits)`` along ``axis``.

    The result has the shape of ``logits`` without ``axis``; ``num`` draws that many, along a new last axis. A class
    whose logit is -inf is drawn only where all are. By the Gumbel-max method (C. Maddison et al., NeurIPS 2014).
    Raises ``ShapeError`` and ``DTypeError``.
    """
    what = "random.categorical"
    scores = as_tensor(logits, what)
    if not is_float(scores.dtype):
        raise DTypeError(f"{what}: logits must be float, got {scores.describe()}")
    if num is not None and (isinstance(num, bool) or not isinstance(num, (int, np.integer)) or num < 0):
        raise ArgumentError(f"{what}: num must be an int of at least 0, or None, got {num!r}")
    place = normalize_axis(axis, scores.ndim, what)
    if num is None:
        return argmax(scores + _gumbel(scores.shape, scores.dtype, seed), place)
    scores = permute_dims(scores, (*(i for i in range(scores.ndim) if i != place), place))
    shape = (*scores.shape[:-1], int(num), scores.shape[-1])
    return argmax(expand_dims(scores, -2) + _gumbel(shape, scores.dtype, seed), -1)


def permutation(n: Any, *, seed: int | None = None) -> Tensor:
    """The integers (int64) 0 to ``n - 1`` in random order, every order equally often. ``n`` is a number or an extent
    of a placeholder.
    """
    if n is None:
        raise ShapeError("random.permutation: n must be a number or an extent of a placeholder, got None")
    return philox.permutation(random_key(seed), run_counter(), as_extent(n, "random.permutation"))


# Parts of them.


def _word(dtype: DType) -> tuple[DType, float]:
    """The random word that a number of ``dtype`` is made of, and the weight of its last bit in [0, 1)."""
    word = uint32 if dtype == float32 else uint64
    return word, 2.0 ** (-8 * word.itemsize)


def _unit(shape: tuple[Extent, ...], dtype: DType, seed: int | None) -> Tensor:
    """Uniform in [0, 1), of as many bits as the dtype's significand has."""
    word, _ = _word(dtype)
    digits = np.finfo(dtype).nmant + 1
    drawn = random_bits(random_key(seed), run_counter(), shape, word, 0)
    return astype(bitwise_right_shift(drawn, 8 * word.itemsize - digits), dtype) * 2.0**-digits


def _quarter_sine(x: Tensor) -> Tensor:
    """``sin(pi / 2 * x)`` for x from 0 to 1: the series, with an error below half a unit in the last place of 1."""
    last = 6 if x.dtype == float32 else 10
    squared = square(x)
    signed = [math.pi / 2 * (1 - k % 2 * 2) for k in range(last + 1)]
    terms = [first * (math.pi / 2) ** (2 * k) / math.factorial(2 * k + 1) for k, first in enumerate(signed)]
    total = squared * terms[-1] + terms[-2]
    for term in terms[-3::-1]:
        total = total * squared + term
    return total * x


def _gumbel(shape: tuple[Extent, ...], dtype: DType, seed: int | None) -> Tensor:
    """``-log(-log(1 - u))``: exact for u near 0, which makes the large values; u stays below 1."""
    word, scale = _word(dtype)
    u = astype(random_bits(random_key(seed), run_counter(), shape, word, 0), dtype) * scale + scale / 2
    return -log(-log1p(-minimum(u, 1 - float(np.finfo(dtype).epsneg))))


def _scaled(x: Tensor, size: int) -> Tensor:
    """``floor(x * size / 2**64)`` for uint64 x and a size of at most 2**32."""
    high, low = bitwise_right_shift(x, 32), bitwise_and(x, LOW32)
    return bitwise_right_shift(high * size + bitwise_right_shift(low * size, 32), 32)


def _scaled_wide(high: Tensor, low: Tensor, size: Extent) -> Tensor:
    """``floor((high * 2**64 + low) * size / 2**128)``."""
    factor = extent_value(size, uint64)
    product = high * factor
    carry = less(product + _multiply_high(low, factor), product)
    return _multiply_high(high, factor) + astype(carry, uint64)


def _multiply_high(x: Tensor, y: Tensor) -> Tensor:
    """The upper half of the product of two uint64, by parts of 32 bits."""
    (x1, x0), (y1, y0) = ((bitwise_right_shift(v, 32), bitwise_and(v, LOW32)) for v in (x, y))
    middle = x1 * y0 + bitwise_right_shift(x0 * y0, 32)
    other = x0 * y1 + bitwise_and(middle, LOW32)
    return x1 * y1 + bitwise_right_shift(middle, 32) + bitwise_right_shift(other, 32)


def _check_range(low: Any, high: Any, dtype: DType, what: str) -> None:
    for name, bound in (("low", low), ("high", high)):
        whole = isinstance(bound, (int, np.integer)) and not isinstance(bound, bool)
        if not whole and not (name == "high" and isinstance(bound, Dim)):
            kind = "an int or an extent" if name == "high" else "an int"
            raise ArgumentError(f"{what}: {name} must be {kind}, got {bound!r}")
    info = np.iinfo(dtype)
    if isinstance(high, Dim):
        if dtype.itemsize < 8:
            raise DTypeError(f"{what}: a symbolic high needs dtype int64 or uint64, got {dtype}")
        last = low
    else:
        last = high - 1
        if last < low:
            raise ArgumentError(f"{what}: high must be larger than low, got low={low} and high={high}")
    if low < info.min or last > info.max:
        raise DTypeError(f"{what}: {low} to {last} do not fit {dtype}, whose values go from {info.min} to {info.max}")


def _check_difference(low: Any, high: Any, dtype: DType, what: str) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        difference = np.subtract(high, low, dtype=dtype)
    if not np.isfinite(difference):
        raise ArgumentError(f"{what}: high - low must be finite in {dtype}, got low={low} and high={high}")


def _float_dtype(dtype: DTypeLike | None, what: str, *values: Tensor) -> DType:
    known = [v.dtype for v in values if is_float(v.dtype)]
    found = as_dtype(dtype) if dtype is not None else promote(*known) if known else float32
    if found not in (float32, float64):
        raise DTypeError(f"{what}: numbers are drawn in float32 or float64, got dtype {found}")
    return found


def _parameters(
    shape: Any, dtype: DTypeLike | None, what: str, *values: Any
) -> tuple[tuple[Extent, ...], list[Tensor]]:
    """The shape of the result, and parameters of the distribution in its dtype, which do not change that shape."""
    extents = known_shape(shape, what)
    given = [v if is_weak(v) else as_tensor(v, what) for v in values]
    found = _float_dtype(dtype, what, *(v for v in given if isinstance(v, Tensor)))
    tensors = [scalar(v, found) if is_weak(v) else astype(v, found) for v in given]
    return extents, [broadcast_to(t, extents) if t.ndim else t for t in tensors]
