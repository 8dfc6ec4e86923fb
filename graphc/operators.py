"""Operators and methods of tensors: short spellings of the public functions, as NumPy's arrays have them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, cast

from graphc.dtypes import DTypeLike
from graphc.errors import DTypeError, SymbolicError
from graphc.hints import OTHER_NAMES

if TYPE_CHECKING:
    from types import ModuleType

    from graphc.node import Tensor


def _ops() -> ModuleType:
    import graphc.ops

    return graphc.ops


def _binary(name: str, x: Any, y: Any) -> Tensor:
    found: Tensor = getattr(_ops(), name)(x, y)
    return found


def _unary(name: str, x: Any) -> Tensor:
    found: Tensor = getattr(_ops(), name)(x)
    return found


class Operators:
    """What ``x + y``, ``x.sum()`` and their kind build; mixed into :class:`graphc.Tensor`."""

    __slots__ = ()
    __hash__ = object.__hash__

    @property
    def ndim(self) -> int:
        """Number of axes."""
        raise NotImplementedError

    def _no_value(self, what: str, instead: str) -> NoReturn:
        raise NotImplementedError

    @property
    def T(self) -> Tensor:
        """All axes reversed."""
        found: Tensor = _ops().permute_dims(self, tuple(range(self.ndim))[::-1])
        return found

    @property
    def mT(self) -> Tensor:
        """The last two axes exchanged."""
        found: Tensor = _ops().matrix_transpose(self)
        return found

    def __add__(self, other: Any) -> Tensor:
        return _binary("add", self, other)

    def __radd__(self, other: Any) -> Tensor:
        return _binary("add", other, self)

    def __sub__(self, other: Any) -> Tensor:
        return _binary("subtract", self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return _binary("subtract", other, self)

    def __mul__(self, other: Any) -> Tensor:
        return _binary("multiply", self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return _binary("multiply", other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return _binary("divide", self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return _binary("divide", other, self)

    def __floordiv__(self, other: Any) -> Tensor:
        return _binary("floor_divide", self, other)

    def __rfloordiv__(self, other: Any) -> Tensor:
        return _binary("floor_divide", other, self)

    def __mod__(self, other: Any) -> Tensor:
        return _binary("remainder", self, other)

    def __rmod__(self, other: Any) -> Tensor:
        return _binary("remainder", other, self)

    def __divmod__(self, other: Any) -> tuple[Tensor, Tensor]:
        return self // other, self % other

    def __rdivmod__(self, other: Any) -> tuple[Tensor, Tensor]:
        return other // self, other % self

    def __pow__(self, other: Any) -> Tensor:
        return _binary("pow", self, other)

    def __rpow__(self, other: Any) -> Tensor:
        return _binary("pow", other, self)

    def __matmul__(self, other: Any) -> Tensor:
        return _binary("matmul", self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return _binary("matmul", other, self)

    def __lt__(self, other: Any) -> Tensor:
        return _binary("less", self, other)

    def __le__(self, other: Any) -> Tensor:
        return _binary("less_equal", self, other)

    def __gt__(self, other: Any) -> Tensor:
        return _binary("greater", self, other)

    def __ge__(self, other: Any) -> Tensor:
        return _binary("greater_equal", self, other)

    def __eq__(self, other: Any) -> Tensor:  # type: ignore[override]  # elementwise, as in NumPy
        return _binary("equal", self, other)

    def __ne__(self, other: Any) -> Tensor:  # type: ignore[override]  # elementwise, as in NumPy
        return _binary("not_equal", self, other)

    def __and__(self, other: Any) -> Tensor:
        return _binary("bitwise_and", self, other)

    def __rand__(self, other: Any) -> Tensor:
        return _binary("bitwise_and", other, self)

    def __or__(self, other: Any) -> Tensor:
        return _binary("bitwise_or", self, other)

    def __ror__(self, other: Any) -> Tensor:
        return _binary("bitwise_or", other, self)

    def __xor__(self, other: Any) -> Tensor:
        return _binary("bitwise_xor", self, other)

    def __rxor__(self, other: Any) -> Tensor:
        return _binary("bitwise_xor", other, self)

    def __lshift__(self, other: Any) -> Tensor:
        return _binary("bitwise_left_shift", self, other)

    def __rlshift__(self, other: Any) -> Tensor:
        return _binary("bitwise_left_shift", other, self)

    def __rshift__(self, other: Any) -> Tensor:
        return _binary("bitwise_right_shift", self, other)

    def __rrshift__(self, other: Any) -> Tensor:
        return _binary("bitwise_right_shift", other, self)

    def __invert__(self) -> Tensor:
        return _unary("bitwise_invert", self)

    def __neg__(self) -> Tensor:
        return _unary("negative", self)

    def __pos__(self) -> Tensor:
        return cast("Tensor", self)

    def __abs__(self) -> Tensor:
        return _unary("abs", self)

    def __round__(self, digits: int | None = None) -> Tensor:
        if digits is not None:
            raise DTypeError(
                f"round: to whole numbers only, got {digits!r} digits; write round(x * 10**{digits}) / 10**{digits}"
            )
        return _unary("round", self)

    def __floor__(self) -> Tensor:
        return _unary("floor", self)

    def __ceil__(self) -> Tensor:
        return _unary("ceil", self)

    def __trunc__(self) -> Tensor:
        return _unary("trunc", self)

    # What asks for a value.

    def __format__(self, spec: str) -> str:
        if spec:
            self._no_value(f"the format {spec!r}", "Run it, and format the number: f'{session.run(t, feeds):.3f}'")
        return str(self)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        """NumPy's functions build no nodes: say which of graphc does. A shape needs no value."""
        name = function.__name__
        if name in ("shape", "ndim"):
            return getattr(self, name)
        ours = OTHER_NAMES.get(name, name)
        known = ours in _ops().__all__
        advice = f"Use graphc.{ours}(), which builds a node" if known else "Compose it of graphc's functions"
        whole = f"{function.__module__}.{name}()"
        self._no_value(whole, f"{advice}, or run it: session.run(t, feeds) returns a NumPy array")

    def __getitem__(self, key: Any) -> Tensor:
        found: Tensor = _ops().subscript(self, key)
        return found

    def __setitem__(self, key: Any, value: Any) -> NoReturn:
        raise SymbolicError(
            f"the elements of a tensor are not assigned, it is a value: {cast('Tensor', self).describe()}. Make a new "
            f"one with graphc.where(condition, new, old) or graphc.concat; graphc.assign(p, value) updates a parameter"
        )

    # Methods, as NumPy's arrays have them.

    def reshape(self, *shape: Any) -> Tensor:
        """The same elements in C order under another shape; one extent may be -1."""
        if len(shape) == 1 and isinstance(shape[0], (tuple, list)):
            shape = tuple(shape[0])
        found: Tensor = _ops().reshape(self, shape)
        return found

    def astype(self, dtype: DTypeLike) -> Tensor:
        """The values converted to ``dtype``."""
        found: Tensor = _ops().astype(self, dtype)
        return found

    def sum(self, axis: int | tuple[int, ...] | None = None, *, keepdims: bool = False) -> Tensor:
        """Sum over ``axis`` (all axes when None)."""
        found: Tensor = _ops().sum(self, axis=axis, keepdims=keepdims)
        return found

    def mean(self, axis: int | tuple[int, ...] | None = None, *, keepdims: bool = False) -> Tensor:
        """Arithmetic mean over ``axis`` (all axes when None)."""
        found: Tensor = _ops().mean(self, axis=axis, keepdims=keepdims)
        return found

    def max(self, axis: int | tuple[int, ...] | None = None, *, keepdims: bool = False) -> Tensor:
        """Largest element over ``axis`` (all axes when None); NaN if one is NaN."""
        found: Tensor = _ops().max(self, axis=axis, keepdims=keepdims)
        return found

    def min(self, axis: int | tuple[int, ...] | None = None, *, keepdims: bool = False) -> Tensor:
        """Smallest element over ``axis`` (all axes when None); NaN if one is NaN."""
        found: Tensor = _ops().min(self, axis=axis, keepdims=keepdims)
        return found

    def prod(self, axis: int | tuple[int, ...] | None = None, *, keepdims: bool = False) -> Tensor:
        """Product over ``axis`` (all axes when None)."""
        found: Tensor = _ops().prod(self, axis=axis, keepdims=keepdims)
        return found

    def any(self, axis: int | tuple[int, ...] | None = None, *, keepdims: bool = False) -> Tensor:
        """Whether at least one element along ``axis`` (all axes when None) is true."""
        found: Tensor = _ops().any(self, axis=axis, keepdims=keepdims)
        return found

    def all(self, axis: int | tuple[int, ...] | None = None, *, keepdims: bool = False) -> Tensor:
        """Whether all elements along ``axis`` (all axes when None) are true."""
        found: Tensor = _ops().all(self, axis=axis, keepdims=keepdims)
        return found

    def var(
        self, axis: int | tuple[int, ...] | None = None, *, correction: float = 0.0, keepdims: bool = False
    ) -> Tensor:
        """Variance over ``axis`` (all axes when None)."""
        found: Tensor = _ops().var(self, axis=axis, correction=correction, keepdims=keepdims)
        return found

    def std(
        self, axis: int | tuple[int, ...] | None = None, *, correction: float = 0.0, keepdims: bool = False
    ) -> Tensor:
        """Standard deviation over ``axis`` (all axes when None)."""
        found: Tensor = _ops().std(self, axis=axis, correction=correction, keepdims=keepdims)
        return found

    def argmax(self, axis: int | None = None, *, keepdims: bool = False) -> Tensor:
        """Index of the first largest element along ``axis``, or in C order when None."""
        found: Tensor = _ops().argmax(self, axis=axis, keepdims=keepdims)
        return found

    def argmin(self, axis: int | None = None, *, keepdims: bool = False) -> Tensor:
        """Index of the first smallest element along ``axis``, or in C order when None."""
        found: Tensor = _ops().argmin(self, axis=axis, keepdims=keepdims)
        return found

    def squeeze(self, axis: int | tuple[int, ...]) -> Tensor:
        """Without the given axes, whose extents must be 1."""
        found: Tensor = _ops().squeeze(self, axis)
        return found
