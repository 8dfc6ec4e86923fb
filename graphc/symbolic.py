"""What asks a symbolic extent for its value, which no graph knows before data is fed."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from graphc.errors import SymbolicError


class SymbolicValue:
    """Conversions and comparisons that need a number, refused; what meets a tensor is left to the tensor."""

    __slots__ = ()

    def _no_value(self, instead: str) -> NoReturn:
        raise SymbolicError(f"the extent {self} is symbolic; its value is known only when data is fed. {instead}")

    def __int__(self) -> NoReturn:
        self._no_value("Write the number into the placeholder's shape if it is always the same")

    def __index__(self) -> NoReturn:
        self._no_value("range() and NumPy need a number; graphc.arange(n), graphc.zeros((n,)) and x[:n] take an extent")

    def _compared(self, other: Any) -> Any:
        if not _is_number(other):
            return NotImplemented
        self._no_value("Compare in the graph: graphc.constant(0) + n > 3 is a bool tensor")

    __lt__ = __le__ = __gt__ = __ge__ = _compared

    def _divided(self, other: Any) -> Any:
        if not _is_number(other):
            return NotImplemented
        self._no_value("Write n // 2 for an extent that comes out exactly, or divide a tensor: t / n")

    __truediv__ = __rtruediv__ = _divided


def _is_number(other: object) -> bool:
    return isinstance(other, (int, float, np.number, SymbolicValue))
