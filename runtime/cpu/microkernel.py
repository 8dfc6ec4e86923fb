"""The innermost piece of matrix products: a tile of the result that stays in registers while it runs along ``k``.

A tile is ``ROWS`` rows of some vectors of columns, or of half a vector where the result is no wider. In each step a
vector of the right operand's row is loaded once, an element of each of the left operand's rows is broadcast, and
multiplied and added to its accumulators in one operation (Goto and van de Geijn, "Anatomy of high-performance matrix
multiplication", 2008; Van Zee and van de Geijn, "BLIS", 2015). Every element is the same sum in the same order wherever
in a tile it lies.
"""

from __future__ import annotations

import functools
import platform
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from runtime.cpu import host
from runtime.cpu.intrinsics import literal_number, splat

_I32, _I64 = ir.IntType(32), ir.IntType(64)
VECTORS = 3  # side by side in a tile


@functools.cache
def _machine() -> tuple[int, int, bool]:
    """Bytes of a vector register, registers, and whether one operation multiplies and adds."""
    if platform.machine().lower() in ("aarch64", "arm64"):
        return 16, 32, True
    found = host.features()
    if "avx512f" in found:
        return 64, 32, True
    return (32, 16, True) if {"avx2", "fma"} <= found else (16, 16, False)


def fuses() -> bool:
    """Whether the machine multiplies and adds in one operation; without it tiles would be slow."""
    return _machine()[2]


def tile_rows() -> int:
    """Rows of a tile: as many as registers hold, beside a row of the right operand and an element of the left."""
    return 8 if _machine()[1] >= 32 else 6


def vector_length(itemsize: int) -> int:
    """Elements of a vector."""
    return _machine()[0] // itemsize


def _vector_at(builder: Any, pointer: Any, count: int) -> Any:
    return builder.bitcast(pointer, ir.VectorType(pointer.type.pointee, count).as_pointer())


def _fma(builder: Any, x: Any, y: Any, z: Any) -> Any:
    """``x * y + z`` of vectors, rounded once."""
    name = f"llvm.fma.v{x.type.count}{x.type.element.intrinsic_name}"
    kind = ir.FunctionType(x.type, [x.type] * 3)
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [x, y, z])


