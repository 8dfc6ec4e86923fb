"""The few operations that kernels need and Numba's Python does not say: typed pointers, selects, and calls through
addresses.

Each emits its LLVM instructions in place, without a function of its own, so that it adds no symbol to a kernel and
the loop vectoriser sees straight-line arithmetic.
"""

from __future__ import annotations

import time
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_MONOTONIC = getattr(time, "CLOCK_MONOTONIC", 0)


def _pointer(element: Any) -> Any:
    """An intrinsic that turns an address into a pointer to ``element``."""

    @intrinsic
    def as_pointer(typing_context: Any, address: Any) -> Any:
        signature = types.CPointer(element)(types.int64)

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(sig.return_type))

        return signature, codegen

    return as_pointer


ptr_int8, ptr_int16, ptr_int32, ptr_int64 = (_pointer(t) for t in (types.int8, types.int16, types.int32, types.int64))
ptr_uint8, ptr_uint16, ptr_uint32, ptr_uint64 = (
    _pointer(t) for t in (types.uint8, types.uint16, types.uint32, types.uint64)
)
ptr_float32, ptr_float64 = _pointer(types.float32), _pointer(types.float64)


def literal_number(value: Any) -> int:
    """The number of a type that is a literal. ``TypeError`` if it is none."""
    if not isinstance(value, types.IntegerLiteral):
        raise TypeError("the number must be a literal")
    return int(value.literal_value)


def splat(builder: Any, value: Any, count: int) -> Any:
    """A vector of ``count`` times ``value``."""
    kind = ir.VectorType(value.type, count)
    single = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(_I32, 0))
    zeros = ir.Constant(ir.VectorType(_I32, count), [0] * count)
    return builder.shuffle_vector(single, ir.Constant(kind, ir.Undefined), zeros)


@intrinsic(prefer_literal=True)
def stack(typing_context: Any, like: Any, count: Any) -> Any:
    """Uninitialised stack memory for ``count`` (a literal) elements of the type of ``like``, at the start of a cache
    line. Nothing else can point to it.
    """
    size = literal_number(count)
    signature = types.CPointer(types.unliteral(like))(types.unliteral(like), count)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        element = context.get_data_type(sig.args[0])
        memory = cgutils.alloca_once(builder, element, size=ir.Constant(_I64, size))
        memory.align = 64
        return memory

    return signature, codegen


@intrinsic
def select(typing_context: Any, condition: Any, x: Any, y: Any) -> Any:
    """``x`` if the condition holds, else ``y``, without a branch."""
    if x != y:
        raise TypeError(f"select: {x} and {y} differ")
    signature = x(types.boolean, x, x)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(args[0], args[1], args[2])

    return signature, codegen


def _choose(builder: Any, element: Any, predicate: str, a: Any, b: Any) -> Any:
    """The one of two values (or vectors) that compares as ``predicate``; NaN if one is NaN."""
    if isinstance(element, types.Float):
        chosen = builder.select(builder.fcmp_ordered(predicate, a, b), a, b)
        return builder.select(builder.fcmp_unordered("uno", a, a), a, chosen)
    compare = builder.icmp_signed if element.signed else builder.icmp_unsigned
    return builder.select(compare(predicate, a, b), a, b)


def accumulated_extremum(builder: Any, element: Any, predicate: str, a: Any, b: Any) -> Any:
    """The same as ``_choose``, in the fewest instructions where neither is a constant: LLVM merges the two selects of
    ``_choose``, and the processor's own maximum with them.
    """
    if not isinstance(element, types.Float):
        return _choose(builder, element, predicate, a, b)
    chosen = builder.select(builder.fcmp_ordered(predicate, a, b), a, b)
    return builder.select(builder.fcmp_unordered("uno", a, b), builder.fadd(a, b), chosen)


def _extremum(predicate: str, choose: Any) -> Any:
    @intrinsic
    def extremum(typing_context: Any, x: Any, y: Any) -> Any:
        if x != y:
            raise TypeError(f"{x} and {y} differ")

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return choose(builder, sig.args[0], predicate, *args)

        return x(x, x), codegen

    return extremum


maximum, minimum = _extremum(">", _choose), _extremum("<", _choose)
accumulated_maximum, accumulated_minimum = _extremum(">", accumulated_extremum), _extremum("<", accumulated_extremum)


