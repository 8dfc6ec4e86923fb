"""What an op means: one frozen row per op, registered beside the public function that builds its nodes."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from graphc.dims import Extent, evaluate
from graphc.errors import CompilerError, DTypeError, GraphcError, ShapeError

if TYPE_CHECKING:
    from graphc.dims import Symbol
    from graphc.node import Node, Tensor, TensorType

Attrs: TypeAlias = Mapping[str, Any]
Vjp: TypeAlias = "Callable[[Node, Tensor], Sequence[Tensor | None]]"


class Constraint(tuple[Extent, "Extent | None"]):
    """Two extents that must be equal; or one, with None, that must be at least 1. Equal pairs are one constraint;
    ``what`` says in messages which extents they are.
    """

    what: str

    def __new__(cls, a: Extent, b: Extent | None, what: str) -> Constraint:
        pair = super().__new__(cls, (a, b))
        pair.what = what
        return pair


class Kind(enum.Enum):
    """How the compiler may treat an op."""

    LEAF = "leaf"  # a value from outside: placeholder, parameter, constant, extent
    SCALAR = "scalar"  # one element out of one element of each (broadcast) input, said by ``emit``
    VIEW = "view"  # the same elements at other places, said by ``index_map``
    RESHAPE = "reshape"  # the same elements in the same C order
    REDUCE = "reduce"  # combines elements along attrs["axis"]; attrs["keepdims"]
    MATMUL = "matmul"  # a product of matrices
    GATHER = "gather"  # elements of its first input (in memory) at computed indices; ``emit`` calls ``load``
    CONCAT = "concat"  # its inputs one after another along attrs["axis"]
    ROUTINE = "routine"  # a kernel written by hand in the runtime, named by ``routine``
    COMPOSITE = "composite"  # lowered to other ops by ``decompose``
    TRANSFORM = "transform"  # replaced by what it stands for before anything else (gradient)
    UPDATE = "update"  # writes a parameter at the end of a run


@dataclass(frozen=True, slots=True)
class NotDifferentiable:
    """Says that an op has no derivative, and why."""

    why: str


@dataclass(frozen=True, slots=True)
class Strided:
    """How a view walks one axis of its input: index ``start + step * i`` for index ``i`` of the result's ``axis``."""

    axis: int
    step: int
    start: Extent


@dataclass(frozen=True, slots=True)
class Routine:
    """A kernel of the runtime by its name, and the integers that it is given. Its operands are the node's inputs, then
    its results, each contiguous.
    """

    name: str
    sizes: tuple[Extent, ...]


@dataclass(frozen=True, slots=True)
class Domain:
    """What arguments an op takes, from which the tests generate samples.

    ``kinds`` has one string for each input: the dtype kinds it may have (of "f", "i", "u", "b"). Inputs that share a
    kind have one dtype. ``low`` and ``high`` bound the values where gradients are compared with differences; ``away``
    lists points where the op has a kink, kept away from. ``bounded`` says that values outside are an error, at any
    time. ``rank`` is the least rank of an input. ``empty`` says whether axes may have no elements. ``shapes``
    replaces the shapes that the tests try by themselves: one shape for each input, where a string is a symbolic
    extent.
    """

    kinds: tuple[str, ...] = ("f",)
    low: float = -2.0
    high: float = 2.0
    away: tuple[float, ...] = ()
    bounded: bool = False
    rank: int = 0
    empty: bool = True
    shapes: tuple[tuple[tuple[int | str, ...], ...], ...] = ()


@dataclass(frozen=True, slots=True, eq=False)  # one row per op, compared by identity
class OpDef:
    """All that an op means.

    infer:      result types, and constraints on symbolic extents, from an :class:`Inference`.
    reference:  the living definition on NumPy arrays, given a :class:`Reference` for attrs and extents.
    vjp:        ``(node, g)`` to one cotangent or None per input, built with public ops.
    emit:       for ``Kind.SCALAR``: ``emit(builder, attrs, *values)``. For ``Kind.GATHER`` the first value is a handle
                of the first input, for ``builder.load``; the other inputs broadcast to the result.
    index_map:  for ``Kind.VIEW``: for each input axis, the result axis it follows (perhaps ``Strided``), or None where
                only its first element is read.
    routine:    for ``Kind.ROUTINE``: the runtime's kernel for a node.
    decompose:  for ``Kind.COMPOSITE``: the same result built from simpler public ops.
    reduce:     for ``Kind.REDUCE``: the combining primitive.
    fallible:   whether a run may fail here for what it finds in the data (``emit`` calls ``guard``).
    cost:       of one element, in simple operations; decides what may be computed twice.
    domain:     what arguments the op takes; the tests generate them.
    samples:    for an op with attributes: functions of its inputs that build its nodes, one for each set to try.
    """

    name: str
    kind: Kind
    infer: Callable[[Inference], tuple[TensorType, ...]]
    reference: Callable[..., Any] | None
    vjp: Vjp | NotDifferentiable
    emit: Callable[..., Any] | None = None
    index_map: Callable[[Node], tuple[int | Strided | None, ...]] | None = None
    routine: Callable[[Node], Routine] | None = None
    decompose: Callable[[Node], Tensor] | None = None
    reduce: str | None = None
    commutative: bool = False
    fallible: bool = False
    cost: int = 1
    domain: Domain = field(default_factory=Domain)
    samples: tuple[Callable[..., Tensor], ...] = ()
    doc: str = ""

    def __repr__(self) -> str:
        return f"<op {self.name}>"


