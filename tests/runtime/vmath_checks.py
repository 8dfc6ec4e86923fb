"""How the tests measure a vector function: compiled on its own, against a reference of more precision.

The error is in units in the last place of the exact result, where subnormals all share the unit of the smallest one.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from numba import cfunc, types

from runtime.cpu import intrinsics, vmath

Array = np.ndarray[Any, Any]
Reference = Callable[..., Array]
INF, NAN = float("inf"), float("nan")
# Small enough that a chunk and its temporaries stay in the L2 cache.
CHUNK = 1 << 14
WIDE_ENOUGH = np.finfo(np.longdouble).nmant >= 63
WIDER = {"float32": np.float64, "float64": np.longdouble}


@functools.cache
def compiled(function: str, dtype: str, arity: int = 1) -> Any:
    """A C function applying ``function`` to elements lo to hi of its operands; like a kernel, it knows addresses, and
    nothing of what they may share.
    """
    f, pointer = getattr(vmath, function), getattr(intrinsics, f"ptr_{dtype}")

    def of_one(x: Any, y: Any, lo: Any, hi: Any) -> None:
        given, result = pointer(x), pointer(y)
        for i in range(lo, hi):
            result[i] = f(given[i])

    def of_two(a: Any, b: Any, y: Any, lo: Any, hi: Any) -> None:
        left, right, result = pointer(a), pointer(b), pointer(y)
        for i in range(lo, hi):
            result[i] = f(left[i], right[i])

    return cfunc(types.void(*[types.int64] * (arity + 3)))(of_one if arity == 1 else of_two)


def apply(function: str, *operands: Array) -> Array:
    operands = tuple(np.ascontiguousarray(x) for x in operands)
    y = np.empty_like(operands[0])
    call = compiled(function, y.dtype.name, len(operands)).ctypes
    call(*(x.ctypes.data for x in (*operands, y)), 0, y.size)
    return y


def errors(got: Array, exact: Array) -> Array:
    """The error of each result in ulp; inf where only one side is NaN or infinite."""
    info = np.finfo(got.dtype)
    with np.errstate(all="ignore"):
        exponent = np.maximum(np.frexp(exact)[1] - 1, info.minexp)
        error = np.ldexp(np.abs(got - exact), info.nmant - exponent)
        # Half an ulp past the largest finite value is where rounding to nearest starts to give inf.
        overflow = np.abs(exact) >= exact.dtype.type(info.max) * (1 + exact.dtype.type(info.eps) / 4)
    special_match = (got == exact) | (np.isnan(got) & np.isnan(exact))
    special_match |= overflow & np.isinf(got) & (np.sign(got) == np.sign(exact))
    error[special_match] = 0
    error[np.isnan(error)] = np.inf
    return np.asarray(error)


def check_bound(function: str, reference: Reference, chunks: Iterator[tuple[Array, ...]]) -> None:
    """The stated bound holds over ``chunks`` of operands; ``reference`` takes them in the wider type."""
    worst: tuple[float, Any] = (-1.0, None)
    dtype = ""
    for operands in chunks:
        dtype = operands[0].dtype.name
        with np.errstate(all="ignore"):
            exact = reference(*(x.astype(WIDER[dtype]) for x in operands))
        error = errors(apply(function, *operands), exact)
        place = int(np.argmax(error))
        worst = max(worst, (float(error[place]), tuple(x[place] for x in operands)), key=lambda pair: pair[0])
    bound = vmath.ERROR_BOUND_ULP[function, dtype]
    assert 0 <= worst[0] <= bound, f"{worst[0]:.4f} ulp at {worst[1]}, above the stated {bound}"


def float32_patterns(start: int, stop: int, step: int) -> Iterator[tuple[Array]]:
    """Finite float32 values by their bits."""
    for low in range(start, stop, step * CHUNK):
        patterns = np.arange(low, min(low + step * CHUNK, stop), step, dtype=np.int64)
        x = patterns.astype(np.uint32).view(np.float32)
        x = x[np.isfinite(x)]
        if x.size:
            yield (x,)


def every_float32(low: float, high: float, signs: tuple[int, ...] = (1, -1)) -> Iterator[tuple[Array]]:
    """Every float32 from low to high, both positive; and their negatives."""
    first, last = (int(np.float32(edge).view(np.int32)) for edge in (low, high))
    for sign in signs:
        shift = 0 if sign > 0 else 2**31
        yield from float32_patterns(first + shift, last + shift, 1)


def neighbours(values: list[float], dtype: str, count: int = 5000) -> Iterator[tuple[Array]]:
    """The ``count`` values of ``dtype`` on each side of each of ``values``, none of which is 0."""
    for value in values:
        centre: Array = np.full(1, value, dtype)
        whole = centre.view(dtype.replace("float", "int"))
        yield ((whole + np.arange(-count, count + 1).astype(whole.dtype)).view(dtype),)


def float64_samples(ranges: list[tuple[float, float]], chunks: int, positive: bool = False) -> Iterator[tuple[Array]]:
    """Uniform in each range, and with random exponents."""
    rng = np.random.default_rng(20)
    for _ in range(chunks):
        for low, high in ranges:
            yield (rng.uniform(low, high, CHUNK),)
        sign = np.ones(CHUNK) if positive else rng.choice([-1.0, 1.0], CHUNK)
        mantissa = sign * rng.uniform(1, 2, CHUNK)
        yield (np.ldexp(mantissa, rng.integers(-1074, 1024, CHUNK)),)
        yield (np.ldexp(mantissa, rng.integers(-60, 11, CHUNK)),)


def bits(x: Array) -> Array:
    return x.view(np.uint32 if x.dtype == np.float32 else np.uint64)


def tiny(dtype: str) -> list[float]:
    """Both signs of 0, the smallest subnormal, the largest, and the smallest normal value."""
    info = np.finfo(dtype)
    smallest = float(info.smallest_subnormal)
    values = [0.0, smallest, 3 * smallest, float(info.tiny) - smallest, float(info.tiny), 1e-30]
    return values + [-value for value in values]


def check_specials(function: str, dtype: str, cases: list[tuple[float, float]]) -> None:
    """(argument, exact result) pairs."""
    for argument, result in [*cases, (NAN, NAN), (-NAN, NAN)]:
        # One value runs the scalar remainder of the loop, many run its vector body.
        for count in (1, 64):
            got = apply(function, np.full(count, argument, dtype))
            if np.isnan(result):
                assert np.isnan(got).all(), (argument, count, got[0])
            else:
                want = np.full(count, result, dtype)
                assert (bits(got) == bits(want)).all(), (argument, count, got[0])


def check_remainder_of_loop(function: str, *operands: Array) -> None:
    """The scalar remainder of the loop gives the bits of its vector body."""
    whole = bits(apply(function, *operands))
    for size in (1, 3, 7, 15, 33, 130):
        assert (bits(apply(function, *(x[:size] for x in operands))) == whole[:size]).all(), size


def assembly(function: str, dtype: str, arity: int = 1) -> str:
    """The host's assembly for the kernel as Numba optimised it."""
    module = llvm.parse_assembly(compiled(function, dtype, arity).inspect_llvm())
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3
    )
    return str(machine.emit_assembly(module))


def check_vectorised(function: str, dtype: str, arity: int = 1) -> None:
    """Arithmetic on whole vector registers, and no call of the C library."""
    text = assembly(function, dtype, arity)
    assert re.search(r"\bv(fn?m(add|sub)\w*|mul|sqrt)p[sd]\s.*%[yz]mm", text)
    names = "fma|exp|log|log1p|expm1|tanh|erf|erfc|sin|cos|tan|pow|sqrt|trunc|floor"
    symbols = set(re.findall(rf"\b(?:{names})f?\b(?:@PLT)?", text))
    assert not symbols, f"libm calls left: {symbols}"
