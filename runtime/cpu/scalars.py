"""How each primitive of the loop IR is written in a Numba kernel, for each dtype."""

from __future__ import annotations

from graphc.dtypes import DType
from passes.loop_ir import Instr

LANES = 256  # partial sums of a row: enough for every vector width, few enough for the first-level cache
_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
_COMPARE = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
_LOGICAL = {"and_": "&", "or_": "|", "xor": "^"}
_VMATH = {"exp", "log", "log1p", "expm1", "tanh", "sigmoid", "erf"}
_INTRINSIC = {"sqrt": "sqrt", "floor": "floor", "ceil": "ceil", "sin": "sin", "cos": "cos"}

HEADER = (
    "from math import inf, nan\n"
    "from numba import float32, float64, int8, int16, int32, int64, uint8, uint16, uint32, uint64\n"
    "from runtime.cpu.intrinsics import *\n"
    "from runtime.cpu.vmath import erf, exp, expm1, log, log1p, sigmoid, tanh\n"
)


def storage(dtype: DType) -> str:
    """The element type in memory: bools are bytes."""
    return "uint8" if dtype.kind == "b" else str(dtype)


def literal(value: str, dtype: DType) -> str:
    """A typed constant; ``value`` is its Python literal."""
    return value if dtype.kind == "b" else f"{dtype}({value})"


def load(pointer: str, index: str, dtype: DType) -> str:
    """Read one element."""
    text = f"{pointer}[{index}]"
    return f"{text} != uint8(0)" if dtype.kind == "b" else text


def stored(value: str, dtype: DType) -> str:
    """The form in which ``value`` goes to memory."""
    return f"uint8({value})" if dtype.kind == "b" else value


def binary(name: str, x: str, y: str, dtype: DType) -> str:
    """A two-operand primitive; integers wrap around in their own width."""
    if name in ("maximum", "minimum"):
        return f"{name}({x}, {y})"
    if name in _LOGICAL:
        return f"{x} {_LOGICAL[name]} {y}"
    if name == "pow":
        return f"power({x}, {y})"
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
    return f"{name if name in _VMATH else _INTRINSIC[name]}({x})"


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


def identity(combine: str, dtype: DType) -> str:
    """What a reduction starts from."""
    if combine == "add":
        return literal("0", dtype)
    largest = combine == "minimum"
    if dtype.kind == "f":
        return literal("inf" if largest else "-inf", dtype)
    import numpy as np

    info = np.iinfo(dtype)
    return literal(str(info.max if largest else info.min), dtype)
