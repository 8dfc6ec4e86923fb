"""What the loop IR's instructions cost, in simple operations."""

from __future__ import annotations

from passes.loop_ir import Instr

# Measured, in simple operations; every other primitive counts as a half.
_COSTLY = {
    "exp": 8, "exp2": 8, "expm1": 8, "log": 8, "log1p": 8, "log2": 12, "log10": 12, "sigmoid": 8, "tanh": 8, "erf": 8,
    "erfc": 32, "sin": 24, "cos": 24, "tan": 24, "asin": 12, "acos": 12, "atan": 16, "atan2": 20, "sinh": 20,
    "cosh": 12, "asinh": 28, "acosh": 28, "atanh": 32, "pow": 40, "hypot": 12, "floordiv": 40, "mod": 40, "fmod": 40,
}  # fmt: skip


_LOOPS = {"f": {"mod", "fmod", "floordiv"}, "i": {"pow"}, "u": {"pow"}}  # by the kind of dtype


def is_straight(instr: Instr) -> bool:
    """Whether an instruction is straight-line arithmetic, of which a vector costs what an element does."""
    return instr.attr not in _LOOPS.get(instr.dtype.kind, ())


def cost_of(instr: Instr) -> float:
    """The cost of one instruction, for one element."""
    return _COSTLY.get(instr.attr, 0.5)
