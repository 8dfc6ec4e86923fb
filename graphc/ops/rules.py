"""What elementwise ops share: type rules, derivatives summed back to their input's shape, rows of the usual form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.dtypes import bool_, is_float
from graphc.errors import DTypeError
from graphc.node import Node, Tensor, TensorType, make_node
from graphc.opdef import Domain, Inference, Kind, NotDifferentiable, OpDef, register

STEPWISE = NotDifferentiable("its values are steps: the derivative is zero wherever it exists")
DISCRETE = NotDifferentiable("its result is not a real number")
ARITHMETIC = Domain(("fiu", "fiu"))


def same_type(c: Inference) -> tuple[TensorType, ...]:
    first = c.inputs[0].type
    for tensor in c.inputs[1:]:
        if tensor.dtype != first.dtype:
            raise c.fail(f"operands must have one dtype, got {first.dtype} and {tensor.dtype}", DTypeError)
    if len(c.inputs) == 1:
        return (first,)
    return (TensorType(c.broadcast([t.shape for t in c.inputs]), first.dtype),)


def numeric(c: Inference) -> tuple[TensorType, ...]:
    c.require_dtype("fiu")
    return same_type(c)


def floating(c: Inference) -> tuple[TensorType, ...]:
    c.require_dtype("f")
    return same_type(c)


def to_bool(c: Inference) -> tuple[TensorType, ...]:
    return (TensorType(same_type(c)[0].shape, bool_),)


def logical(c: Inference) -> tuple[TensorType, ...]:
    c.require_dtype("b", "operands of a logical op")
    return same_type(c)


def unbroadcast(g: Tensor, like: Tensor) -> Tensor:
    """Sum the cotangent ``g`` over the axes along which ``like`` was broadcast, down to the shape of ``like``."""
    if g.shape == like.shape:
        return g
    from graphc.ops import reduce, shape

    extra = g.ndim - like.ndim
    repeated = [extra + i for i, e in enumerate(like.shape) if e == 1 and g.shape[extra + i] != 1]
    axes = (*range(extra), *repeated)
    if not repeated:
        return reduce.sum(g, axis=axes)
    g = reduce.sum(g, axis=axes, keepdims=True)
    return shape.reshape(g, like.shape) if extra else g


@dataclass(frozen=True)
class VjpByInput:
    """A derivative with one rule ``(g, out, *inputs) -> cotangent`` per input, each summed back to its input's
    shape. ``of`` builds those alone that are asked for.
    """

    rules: tuple[Callable[..., Tensor] | None, ...]

    def __call__(self, node: Node, g: Tensor) -> list[Tensor | None]:
        return self.of(node, g, lambda x: True)

    def of(self, node: Node, g: Tensor, asked: Callable[[Tensor], bool]) -> list[Tensor | None]:
        out = node.outputs[0]
        return [
            unbroadcast(rule(g, out, *node.inputs), x) if rule is not None and is_float(x.dtype) and asked(x) else None
            for rule, x in zip(self.rules, node.inputs, strict=True)
        ]


def vjps(*rules: Callable[..., Tensor] | None) -> VjpByInput:
    return VjpByInput(rules)


def quiet(function: Callable[..., Any]) -> Callable[..., Any]:
    def reference(r: Any, *arrays: Any) -> Any:
        with np.errstate(all="ignore"):
            return function(*arrays)

    return reference


def binary_op(
    name: str, numpy: Callable[..., Any], vjp: Any, *, infer: Any = numeric, primitive: str | None = None,
    emit: Any = None, commutative: bool = False, cost: int = 1, domain: Domain = ARITHMETIC, doc: str,
) -> OpDef:  # fmt: skip
    key = primitive or name
    return register(
        OpDef(
            name, Kind.SCALAR, infer, quiet(numpy), vjp, emit=emit or (lambda b, a, x, y: b.binary(key, x, y)),
            commutative=commutative, cost=cost, domain=domain, doc=doc,
        )
    )  # fmt: skip


def unary_op(
    name: str, numpy: Callable[..., Any], vjp: Any, emit: Any, *, infer: Any = floating, cost: int = 1,
    domain: Domain | None = None, doc: str,
) -> OpDef:  # fmt: skip
    domain = domain or Domain(("f",))
    return register(OpDef(name, Kind.SCALAR, infer, quiet(numpy), vjp, emit=emit, cost=cost, domain=domain, doc=doc))


def compare_op(name: str, primitive: str, numpy: Callable[..., Any], doc: str, *, commutative: bool = False) -> OpDef:
    return register(
        OpDef(
            name, Kind.SCALAR, to_bool, quiet(numpy), DISCRETE, emit=lambda b, a, x, y: b.compare(primitive, x, y),
            commutative=commutative, domain=Domain(("fiub", "fiub")), doc=doc,
        )
    )  # fmt: skip


def apply(op: OpDef, *operands: Tensor) -> Tensor:
    return make_node(op, operands).outputs[0]