def _llvm_unary(name: str) -> Any:
    @intrinsic
    def unary(typing_context: Any, x: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return builder.call(builder.module.declare_intrinsic(name, [args[0].type]), args)

        return x(x), codegen

    return unary


sqrt, fabs, floor, ceil, trunc, rint = (
    _llvm_unary(f"llvm.{n}") for n in ("sqrt", "fabs", "floor", "ceil", "trunc", "roundeven")
)


@intrinsic
def copysign(typing_context: Any, x: Any, y: Any) -> Any:
    """``|x|`` with the sign bit of ``y``."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = ir.FunctionType(args[0].type, [args[0].type] * 2)
        return builder.call(builder.module.declare_intrinsic("llvm.copysign", [args[0].type], kind), args)

    return x(x, x), codegen


@intrinsic
def fma(typing_context: Any, x: Any, y: Any, z: Any) -> Any:
    """``x * y + z``, rounded once."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.fma(args[0], args[1], args[2])

    return x(x, x, x), codegen


def _saturating(integer: Any, bits: int, signed: bool) -> Any:
    """Conversion of a float to an integer type: values outside go to the nearest end, NaN to 0."""
    name = "llvm.fptosi.sat" if signed else "llvm.fptoui.sat"

    @intrinsic
    def convert(typing_context: Any, x: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            result = ir.IntType(bits)
            kind = "f32" if sig.args[0].bitwidth == 32 else "f64"
            function_type = ir.FunctionType(result, [args[0].type])
            function = cgutils.get_or_insert_function(builder.module, function_type, f"{name}.i{bits}.{kind}")
            return builder.call(function, args)

        return integer(x), codegen

    return convert


float_to_int8, float_to_int16 = _saturating(types.int8, 8, True), _saturating(types.int16, 16, True)
float_to_int32, float_to_int64 = _saturating(types.int32, 32, True), _saturating(types.int64, 64, True)
float_to_uint8, float_to_uint16 = _saturating(types.uint8, 8, False), _saturating(types.uint16, 16, False)
float_to_uint32, float_to_uint64 = _saturating(types.uint32, 32, False), _saturating(types.uint64, 64, False)


@intrinsic
def copy_bytes(typing_context: Any, target: Any, source: Any, count: Any) -> Any:
    """``memcpy`` between addresses that do not overlap."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = _I8.as_pointer()
        cgutils.raw_memcpy(
            builder,
            builder.inttoptr(args[0], pointer),
            builder.inttoptr(args[1], pointer),
            args[2],
            ir.Constant(_I64, 1),
        )
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def stream_line(typing_context: Any, target: Any, source: Any) -> Any:
    """Copy 64 bytes past the caches. ``target`` is an address aligned to 64 bytes."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = ir.VectorType(_I32, 16).as_pointer()
        line = builder.load(builder.inttoptr(args[1], pointer))
        line.align = 1
        store = builder.store(line, builder.inttoptr(args[0], pointer))
        store.align = 64
        store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(_I32, 1)]))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def fence(typing_context: Any) -> Any:
    """Wait until what was streamed can be seen by other threads."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def advanced(typing_context: Any, pointer: Any, count: Any) -> Any:
    """The pointer to so many elements further on."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.gep(args[0], [args[1]])

    return pointer(pointer, types.int64), codegen


@intrinsic
def address(typing_context: Any, pointer: Any) -> Any:
    """The address that a pointer holds."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.ptrtoint(args[0], _I64)

    return types.int64(pointer), codegen


@intrinsic
def add_atomically(typing_context: Any, place: Any, number: Any) -> Any:
    """Add ``number`` to the int64 at ``place``, at once for all threads, and return what was there. What a thread has
    written before, those that come after it see.
    """
    signature = types.int64(types.CPointer(types.int64), types.int64)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", *args, "seq_cst")

    return signature, codegen


@intrinsic
def call_kernel(typing_context: Any, function: Any, args: Any, scratch: Any, lo: Any, hi: Any) -> Any:
    """Call a kernel, ``void (int64 args, int64 scratch, int64 lo, int64 hi)``, through its address."""

    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [_I64] * 4)
        builder.call(builder.inttoptr(values[0], kind.as_pointer()), values[1:])
        return context.get_dummy_value()

    return types.void(*([types.int64] * 5)), codegen


@intrinsic
def write_time(typing_context: Any, clock: Any, place: Any) -> Any:
    """Write seconds and nanoseconds of the monotonic clock at ``place``; ``clock`` is the address of
    ``clock_gettime``.
    """

    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        pointer = _I8.as_pointer()
        kind = ir.FunctionType(_I32, [_I32, pointer])
        function = builder.inttoptr(values[0], kind.as_pointer())
        builder.call(function, [ir.Constant(_I32, _MONOTONIC), builder.inttoptr(values[1], pointer)])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def call_gemm(
    typing_context: Any, function: Any, trans_a: Any, trans_b: Any, m: Any, n: Any, k: Any, alpha: Any, a: Any,
    lda: Any, b: Any, ldb: Any, beta: Any, c: Any, ldc: Any,
) -> Any:  # fmt: skip
    """BLAS ``?gemm`` (column-major) through its address. Matrices and factors are addresses; sizes are int64."""
    signature = types.void(*([types.int64] * 14))

    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        pointer = _I8.as_pointer()

        def boxed(value: Any, width: Any) -> Any:
            box = cgutils.alloca_once(builder, width)
            builder.store(builder.trunc(value, width), box)
            return builder.bitcast(box, pointer)

        function_, ta, tb, m_, n_, k_, alpha_, a_, lda_, b_, ldb_, beta_, c_, ldc_ = values
        address = [builder.inttoptr(v, pointer) for v in (alpha_, a_, b_, beta_, c_)]
        args = [
            boxed(ta, _I8), boxed(tb, _I8), boxed(m_, _I32), boxed(n_, _I32), boxed(k_, _I32), address[0], address[1],
            boxed(lda_, _I32), address[2], boxed(ldb_, _I32), address[3], address[4], boxed(ldc_, _I32),
        ]  # fmt: skip
        kind = ir.FunctionType(ir.VoidType(), [pointer] * 13)
        builder.call(builder.inttoptr(function_, kind.as_pointer()), args)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def set_number(typing_context: Any, function: Any, number: Any) -> Any:
    """Call ``int function(int)`` through its address: it sets a number, and returns what that was before."""

    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        kind = ir.FunctionType(_I32, [_I32])
        before = builder.call(builder.inttoptr(values[0], kind.as_pointer()), [builder.trunc(values[1], _I32)])
        return builder.sext(before, _I64)

    return types.int64(types.int64, types.int64), codegen
