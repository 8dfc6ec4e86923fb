"""Nodes and tensors: the graph itself.

A node is immutable; a tensor is one of its results. There is no global graph: a graph is what can be reached from the
tensors that someone holds.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from graphc.dims import Extent
from graphc.dtypes import DType
from graphc.errors import ScopeError, SymbolicError
from graphc.hints import missing
from graphc.opdef import Attrs, Constraint, Inference, OpDef
from graphc.operators import Operators
from graphc.scope import Body, current_body
from graphc.where import Location, capture

_serials = itertools.count()
NO_ATTRS: Attrs = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class TensorType:
    """Shape (extents, each an int or a symbolic ``Dim``) and dtype of a tensor."""

    shape: tuple[Extent, ...]
    dtype: DType

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join('?' if str(e).startswith('?') else str(e) for e in self.shape)}]"


class Node:
    """One application of an op. Immutable; compared and hashed by identity.

    ``where`` is the user's line; ``role`` is "forward", or what the transform that made the node says ("backward").
    ``constraints`` say what must turn out to hold between extents. ``also`` are the lines of equal nodes for which this
    one stands.
    """

    __slots__ = (
        "__weakref__", "also", "attrs", "body", "constraints", "inputs", "name", "op", "outputs", "results", "role",
        "serial", "where",
    )  # fmt: skip
    op: OpDef
    inputs: tuple[Tensor, ...]
    attrs: Attrs
    results: tuple[TensorType, ...]
    name: str | None
    where: Location
    role: str
    body: Body | None
    constraints: tuple[Constraint, ...]
    serial: int
    outputs: tuple[Tensor, ...]
    also: tuple[Location, ...]

    def __init__(
        self,
        op: OpDef,
        inputs: tuple[Tensor, ...],
        attrs: Attrs,
        results: tuple[TensorType, ...],
        *,
        name: str | None,
        where: Location,
        role: str,
        body: Body | None,
        constraints: tuple[Constraint, ...] = (),
        also: tuple[Location, ...] = (),
    ) -> None:
        put = object.__setattr__
        put(self, "op", op)
        put(self, "inputs", inputs)
        put(self, "attrs", attrs)
        put(self, "results", results)
        put(self, "name", name)
        put(self, "where", where)
        put(self, "role", role)
        put(self, "body", body)
        put(self, "constraints", constraints)
        put(self, "also", also)
        put(self, "serial", next(_serials))
        put(self, "outputs", tuple([Tensor(self, i) for i in range(len(results))]))

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a node is immutable: {name!r} cannot be set")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a node is immutable: {name!r} cannot be deleted")

    @property
    def places(self) -> tuple[Location, ...]:
        """The user's lines that this node computes: its own first."""
        return (self.where, *self.also)

    def rebuilt(
        self, inputs: tuple[Tensor, ...], attrs: Attrs | None = None, also: tuple[Location, ...] | None = None
    ) -> Node:
        """The same op on other inputs of the same types, with this node's name, location and role."""
        return Node(
            self.op, inputs, self.attrs if attrs is None else attrs, self.results, name=self.name, where=self.where,
            role=self.role, body=self.body, constraints=self.constraints, also=self.also if also is None else also,
        )  # fmt: skip

    @property
    def label(self) -> str:
        """The user's name, or the op and a serial number."""
        return self.name or f"{self.op.name}_{self.serial}"

    def __repr__(self) -> str:
        types = ", ".join(str(t) for t in self.results)
        return f"<Node {self.label}: {self.op.name} -> {types} at {self.where}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a graph is not pickled: keep the Python code that builds it, and store parameters with Session.save(path)"
        )


def make_node(op: OpDef, inputs: Sequence[Tensor], attrs: Attrs = NO_ATTRS, name: str | None = None) -> Node:
    """A new node of ``op``: shapes and dtypes inferred, location and body captured.

    Raises what ``op.infer`` raises (``ShapeError``, ``DTypeError``), and ``ScopeError`` for an input from a body that
    is not being traced.
    """
    where, role = capture()
    body = current_body()
    inference = Inference(op, inputs, attrs)
    outer = [tensor for tensor in inputs if tensor.node.body is not body]
    for tensor in outer:
        _check_scope(op, tensor, body)
    results = op.infer(inference)
    for tensor in outer:
        _capture(tensor, body)
    return Node(
        op, tuple(inputs), attrs, results, name=name, where=where, role=role, body=body,
        constraints=tuple(inference.constraints),
    )  # fmt: skip


