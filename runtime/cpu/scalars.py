"""How each primitive of the loop IR is written in a Numba kernel, for each dtype."""

from __future__ import annotations

from graphc.dtypes import DType
from passes.loop_ir import Instr

LANES = 64  # partial sums of a row: four of the widest registers of float32, enough for additions under way
VECTOR = 16  # elements for which what is left of a row is padded: one of these registers
_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
_COMPARE = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
_LOGICAL = {"and_": "&", "or_": "|", "xor": "^"}
_BITWISE = {"bitand": "&", "bitor": "|", "bitxor": "^"}
_FUNCTION = {
    "maximum": "maximum", "minimum": "minimum", "shl": "shift_left", "shr": "shift_right", "floordiv": "floor_divide",
    "mod": "remainder", "fmod": "fmod", "atan2": "atan2", "hypot": "hypot", "copysign": "copysign",
}  # fmt: skip
_UNARY = {"round": "rint"}  # the others have their own name

HEADER = (
    "from math import inf, nan\n"
    "from numba import float32, float64, int8, int16, int32, int64, uint8, uint16, uint32, uint64\n"
    "from runtime.cpu.arithmetic import floor_divide, fmod, integer_power, remainder, shift_left, shift_right\n"
    "from runtime.cpu.intrinsics import *\n"
    "from runtime.cpu.lanes import *\n"
    "from runtime.cpu.vmath import *\n"
)


def storage(dtype: DType) -> str:
    """The element type in memory: bools are bytes."""
    return "uint8" if dtype.kind == "b" else str(dtype)


def literal(value: str, dtype: DType) -> str:
    """A typed constant; ``value`` is its Python literal."""
    return value if dtype.kind == "b" else f"{dtype}({value})"


def zero(dtype: DType) -> str:
    """0, or false, as a typed constant."""
    return "False" if dtype.kind == "b" else literal("0", dtype)


def load(pointer: str, index: str, dtype: DType) -> str:
    """Read one element."""
    text = f"{pointer}[{index}]"
    return f"{text} != uint8(0)" if dtype.kind == "b" else text


def stored(value: str, dtype: DType) -> str:
    """The form in which ``value`` goes to memory."""
    return f"uint8({value})" if dtype.kind == "b" else value


def binary(name: str, x: str, y: str, dtype: DType) -> str:
    """A two-operand primitive; integers wrap around in their own width."""
    if name in _FUNCTION:
        return f"{_FUNCTION[name]}({x}, {y})"
    if name in _LOGICAL:
        return f"{x} {_LOGICAL[name]} {y}"
    if name in _BITWISE:
        return f"{dtype}({x} {_BITWISE[name]} {y})"
    if name == "pow":
        return f"{'pow' if dtype.kind == 'f' else 'integer_power'}({x}, {y})"
    text = f"{x} {_INFIX[name]} {y}"
    return f"{dtype}({text})" if dtype.kind in "iu" else text


def unary(name: str, x: str, dtype: DType) -> str:
    """A one-operand primitive."""
    if name == "neg":
        return f"-{x}" if dtype.kind == "f" else f"{dtype}(-{x})"
    if name == "abs":
        if dtype.kind == "f":
            return f"fabs({x})"
        return x if dtype.kind == "u" else f"select({x} < {dtype}(0), {dtype}(-{x}), {x})"
    return f"{_UNARY.get(name, name)}({x})"


def cast(x: str, source: DType, target: DType) -> str:
    """A conversion: floats saturate into integers, and anything but zero is true."""
    if target.kind == "b":
        return f"{x} != {source}(0)"
    if source.kind == "f" and target.kind in "iu":
        return f"float_to_{target}({x})"
    return f"{target}({x})"


def expression(instr: Instr, args: list[str], dtypes: list[DType]) -> str:
    """Source text of a computing instruction."""
    match instr.op:
        case "const":
            return literal(instr.attr, instr.dtype)
        case "cast":
            return cast(args[0], dtypes[0], instr.dtype)
        case "unary":
            return unary(instr.attr, args[0], instr.dtype)
        case "binary":
            return binary(instr.attr, args[0], args[1], instr.dtype)
        case "compare":
            return f"{args[0]} {_COMPARE[instr.attr]} {args[1]}"
        case "not":
            return f"not {args[0]}"
        case "select":
            return f"select({args[0]}, {args[1]}, {args[2]})"
        case "fma":
            return f"fma({args[0]}, {args[1]}, {args[2]})"
    raise AssertionError(instr.op)


_OF_BYTES = {"or_": "maximum", "and_": "minimum"}


def combining(combine: str) -> str:
    """The primitive that combines values as they are accumulated: bools are bytes there."""
    return _OF_BYTES.get(combine, combine)


def accumulate(combine: str, total: str, value: str, dtype: DType) -> str:
    """``total``, in the form in which values are stored, combined with one more value."""
    name = combining(combine)
    if name in ("maximum", "minimum"):
        return f"accumulated_{name}({total}, {stored(value, dtype)})"
    return binary(name, total, stored(value, dtype), dtype)


def accumulated(total: str, dtype: DType) -> str:
    """The value that was accumulated."""
    return f"({total} != uint8(0))" if dtype.kind == "b" else total


def identity(combine: str, dtype: DType) -> str:
    """What a reduction starts from, in the form in which values are accumulated."""
    if dtype.kind == "b":
        return f"uint8({int(combine == 'and_')})"
    if combine in ("add", "mul"):
        return literal(str(int(combine == "mul")), dtype)
    largest = combine == "minimum"
    if dtype.kind == "f":
        return literal("inf" if largest else "-inf", dtype)
    import numpy as np

    info = np.iinfo(dtype)
    return literal(str(info.max if largest else info.min), dtype)