@intrinsic(prefer_literal=True)
def multiply_tile(
    typing_context: Any, rows: Any, length: Any, a: Any, a_row: Any, a_step: Any, b: Any, b_step: Any, c: Any,
    c_row: Any, k: Any, alpha: Any, beta: Any, height: Any, width: Any,
) -> Any:  # fmt: skip
    """``c = alpha * a @ b + beta * c`` for the first ``height`` rows and ``width`` columns of a tile of so many
    ``rows`` and ``VECTORS`` of ``length`` (literals). Nothing else is read or written.

    ``a``, ``b`` and ``c`` are pointers to its first elements; ``a_row`` and ``a_step`` the distances of elements of
    ``a`` from row to row and along ``k``; ``b_step`` and ``c_row`` those of rows. With ``beta`` 0, ``c`` is not read.
    """
    count, longest = literal_number(rows), literal_number(length)
    element, distance = a.dtype, types.int64
    signature = types.void(
        rows, length, a, distance, distance, a, distance, a, distance, distance, element, element, distance, distance
    )

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        values = args[2:]
        height, width = values[-2:]
        done = builder.append_basic_block("tile.done")
        for vectors, lanes in ((1, longest // 2), *((vectors, longest) for vectors in range(1, VECTORS + 1))):
            columns = vectors * lanes
            fits, wider = (builder.append_basic_block(f"tile.{name}") for name in ("fits", "wider"))
            builder.cbranch(builder.icmp_signed("<=", width, ir.Constant(_I64, columns)), fits, wider)
            builder.position_at_end(fits)
            sides = ((height, count), (width, columns))
            is_high, is_wide = (builder.icmp_signed("==", side, ir.Constant(_I64, size)) for side, size in sides)
            low = builder.icmp_signed("<=", height, ir.Constant(_I64, count // 2))
            for condition, tile, edge in (
                (builder.and_(is_high, is_wide), count, False), (low, count // 2, True), (None, count, True)
            ):  # fmt: skip
                function = _function(builder.module, values, (tile, vectors, lanes), edge=edge)
                following = builder.append_basic_block("tile.next")
                if condition is not None:
                    chosen = builder.append_basic_block("tile.chosen")
                    builder.cbranch(condition, chosen, following)
                    builder.position_at_end(chosen)
                builder.call(function, values if edge else values[:-2])
                builder.branch(done)
                builder.position_at_end(following)
            builder.unreachable()
            builder.position_at_end(wider)
        builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return signature, codegen


def _function(module: Any, values: Any, shape: tuple[int, int, int], *, edge: bool) -> Any:
    """The function of a module that computes a tile: alone, so that nothing else takes registers from its loop."""
    name = "_".join(["tile", *map(str, shape), values[0].type.pointee.intrinsic_name, "edge" if edge else "whole"])
    found = module.globals.get(name)
    if found is None:
        kinds = [value.type for value in (values if edge else values[:-2])]
        found = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), name)
        found.linkage = "internal"
        found.attributes.add("noinline")
        found.attributes.add("optsize")  # else its loop is unrolled, and runs out of registers
        _Tile(found, *shape, edge=edge).emit()
    return found


class _Tile:
    """Puts out the instructions of a function that computes a tile."""

    def __init__(self, function: Any, rows: int, vectors: int, lanes: int, *, edge: bool) -> None:
        self._builder = ir.IRBuilder(function.append_basic_block("entry"))
        self._rows, self._vectors, self._lanes = rows, vectors, lanes
        self._args = function.args
        self._element = function.args[0].type.pointee
        self._vector = ir.VectorType(self._element, lanes)
        self._zero = ir.Constant(self._vector, [ir.Constant(self._element, 0.0)] * lanes)
        self._height, self._masks = None, [None] * vectors
        if edge:
            self._height, width = function.args[-2:]
            self._masks = [self._mask(width, v * lanes) for v in range(vectors)]

    def _mask(self, width: Any, first: int) -> Any:
        """Which columns of a vector, from the ``first`` one, are within ``width``."""
        numbers = ir.Constant(ir.VectorType(_I64, self._lanes), list(range(first, first + self._lanes)))
        return self._builder.icmp_signed("<", numbers, splat(self._builder, width, self._lanes))

    def emit(self) -> None:
        a, a_row, a_step, b, b_step, c, c_row, k, alpha, beta = self._args[:10]
        sums = self._accumulated(a, a_row, a_step, b, b_step, k)
        builder = self._builder
        factor, kept = (splat(builder, value, self._lanes) for value in (alpha, beta))
        sums = [builder.fmul(total, factor) for total in sums]
        with builder.if_else(builder.fcmp_unordered("!=", beta, ir.Constant(self._element, 0.0))) as (adds, replaces):
            with adds:
                self._write(sums, c, c_row, kept)
            with replaces:
                self._write(sums, c, c_row, None)
        builder.ret_void()

    def _accumulated(self, a: Any, a_row: Any, a_step: Any, b: Any, b_step: Any, k: Any) -> list[Any]:
        builder, (loop, after) = self._builder, map(self._builder.append_basic_block, ("loop", "after"))
        before, one = builder.block, ir.Constant(_I64, 1)
        rows = [ir.Constant(_I64, r) for r in range(self._rows)]
        if self._height is not None:  # the last row once more, instead of what is not there
            last = builder.sub(self._height, one)
            rows = [builder.select(builder.icmp_signed("<", r, last), r, last) for r in rows]
        offsets = [builder.mul(a_row, r) for r in rows]
        zeros = [self._zero] * (self._rows * self._vectors)
        builder.cbranch(builder.icmp_signed(">", k, ir.Constant(_I64, 0)), loop, after)
        builder.position_at_end(loop)
        left, at_a, at_b = builder.phi(_I64), builder.phi(a.type), builder.phi(b.type)
        sums = [builder.phi(self._vector) for _ in zeros]
        for phi, value in zip((left, at_a, at_b, *sums), (k, a, b, *zeros), strict=True):
            phi.add_incoming(value, before)
        row = [self._read(at_b, v) for v in range(self._vectors)]
        found: list[Any] = []
        for offset in offsets:
            factor = splat(builder, builder.load(builder.gep(at_a, [offset])), self._lanes)
            found += [_fma(builder, factor, vector, sums[len(found) + v]) for v, vector in enumerate(row)]
        following = [builder.sub(left, one), builder.gep(at_a, [a_step]), builder.gep(at_b, [b_step])]
        for phi, value in zip((left, at_a, at_b, *sums), (*following, *found), strict=True):
            phi.add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed(">", following[0], ir.Constant(_I64, 0)), loop, after)
        builder.position_at_end(after)
        totals = [builder.phi(self._vector) for _ in zeros]
        for total, zero, value in zip(totals, zeros, found, strict=True):
            total.add_incoming(zero, before)
            total.add_incoming(value, loop)
        return totals

    def _write(self, sums: list[Any], c: Any, c_row: Any, kept: Any) -> None:
        builder = self._builder
        for r in range(self._rows):
            place = builder.gep(c, [builder.mul(c_row, ir.Constant(_I64, r))])
            values = sums[r * self._vectors : (r + 1) * self._vectors]
            if self._height is None:
                self._write_row(values, place, kept)
                continue
            with builder.if_then(builder.icmp_signed("<", ir.Constant(_I64, r), self._height)):
                self._write_row(values, place, kept)

    def _write_row(self, values: list[Any], place: Any, kept: Any) -> None:
        for v, total in enumerate(values):
            value = total if kept is None else _fma(self._builder, self._read(place, v), kept, total)
            pointer, mask = self._place(place, v), self._masks[v]
            if mask is None:
                self._builder.store(value, pointer).align = 4
            else:
                self._masked("store", ir.VoidType(), [value, pointer, ir.Constant(_I32, 4), mask])

    def _read(self, row: Any, v: int) -> Any:
        """The vector of that number in a row; 0 in columns that are not there."""
        pointer, mask = self._place(row, v), self._masks[v]
        if mask is not None:
            return self._masked("load", self._vector, [pointer, ir.Constant(_I32, 4), mask, self._zero])
        value = self._builder.load(pointer)
        value.align = 4
        return value

    def _place(self, row: Any, v: int) -> Any:
        first = self._builder.gep(row, [ir.Constant(_I64, v * self._lanes)])
        return self._builder.bitcast(first, self._vector.as_pointer())

    def _masked(self, name: str, result: Any, args: list[Any]) -> Any:
        kind = ir.FunctionType(result, [arg.type for arg in args])
        full = f"llvm.masked.{name}.v{self._lanes}{self._element.intrinsic_name}.p0"
        return self._builder.call(cgutils.get_or_insert_function(self._builder.module, kind, full), args)


@intrinsic(prefer_literal=True)
def transpose_rows(
    typing_context: Any, length: Any, target: Any, target_row: Any, source: Any, source_row: Any, rows: Any, width: Any
) -> Any:
    """Copy so many ``rows`` of ``width`` elements to columns. Rows lie ``source_row`` and ``target_row`` elements
    apart; squares of ``length`` (a literal) are transposed in registers.
    """
    lanes = literal_number(length)
    distance = types.int64
    signature = types.void(length, target, distance, source, distance, distance, distance)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        _, target, target_row, source, source_row, rows, width = args
        one, square = ir.Constant(_I64, 1), ir.Constant(_I64, lanes)
        high, wide = (builder.mul(builder.sdiv(extent, square), square) for extent in (rows, width))

        def place(row: Any, column: Any) -> tuple[Any, Any]:
            start = builder.gep(source, [builder.add(builder.mul(row, source_row), column)])
            return start, builder.gep(target, [builder.add(builder.mul(column, target_row), row)])

        with (
            cgutils.for_range_slice(builder, ir.Constant(_I64, 0), high, square, _I64) as (row, _),
            cgutils.for_range_slice(builder, ir.Constant(_I64, 0), wide, square, _I64) as (column, _),
        ):
            _transpose_square(builder, lanes, *place(row, column), source_row, target_row)
        for top, bottom, left in ((ir.Constant(_I64, 0), high, wide), (high, rows, ir.Constant(_I64, 0))):
            with (
                cgutils.for_range_slice(builder, top, bottom, one, _I64) as (row, _),
                cgutils.for_range_slice(builder, left, width, one, _I64) as (column, _),
            ):
                start, to = place(row, column)
                builder.store(builder.load(start), to)
        return context.get_dummy_value()

    return signature, codegen


def _transpose_square(builder: Any, lanes: int, source: Any, target: Any, source_row: Any, target_row: Any) -> None:
    rows = []
    for r in range(lanes):
        first = builder.gep(source, [builder.mul(source_row, ir.Constant(_I64, r))])
        rows.append(builder.load(_vector_at(builder, first, lanes)))
        rows[-1].align = 4
    size = 1
    while size < lanes:  # exchange the squares of that size off the diagonal of each square of twice the size
        low = [q if q & size == 0 else lanes + (q ^ size) for q in range(lanes)]
        high = [q ^ size if q & size == 0 else lanes + q for q in range(lanes)]
        for r in (r for r in range(lanes) if r & size == 0):
            pair = rows[r], rows[r + size]
            for number, mask in ((r, low), (r + size, high)):
                rows[number] = builder.shuffle_vector(*pair, ir.Constant(ir.VectorType(_I32, lanes), mask))
        size *= 2
    for r, value in enumerate(rows):
        first = builder.gep(target, [builder.mul(target_row, ir.Constant(_I64, r))])
        builder.store(value, _vector_at(builder, first, lanes)).align = 4