OPS: dict[str, OpDef] = {}


def register(op: OpDef) -> OpDef:
    """Add ``op`` to the registry; its name must be new."""
    if op.name in OPS:
        raise CompilerError(f"op {op.name!r} is registered twice")
    OPS[op.name] = op
    return op


class Inference:
    """What ``infer`` sees of a node being made: inputs and attrs; and how it says what must hold."""

    __slots__ = ("attrs", "constraints", "inputs", "op")

    def __init__(self, op: OpDef, inputs: Sequence[Tensor], attrs: Attrs) -> None:
        self.op = op
        self.inputs = inputs
        self.attrs = attrs
        self.constraints: list[Constraint] = []

    def fail(self, message: str, error: type[GraphcError] = ShapeError) -> GraphcError:
        """An error about this op that shows every operand: ``raise c.fail("...")``."""
        operands = "".join(f"\n    {tensor.describe()}" for tensor in self.inputs)
        return error(f"{self.op.name}: {message}{operands and f'{chr(10)}  operands:{operands}'}")

    def equal(self, a: Extent, b: Extent, what: str) -> Extent:
        """Require two extents to be equal and return the one that says more: a number, then a name."""
        if a == b:
            return a
        if isinstance(a, int) and isinstance(b, int):
            raise self.fail(f"{what} must be equal, got {a} and {b}")
        self.constraints.append(Constraint(a, b, what))
        if isinstance(a, int) or isinstance(b, int):
            return a if isinstance(a, int) else b
        return b if str(a).startswith("?") else a

    def nonempty(self, extent: Extent, what: str) -> None:
        """Require an extent of at least 1."""
        if extent == 0:
            raise self.fail(f"{what} has no elements")
        if not isinstance(extent, int):
            self.constraints.append(Constraint(extent, None, what))

    def broadcast(self, shapes: Sequence[tuple[Extent, ...]]) -> tuple[Extent, ...]:
        """NumPy's broadcasting. An extent written 1 broadcasts; a symbolic one must equal what it meets."""
        if len(shapes) == 1:
            return shapes[0]
        first = shapes[0]
        if all(shape == first for shape in shapes):
            return first
        rank = max(len(shape) for shape in shapes)
        result: list[Extent] = []
        for axis in range(-rank, 0):
            extent: Extent = 1
            for shape in shapes:
                if len(shape) >= -axis and shape[axis] != 1:
                    other = shape[axis]
                    extent = other if extent == 1 else self.equal(extent, other, f"extents of axis {axis}")
            result.append(extent)
        return tuple(result)

    def require_dtype(self, kinds: str, what: str = "operands", instead: str = "") -> None:
        """Every input's dtype kind must be one of ``kinds`` (b, i, u, f); ``instead`` says how to get there."""
        for tensor in self.inputs:
            if tensor.dtype.kind not in kinds:
                names = {"b": "bool", "i": "signed integer", "u": "unsigned integer", "f": "float"}
                wanted = " or ".join(names[k] for k in kinds)
                advice = instead and f"; {instead}"
                raise self.fail(f"{what} must be {wanted}, got {tensor.dtype}{advice}", DTypeError)


class Reference:
    """What a reference rule sees besides its arrays: attrs, result types, and the value of symbolic extents."""

    __slots__ = ("attrs", "node", "values")

    def __init__(self, node: Node, values: Mapping[Symbol, int]) -> None:
        self.node = node
        self.attrs = node.attrs
        self.values = values

    def extent(self, extent: Extent) -> int:
        return evaluate(extent, self.values)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the (first) result, as numbers."""
        return tuple(evaluate(e, self.values) for e in self.node.results[0].shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.node.results[0].dtype