def _check_scope(op: OpDef, tensor: Tensor, body: Body | None) -> None:
    """A tensor of another body may be used when that body encloses this one."""
    home = tensor.node.body
    if home is not None and not home.encloses(body):
        raise ScopeError(
            f"{op.name}: {tensor.describe()} was made inside the body of {home.label!r} and cannot be used outside it; "
            f"return it from the body instead"
        )


def _capture(tensor: Tensor, body: Body | None) -> None:
    """Note ``tensor`` as a capture of this body and of those around it, up to its own."""
    home = tensor.node.body
    while body is not None and body is not home:
        body.captures[tensor] = None
        body = body.parent


class Tensor(Operators):
    """A symbolic array: result ``index`` of ``node``. It has a shape and a dtype, and no value until a session
    runs it.
    """

    __slots__ = ("__weakref__", "index", "node")
    __array_ufunc__ = None  # so that ndarray * tensor builds a node
    node: Node
    index: int

    def __init__(self, node: Node, index: int) -> None:
        object.__setattr__(self, "node", node)
        object.__setattr__(self, "index", index)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a tensor is immutable: {name!r} cannot be set")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a tensor is immutable: {name!r} cannot be deleted")

    @property
    def type(self) -> TensorType:
        return self.node.results[self.index]

    @property
    def shape(self) -> tuple[Extent, ...]:
        """Extents, each an int or a symbolic ``Dim``."""
        return self.node.results[self.index].shape

    @property
    def dtype(self) -> DType:
        return self.node.results[self.index].dtype

    @property
    def ndim(self) -> int:
        return len(self.node.results[self.index].shape)

    @property
    def name(self) -> str:
        label = self.node.label
        return label if len(self.node.results) == 1 else f"{label}:{self.index}"

    def describe(self) -> str:
        """One line for error messages: name, op, type and place."""
        op = self.node.op.name
        kind = "" if op in (self.node.name, "constant") else f"{op} "
        return f"{self.name}: {kind}{self.type} ({self.node.where})"

    def __repr__(self) -> str:
        return f"<Tensor {self.name}: {self.node.op.name} {self.type} at {self.node.where}>"

    def _repr_html_(self) -> str:
        from graphc import export

        return str(export.svg(self))

    if not TYPE_CHECKING:  # a type checker shall find fault with unknown names itself

        def __getattr__(self, name: str) -> NoReturn:
            raise missing(self, "Tensor", name, dir(Tensor))

    __hash__ = object.__hash__

    def __copy__(self) -> Tensor:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Tensor:
        return self

    def __reduce__(self) -> NoReturn:
        self.node.__reduce__()
        raise AssertionError

    # Symbolic means no number yet.

    def _no_value(self, what: str, instead: str) -> NoReturn:
        raise SymbolicError(
            f"{what} needs a value, and {self.describe()} is symbolic: it has none until a session runs. {instead}"
        )

    def __bool__(self) -> NoReturn:
        self._no_value(
            "the truth of a tensor",
            "Use graphc.where(condition, x, y) to choose by element, or run it: if session.run(t, feeds): ...",
        )

    def __float__(self) -> NoReturn:
        self._no_value("float()", "Run it: float(session.run(t, feeds))")

    def __int__(self) -> NoReturn:
        self._no_value("int()", "Run it: int(session.run(t, feeds))")

    def __index__(self) -> NoReturn:
        self._no_value("an index", "Run it: int(session.run(t, feeds)), and use the number")

    def __iter__(self) -> NoReturn:
        self._no_value("iteration", "Run it, and iterate over the array; or write the whole as one expression")

    def __len__(self) -> NoReturn:
        self._no_value("len()", "Its extents are in .shape")

    def __contains__(self, item: object) -> NoReturn:
        self._no_value("'in'", "Compare and reduce: graphc.max(x == item)")

    def __array__(self, dtype: object = None, copy: object = None) -> NoReturn:
        self._no_value("numpy.asarray()", "Run it: session.run(t, feeds) returns a NumPy array")


def frozen(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A read-only C-ordered copy that nobody else can change."""
    own = np.array(array, order="C", copy=True)
    own.flags.writeable = False
    return own


def attrs_of(**attrs: Any) -> Mapping[str, Any]:
    """Attributes of a node, read-only."""
    return MappingProxyType(attrs)
