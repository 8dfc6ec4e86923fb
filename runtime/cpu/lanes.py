"""What kernels do with lanes: short arrays on the stack, one element a lane.

All is done in straight-line vector instructions, which leave nothing to a loop vectoriser, so that LLVM can keep lanes
in registers. ``size`` is the number of lanes, a literal and a multiple of 16.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from runtime.cpu import host
from runtime.cpu.intrinsics import accumulated_extremum, literal_number, splat

_VECTOR = 16
_I32, _I64 = ir.IntType(32), ir.IntType(64)


def _vectors(builder: Any, pointer: Any, count: int) -> Iterator[Any]:
    """Pointers to the vectors that ``count`` elements are."""
    first = builder.bitcast(pointer, ir.VectorType(pointer.type.pointee, _VECTOR).as_pointer())
    for k in range(count // _VECTOR):
        yield builder.gep(first, [ir.Constant(_I64, k)])


def _load(builder: Any, place: Any) -> Any:
    load = builder.load(place)
    load.align = _bytes(load.type.element)
    return load


def _store(builder: Any, value: Any, place: Any) -> None:
    builder.store(value, place).align = _bytes(value.type.element)


def _bytes(element: Any) -> int:
    return 4 if isinstance(element, ir.FloatType) else 8 if isinstance(element, ir.DoubleType) else element.width // 8


def _paired(builder: Any, one: Any, other: Any, count: int) -> Iterator[tuple[Any, Any]]:
    return zip(_vectors(builder, one, count), _vectors(builder, other, count), strict=True)


@intrinsic(prefer_literal=True)
def fill_lanes(typing_context: Any, lanes: Any, value: Any, size: Any) -> Any:
    """Set all lanes to ``value``."""
    count = literal_number(size)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value = splat(builder, args[1], _VECTOR)
        for place in _vectors(builder, args[0], count):
            _store(builder, value, place)
        return context.get_dummy_value()

    return types.void(lanes, types.unliteral(value), size), codegen


@intrinsic(prefer_literal=True)
def copy_lanes(typing_context: Any, target: Any, lanes: Any, size: Any) -> Any:
    """Copy all lanes to memory."""
    count = literal_number(size)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        for place, lane in _paired(builder, args[0], args[1], count):
            _store(builder, _load(builder, lane), place)
        return context.get_dummy_value()

    return types.void(target, lanes, size), codegen


@intrinsic(prefer_literal=True)
def load_first_lanes(typing_context: Any, lanes: Any, source: Any, given: Any, size: Any) -> Any:
    """Copy ``given`` elements from memory to the first lanes, and 0 to the others. No more of memory is touched."""
    count = literal_number(size)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        to, source, given, _ = args
        zero = ir.Constant(ir.VectorType(to.type.pointee, _VECTOR), None)
        itemsize = _bytes(to.type.pointee)
        if not _masked_at_once(itemsize):
            for lane in _vectors(builder, to, count):
                _store(builder, zero, lane)
            cgutils.raw_memcpy(builder, to, source, given, ir.Constant(_I64, itemsize))
            return context.get_dummy_value()
        for k, (lane, place) in enumerate(_paired(builder, to, source, count)):
            operands = [place, ir.Constant(_I32, itemsize), _among(builder, given, k), zero]
            _store(builder, _masked(builder, "load", zero.type, zero.type, operands), lane)
        return context.get_dummy_value()

    return types.void(lanes, source, types.int64, size), codegen


@intrinsic(prefer_literal=True)
def copy_first_lanes(typing_context: Any, target: Any, lanes: Any, given: Any, size: Any) -> Any:
    """Copy the first ``given`` lanes to memory, of which no more is touched."""
    count = literal_number(size)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        to, lanes, given, _ = args
        itemsize = _bytes(to.type.pointee)
        if not _masked_at_once(itemsize):
            cgutils.raw_memcpy(builder, to, lanes, given, ir.Constant(_I64, itemsize))
            return context.get_dummy_value()
        for k, (place, lane) in enumerate(_paired(builder, to, lanes, count)):
            value = _load(builder, lane)
            operands = [value, place, ir.Constant(_I32, itemsize), _among(builder, given, k)]
            _masked(builder, "store", ir.VoidType(), value.type, operands)
        return context.get_dummy_value()

    return types.void(target, lanes, types.int64, size), codegen


def _masked_at_once(itemsize: int) -> bool:
    """Whether the machine loads and stores chosen elements of a vector in one instruction: LLVM takes a branch for each
    element else.
    """
    found = host.features()
    return "avx512bw" in found or (itemsize >= 4 and "avx2" in found)


def _among(builder: Any, given: Any, k: int) -> Any:
    """Which lanes of vector ``k`` are among the first ``given``."""
    numbers = ir.Constant(ir.VectorType(_I32, _VECTOR), list(range(k * _VECTOR, (k + 1) * _VECTOR)))
    return builder.icmp_signed("<", numbers, splat(builder, builder.trunc(given, _I32), _VECTOR))


def _masked(builder: Any, name: str, result: Any, vector: Any, operands: Any) -> Any:
    """A call of LLVM's ``llvm.masked.load`` or ``store`` for vectors of a type."""
    kind = f"{'i' if isinstance(vector.element, ir.IntType) else 'f'}{8 * _bytes(vector.element)}"
    signature = ir.FunctionType(result, [o.type for o in operands])
    function = f"llvm.masked.{name}.v{_VECTOR}{kind}.p0"
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, function), operands)


def _lane_combiner(combine: Any) -> Any:
    """An intrinsic that combines lanes pairwise, the upper half into the lower half, down to one value."""

    @intrinsic(prefer_literal=True)
    def combine_lanes(typing_context: Any, lanes: Any, size: Any) -> Any:
        count, element = literal_number(size), lanes.dtype

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            parts = [_load(builder, place) for place in _vectors(builder, args[0], count)]
            while len(parts) > 1:
                half = len(parts) // 2
                parts = [combine(builder, element, a, b) for a, b in zip(parts[:half], parts[half:], strict=True)]
            vector, width = parts[0], _VECTOR
            while width > 1:
                width //= 2
                low, high = (
                    ir.Constant(ir.VectorType(_I32, width), list(range(first, first + width))) for first in (0, width)
                )
                unused = ir.Constant(vector.type, ir.Undefined)
                vector = combine(
                    builder, element, builder.shuffle_vector(vector, unused, low),
                    builder.shuffle_vector(vector, unused, high),
                )  # fmt: skip
            return builder.extract_element(vector, ir.Constant(_I32, 0))

        return element(lanes, size), codegen

    return combine_lanes


def _vector_add(builder: Any, element: Any, a: Any, b: Any) -> Any:
    return builder.fadd(a, b) if isinstance(element, types.Float) else builder.add(a, b)


def _vector_mul(builder: Any, element: Any, a: Any, b: Any) -> Any:
    return builder.fmul(a, b) if isinstance(element, types.Float) else builder.mul(a, b)


def _vector_extremum(predicate: str) -> Any:
    return lambda builder, element, a, b: accumulated_extremum(builder, element, predicate, a, b)


combine_lanes_add, combine_lanes_mul = _lane_combiner(_vector_add), _lane_combiner(_vector_mul)
combine_lanes_maximum, combine_lanes_minimum = (_lane_combiner(_vector_extremum(p)) for p in (">", "<"))
