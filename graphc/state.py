"""State: parameters, which hold a value in every session, and updates, which change it at the end of a run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from graphc.dtypes import DTypeLike, as_dtype, is_weak
from graphc.errors import DTypeError, ScopeError, ShapeError, UpdateError
from graphc.init import Initializer
from graphc.node import Node, Tensor, TensorType, attrs_of, frozen, make_node
from graphc.opdef import Domain, Inference, Kind, NotDifferentiable, OpDef, register
from graphc.ops.leaf import as_array, as_shape, as_tensor, scalar
from graphc.ops.shape import broadcast_to
from graphc.scope import current_body


def _infer_parameter(c: Inference) -> tuple[TensorType, ...]:
    return (TensorType(c.attrs["shape"], c.attrs["dtype"]),)


PARAMETER = register(
    OpDef(
        "parameter", Kind.LEAF, _infer_parameter, None, NotDifferentiable("a leaf has no inputs"),
        domain=Domain(kinds=()), doc="A value that a session keeps from run to run.",
    )
)  # fmt: skip


def _infer_assign(c: Inference) -> tuple[TensorType, ...]:
    parameter, value = c.inputs
    if value.dtype != parameter.dtype:
        raise c.fail(
            f"the value must have the parameter's dtype {parameter.dtype}, got {value.dtype}; "
            f"convert with .astype({str(parameter.dtype)!r})",
            DTypeError,
        )
    if value.ndim != parameter.ndim:
        raise c.fail(f"the value must have the parameter's shape {parameter.shape}, got {value.shape}")
    for axis, (wanted, found) in enumerate(zip(parameter.shape, value.shape, strict=True)):
        c.equal(wanted, found, f"extents of axis {axis} of parameter and value")
    return ()


ASSIGN = register(
    OpDef(
        "assign", Kind.UPDATE, _infer_assign, None, NotDifferentiable("an update has no result"),
        domain=Domain(kinds=()), doc="Write a value into a parameter at the end of a run.",
    )
)  # fmt: skip


class Update:
    """One or more assignments, fetched like a tensor; its fetched value is None. All take effect together at the
    end of a run.
    """

    __slots__ = ("assigns",)

    def __init__(self, assigns: tuple[Node, ...]) -> None:
        self.assigns = assigns

    def __iter__(self) -> Iterator[Node]:
        return iter(self.assigns)

    def __repr__(self) -> str:
        names = ", ".join(a.inputs[0].name for a in self.assigns)
        return f"<Update of {names or 'nothing'}>"


def check_updates(assigns: Sequence[Node]) -> tuple[Node, ...]:
    """The distinct assignments; ``UpdateError`` naming both lines when two write one parameter."""
    chosen: dict[Tensor, Node] = {}
    for assign in assigns:
        parameter = assign.inputs[0]
        other = chosen.setdefault(parameter, assign)
        if other is not assign:
            raise UpdateError(
                f"parameter {parameter.name!r} is assigned twice in one run:\n    {other.where}\n    {assign.where}\n"
                f"  combine the two values in one assign"
            )
    return tuple(chosen.values())


def parameter(
    value: Any,
    shape: Sequence[int] | None = None,
    dtype: DTypeLike | None = None,
    name: str | None = None,
    *,
    trainable: bool = True,
) -> Tensor:
    """A value that each session keeps from run to run.

    ``value`` is an array (its dtype is kept; lists and Python floats give float32), or an initialiser from
    ``graphc.init`` with ``shape`` (fixed extents; float32 unless ``dtype`` is given). ``trainable=False`` leaves it
    out of ``minimize``. Raises ``ShapeError`` and ``DTypeError``.
    """
    what = f"parameter {name!r}" if name else "parameter"
    if isinstance(value, Tensor):
        raise DTypeError(
            f"{what}: the initial value cannot be a tensor ({value.describe()}); use assign to set it from one"
        )
    initial: Any = value
    if isinstance(value, Initializer) or callable(value):
        if shape is None:
            raise ShapeError(f"{what}: an initialiser needs shape=, for example parameter(init.zeros(), shape=(3, 4))")
        if inspect.isfunction(value) and value.__module__ == Initializer.__module__:
            raise DTypeError(f"{what}: the initialiser is not called; write graphc.init.{value.__name__}()")
        extents = as_shape(shape, what)
        found = as_dtype("float32" if dtype is None else dtype)
        initial = _initializer(value)
    else:
        if shape is None and _is_shape(value):
            raise ShapeError(
                f"{what}: the tuple {value} could be a shape or values; write parameter(init, shape={value}) for a "
                f"first value of that shape, or parameter({list(value)}) for these values"
            )
        if dtype is None and isinstance(value, (list, tuple)):
            dtype = as_array(value, what).dtype
            dtype = "float32" if dtype.kind in "iu" else dtype  # lists give float32; an array keeps its dtype
        array = as_array(value, what, dtype)
        if shape is not None and tuple(shape) != array.shape:
            raise ShapeError(f"{what}: shape={tuple(shape)} was asked for, but the value has shape {array.shape}")
        extents, found, initial = array.shape, array.dtype, frozen(array)
    if not all(isinstance(e, int) for e in extents):
        raise ShapeError(f"{what}: extents must be numbers, got {extents}")
    if current_body() is not None:
        raise ScopeError(f"{what}: a parameter is made outside loop and branch bodies, and used inside them")
    attrs = attrs_of(shape=extents, dtype=found, initial=initial, trainable=bool(trainable))
    return make_node(PARAMETER, (), attrs, name).outputs[0]


def _is_shape(value: Any) -> bool:
    """Whether ``value`` looks like a shape: a tuple of ints."""
    if not isinstance(value, tuple) or not value:
        return False
    return all(isinstance(e, (int, np.integer)) and not isinstance(e, bool) for e in value)


def _initializer(value: Callable[..., Any]) -> Callable[..., np.ndarray[Any, Any]]:
    return value


def is_parameter(tensor: object) -> bool:
    """Whether ``tensor`` is a parameter."""
    return isinstance(tensor, Tensor) and tensor.node.op is PARAMETER


def assign(parameter: Tensor, value: Any) -> Update:
    """An update that writes ``value`` into ``parameter`` when a run ends; a scalar fills it.

    Every read in the same run sees the value from before. Raises ``UpdateError`` when the target is not a parameter,
    ``ShapeError`` and ``DTypeError`` when the value does not fit, ``ScopeError`` inside a loop or branch body.
    """
    if not is_parameter(parameter):
        shown = parameter.describe() if isinstance(parameter, Tensor) else repr(parameter)
        raise UpdateError(f"assign: only a parameter can be assigned, got {shown}")
    if current_body() is not None:
        raise ScopeError(
            f"assign: {parameter.name!r} cannot be updated inside a loop or branch body; update it after the loop"
        )
    tensor = scalar(value, parameter.dtype) if is_weak(value) else as_tensor(value, "assign")
    if tensor.ndim == 0:
        tensor = broadcast_to(tensor, parameter.shape)
    return Update((make_node(ASSIGN, (parameter, tensor)),))


def group(*updates: Update) -> Update:
    """Several updates as one. ``UpdateError`` when two of them write one parameter."""
    for update in updates:
        if not isinstance(update, Update):
            raise UpdateError(f"group: expected updates (from assign, group or minimize), got {type(update).__name__}")
    return Update(check_updates([assign for update in updates for assign in update.assigns]))
