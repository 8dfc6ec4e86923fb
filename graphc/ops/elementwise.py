"""Elementwise ops: arithmetic, comparison, logic, choice and conversion.

Each is one row: types, NumPy's definition, the derivative, and ``emit``, what it does to one element.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphc import expr
from graphc.dtypes import SUPPORTED, DType, DTypeLike, as_dtype, bool_, is_float, true_divide_dtype
from graphc.errors import DTypeError
from graphc.node import NO_ATTRS, Node, Tensor, TensorType, attrs_of, make_node
from graphc.opdef import Domain, Inference, Kind, NotDifferentiable, OpDef, register
from graphc.ops.leaf import arange, as_extent, as_operands, as_tensor, ones_like, zeros_like

STEPWISE = NotDifferentiable("its values are steps: the derivative is zero wherever it exists")
DISCRETE = NotDifferentiable("its result is not a real number")
_ARITHMETIC = Domain(("fiu", "fiu"))


def _same_type(c: Inference) -> tuple[TensorType, ...]:
    first = c.inputs[0].type
    for tensor in c.inputs[1:]:
        if tensor.dtype != first.dtype:
            raise c.fail(f"operands must have one dtype, got {first.dtype} and {tensor.dtype}", DTypeError)
    if len(c.inputs) == 1:
        return (first,)
    return (TensorType(c.broadcast([t.shape for t in c.inputs]), first.dtype),)


def _numeric(c: Inference) -> tuple[TensorType, ...]:
    c.require_dtype("fiu")
    return _same_type(c)


def _floating(c: Inference) -> tuple[TensorType, ...]:
    c.require_dtype("f")
    return _same_type(c)


def _to_bool(c: Inference) -> tuple[TensorType, ...]:
    return (TensorType(_same_type(c)[0].shape, bool_),)


def _logical(c: Inference) -> tuple[TensorType, ...]:
    c.require_dtype("b", "operands of a logical op")
    return _same_type(c)


def unbroadcast(g: Tensor, like: Tensor) -> Tensor:
    """Sum the cotangent ``g`` over the axes along which ``like`` was broadcast, down to the shape of ``like``."""
    from graphc.ops import reduce, shape

    if g.shape == like.shape:
        return g
    extra = g.ndim - like.ndim
    axes = [*range(extra)]
    axes += [extra + i for i, e in enumerate(like.shape) if e == 1 and g.shape[extra + i] != 1]
    if axes:
        g = reduce.sum(g, axis=tuple(axes), keepdims=True)
    return shape.reshape(g, like.shape) if extra else g


def _vjp(*rules: Callable[..., Tensor] | None) -> Callable[[Node, Tensor], list[Tensor | None]]:
    """One rule ``(g, out, *inputs) -> cotangent`` per input, each summed back to its input's shape."""

    def vjp(node: Node, g: Tensor) -> list[Tensor | None]:
        out = node.outputs[0]
        return [
            unbroadcast(rule(g, out, *node.inputs), x) if rule is not None and is_float(x.dtype) else None
            for rule, x in zip(rules, node.inputs, strict=True)
        ]

    return vjp


def _quiet(function: Callable[..., Any]) -> Callable[..., Any]:
    def reference(r: Any, *arrays: Any) -> Any:
        with np.errstate(all="ignore"):
            return function(*arrays)

    return reference


def _binary(
    name: str, numpy: Callable[..., Any], vjp: Any, *, infer: Any = _numeric, primitive: str | None = None,
    commutative: bool = False, cost: int = 1, domain: Domain = _ARITHMETIC, doc: str,
) -> OpDef:  # fmt: skip
    key = primitive or name
    return register(
        OpDef(
            name, Kind.SCALAR, infer, _quiet(numpy), vjp, emit=lambda b, a, x, y: b.binary(key, x, y),
            commutative=commutative, cost=cost, domain=domain, doc=doc,
        )
    )  # fmt: skip


def _unary(
    name: str, numpy: Callable[..., Any], vjp: Any, emit: Any, *, infer: Any = _floating, cost: int = 1,
    domain: Domain | None = None, doc: str,
) -> OpDef:  # fmt: skip
    domain = domain or Domain(("f",))
    return register(OpDef(name, Kind.SCALAR, infer, _quiet(numpy), vjp, emit=emit, cost=cost, domain=domain, doc=doc))


def _compare(name: str, primitive: str, numpy: Callable[..., Any], doc: str, *, commutative: bool = False) -> OpDef:
    return register(
        OpDef(
            name, Kind.SCALAR, _to_bool, _quiet(numpy), DISCRETE, emit=lambda b, a, x, y: b.compare(primitive, x, y),
            commutative=commutative, domain=Domain(("fiub", "fiub")), doc=doc,
        )
    )  # fmt: skip


def _pick(first: bool, strict: str) -> Callable[..., Tensor]:
    """Cotangent of maximum or minimum: to the winner; shared equally where both are equal."""

    def rule(g: Tensor, out: Tensor, x: Tensor, y: Tensor) -> Tensor:
        mine, other = (x, y) if first else (y, x)
        wins = greater(mine, other) if strict == "gt" else less(mine, other)
        return where(wins, g, where(equal(mine, other), g * 0.5, zeros_like(g)))

    return rule


ADD = _binary("add", np.add, _vjp(lambda g, o, x, y: g, lambda g, o, x, y: g), commutative=True, doc="Sum of two.")
SUBTRACT = _binary(
    "subtract", np.subtract, _vjp(lambda g, o, x, y: g, lambda g, o, x, y: -g), primitive="sub", doc="Difference."
)
MULTIPLY = _binary(
    "multiply", np.multiply, _vjp(lambda g, o, x, y: g * y, lambda g, o, x, y: g * x), primitive="mul",
    commutative=True, doc="Product of two.",
)  # fmt: skip
DIVIDE = _binary(
    "divide", np.divide, _vjp(lambda g, o, x, y: g / y, lambda g, o, x, y: -(g * o / y)), infer=_floating,
    primitive="div", cost=4, domain=Domain(("f", "f"), low=0.5), doc="True quotient.",
)  # fmt: skip
POW = _binary(
    "pow", np.power,
    _vjp(
        lambda g, o, x, y: g * y * pow(x, where(equal(y, 0), zeros_like(y), y - 1)),  # 0 for y = 0, also where x is 0
        lambda g, o, x, y: g * o * log(where(equal(x, 0), ones_like(x), x)),
    ),
    infer=_floating, cost=40, domain=Domain(("f", "f"), low=0.5), doc="First operand to the power of the second.",
)  # fmt: skip
MAXIMUM = _binary(
    "maximum", np.maximum, _vjp(_pick(True, "gt"), _pick(False, "gt")), commutative=True,
    doc="The larger; NaN if one is NaN. Equal operands share the cotangent.",
)  # fmt: skip
MINIMUM = _binary(
    "minimum", np.minimum, _vjp(_pick(True, "lt"), _pick(False, "lt")), commutative=True,
    doc="The smaller; NaN if one is NaN. Equal operands share the cotangent.",
)  # fmt: skip

NEGATIVE = _unary(
    "negative", np.negative, _vjp(lambda g, o, x: -g), lambda b, a, x: b.unary("neg", x), infer=_numeric,
    domain=Domain(("fi",)), doc="Minus x.",
)  # fmt: skip
ABS = _unary(
    "abs", np.abs, _vjp(lambda g, o, x: g * sign(x)), lambda b, a, x: b.unary("abs", x), infer=_numeric,
    domain=Domain(("fiu",), away=(0.0,)), doc="Absolute value; derivative 0 at 0.",
)  # fmt: skip


def _emit_sign(b: Any, a: Any, x: Any) -> Any:
    zero, one = b.literal(x, 0), b.literal(x, 1)
    minus = b.literal(x, -1) if b.dtype(x).kind != "u" else zero
    step = b.select(b.compare("gt", x, zero), one, b.select(b.compare("lt", x, zero), minus, zero))
    return b.select(b.compare("ne", x, x), x, step)


SIGN = _unary(
    "sign",
    np.sign,
    STEPWISE,
    _emit_sign,
    infer=_numeric,
    cost=3,
    domain=Domain(("fiu",)),
    doc="-1, 0 or 1; NaN for NaN.",
)
SQUARE = _unary(
    "square", np.square, _vjp(lambda g, o, x: g * (x * 2)), lambda b, a, x: b.binary("mul", x, x), infer=_numeric,
    domain=Domain(("fiu",)), doc="x * x.",
)  # fmt: skip
SQRT = _unary(
    "sqrt", np.sqrt, _vjp(lambda g, o, x: g * 0.5 / o), lambda b, a, x: b.unary("sqrt", x), cost=4,
    domain=Domain(("f",), low=0.3), doc="Square root.",
)  # fmt: skip
EXP = _unary("exp", np.exp, _vjp(lambda g, o, x: g * o), lambda b, a, x: b.unary("exp", x), cost=12, doc="e to the x.")
LOG = _unary(
    "log", np.log, _vjp(lambda g, o, x: g / x), lambda b, a, x: b.unary("log", x), cost=12,
    domain=Domain(("f",), low=0.3), doc="Natural logarithm.",
)  # fmt: skip
LOG1P = _unary(
    "log1p", np.log1p, _vjp(lambda g, o, x: g / (x + 1)), lambda b, a, x: b.unary("log1p", x), cost=12,
    domain=Domain(("f",), low=-0.7), doc="log(1 + x), exact for small x.",
)  # fmt: skip
EXPM1 = _unary(
    "expm1", np.expm1, _vjp(lambda g, o, x: g * exp(x)), lambda b, a, x: b.unary("expm1", x), cost=12,
    doc="exp(x) - 1, exact for small x.",
)  # fmt: skip
TANH = _unary(
    "tanh", np.tanh, _vjp(lambda g, o, x: g * (1 - square(o))), lambda b, a, x: b.unary("tanh", x), cost=14,
    doc="Hyperbolic tangent.",
)  # fmt: skip


SIGMOID = _unary(
    "sigmoid", expr.sigmoid, _vjp(lambda g, o, x: g * (o * (1 - o))), lambda b, a, x: b.unary("sigmoid", x), cost=14,
    doc="Logistic function 1 / (1 + exp(-x)).",
)  # fmt: skip


def _emit_relu(b: Any, a: Any, x: Any) -> Any:
    return b.binary("maximum", x, b.literal(x, 0))


RELU = _unary(
    "relu", lambda x: np.maximum(x, 0).astype(x.dtype), _vjp(lambda g, o, x: where(greater(o, 0), g, zeros_like(g))),
    _emit_relu, infer=_numeric, domain=Domain(("fi",), away=(0.0,)), doc="max(x, 0); derivative 0 at 0.",
)  # fmt: skip

LESS = _compare("less", "lt", np.less, "x < y.")
LESS_EQUAL = _compare("less_equal", "le", np.less_equal, "x <= y.")
GREATER = _compare("greater", "gt", np.greater, "x > y.")
GREATER_EQUAL = _compare("greater_equal", "ge", np.greater_equal, "x >= y.")
EQUAL = _compare("equal", "eq", np.equal, "x == y; NaN equals nothing.", commutative=True)
NOT_EQUAL = _compare("not_equal", "ne", np.not_equal, "x != y; NaN differs from everything.", commutative=True)

_BOOLS = Domain(("b", "b"))
LOGICAL_AND = _binary(
    "logical_and", np.logical_and, DISCRETE, infer=_logical, primitive="and_", commutative=True, domain=_BOOLS,
    doc="Both.",
)  # fmt: skip
LOGICAL_OR = _binary(
    "logical_or", np.logical_or, DISCRETE, infer=_logical, primitive="or_", commutative=True, domain=_BOOLS,
    doc="At least one.",
)  # fmt: skip
LOGICAL_NOT = _unary(
    "logical_not",
    np.logical_not,
    DISCRETE,
    lambda b, a, x: b.not_(x),
    infer=_logical,
    domain=Domain(("b",)),
    doc="Not x.",
)


def _infer_where(c: Inference) -> tuple[TensorType, ...]:
    condition, x, y = c.inputs
    if condition.dtype != bool_:
        raise c.fail(f"the condition must be bool, got {condition.dtype}; compare it with something first", DTypeError)
    if x.dtype != y.dtype:
        raise c.fail(f"both choices must have one dtype, got {x.dtype} and {y.dtype}", DTypeError)
    return (TensorType(c.broadcast([condition.shape, x.shape, y.shape]), x.dtype),)


WHERE = register(
    OpDef(
        "where", Kind.SCALAR, _infer_where, lambda r, c, x, y: np.where(c, x, y),
        _vjp(None, lambda g, o, c, x, y: where(c, g, zeros_like(g)), lambda g, o, c, x, y: where(c, zeros_like(g), g)),
        emit=lambda b, a, c, x, y: b.select(c, x, y), domain=Domain(("b", "fiub", "fiub")),
        doc="x where the condition holds, else y.",
    )
)  # fmt: skip


def _cast_to(dtype: DType) -> Callable[..., Tensor]:
    return lambda x: astype(x, dtype)


ASTYPE = register(
    OpDef(
        "astype", Kind.SCALAR, lambda c: (TensorType(c.inputs[0].shape, c.attrs["dtype"]),),
        lambda r, x: expr.cast(x, r.dtype),
        lambda node, g: [astype(g, node.inputs[0].dtype)], emit=lambda b, a, x: b.cast(x, a["dtype"]),
        domain=Domain(("fiub",)), samples=tuple(_cast_to(d) for d in SUPPORTED),
        doc="The value converted to another dtype.",
    )
)  # fmt: skip

STOP_GRADIENT = _unary(
    "stop_gradient", lambda x: x, NotDifferentiable("it is there to stop the gradient"), lambda b, a, x: x,
    infer=_same_type, cost=0, domain=Domain(("fiub",)), doc="x, through which no gradient flows.",
)  # fmt: skip


def _infer_one_hot(c: Inference) -> tuple[TensorType, ...]:
    c.require_dtype("iu", "indices")
    return (TensorType((*c.inputs[0].shape, c.attrs["extent"]), c.attrs["dtype"]),)


def _one_hot_view(node: Node) -> Tensor:
    from graphc.ops import shape

    columns = arange(node.attrs["extent"])
    checked = astype(check_index(node.inputs[0], node.attrs["extent"]), columns.dtype)
    return astype(equal(shape.expand_dims(checked, -1), columns), node.attrs["dtype"])


def _one_hot_reference(r: Any, x: Any) -> Any:
    extent = r.extent(r.attrs["extent"])
    _check_range(r, x, extent)
    return (x[..., None] == np.arange(extent)).astype(r.dtype)


ONE_HOT = register(
    OpDef(
        "one_hot", Kind.COMPOSITE, _infer_one_hot, _one_hot_reference, DISCRETE, decompose=_one_hot_view,
        domain=Domain(("iu",), low=0, high=2, bounded=True),
        samples=(lambda x: one_hot(x, 3), lambda x: one_hot(x, 4, "int32"), lambda x: one_hot(x, 3, "bool")),
        doc="1 at the index, 0 elsewhere, along a new last axis.",
    )
)  # fmt: skip


def _infer_check_index(c: Inference) -> tuple[TensorType, ...]:
    c.require_dtype("iu", "indices")
    return (c.inputs[0].type,)


def _check_range(r: Any, x: Any, extent: int) -> None:
    from graphc.errors import IndexRangeError

    if x.size and (x.min() < 0 or x.max() >= extent):
        raise IndexRangeError(index_message(r.node, int(x.min()), int(x.max()), extent))


def index_message(node: Node, low: int, high: int, extent: int) -> str:
    """What to say of indices from ``low`` to ``high`` into an axis of ``extent``."""
    return (
        f"{node.op.name} at {node.where}: indices must be 0 to {extent - 1}, found {low} to {high}\n"
        f"  operands:\n    {node.inputs[0].describe()}"
    )


def _check_reference(r: Any, x: Any) -> Any:
    _check_range(r, x, r.extent(r.attrs["extent"]))
    return x


def _emit_check_index(b: Any, attrs: Any, x: Any) -> Any:
    wide = b.cast(x, np.dtype(np.int64))
    low = b.compare("lt", wide, b.const(0, np.dtype(np.int64)))
    b.guard(b.binary("or_", low, b.compare("ge", wide, b.extent("extent"))))
    return x


CHECK_INDEX = register(
    OpDef(
        "check_index", Kind.SCALAR, _infer_check_index, _check_reference, DISCRETE, emit=_emit_check_index, cost=30,
        domain=Domain(("iu",), low=0, high=2, bounded=True), samples=(lambda x: check_index(x, 3),),
        doc="The indices themselves; a run in which one is out of range fails with its place.",
    )
)  # fmt: skip


# The public functions.


def _apply(op: OpDef, *operands: Tensor) -> Tensor:
    return make_node(op, operands).outputs[0]


def add(x: Any, y: Any) -> Tensor:
    """``x + y``, broadcast. Numeric operands."""
    return _apply(ADD, *as_operands("add", x, y))


def subtract(x: Any, y: Any) -> Tensor:
    """``x - y``, broadcast. Numeric operands."""
    return _apply(SUBTRACT, *as_operands("subtract", x, y))


def multiply(x: Any, y: Any) -> Tensor:
    """``x * y``, broadcast. Numeric operands."""
    return _apply(MULTIPLY, *as_operands("multiply", x, y))


def divide(x: Any, y: Any) -> Tensor:
    """True quotient ``x / y``, broadcast. Integers give float32."""
    left, right = as_operands("divide", x, y)
    dtype = true_divide_dtype(left.dtype)
    return _apply(DIVIDE, astype(left, dtype), astype(right, dtype))


def pow(x: Any, y: Any) -> Tensor:
    """``x ** y``, broadcast. Integer exponents from 0 to 4 are products, for every numeric dtype; otherwise floats
    only.
    """
    whole = isinstance(y, (int, float)) and y in (0, 1, 2, 3, 4)
    if whole and isinstance(x, Tensor) and (is_float(x.dtype) or (isinstance(y, int) and x.dtype.kind in "iu")):
        return _small_power(x, int(y))
    return _apply(POW, *as_operands("pow", x, y))


def _small_power(x: Tensor, exponent: int) -> Tensor:
    if exponent == 0:
        return ones_like(x)
    if exponent == 1:
        return x
    squared = square(x)
    if exponent == 4:
        return square(squared)
    return squared if exponent == 2 else squared * x


def maximum(x: Any, y: Any) -> Tensor:
    """The larger of ``x`` and ``y``, broadcast; NaN if one is NaN. Where equal, each gets half the cotangent."""
    return _apply(MAXIMUM, *as_operands("maximum", x, y))


def minimum(x: Any, y: Any) -> Tensor:
    """The smaller of ``x`` and ``y``, broadcast; NaN if one is NaN. Where equal, each gets half the cotangent."""
    return _apply(MINIMUM, *as_operands("minimum", x, y))


def negative(x: Any) -> Tensor:
    """``-x``."""
    return _apply(NEGATIVE, as_tensor(x, "negative"))


def abs(x: Any) -> Tensor:
    """Absolute value; the derivative at 0 is 0."""
    return _apply(ABS, as_tensor(x, "abs"))


def sign(x: Any) -> Tensor:
    """-1, 0 or 1 by the sign of ``x``; NaN for NaN."""
    return _apply(SIGN, as_tensor(x, "sign"))


def square(x: Any) -> Tensor:
    """``x * x``."""
    return _apply(SQUARE, as_tensor(x, "square"))


def as_float(x: Any, what: str) -> Tensor:
    """``x`` as a float tensor; integers and bools become float32."""
    tensor = as_tensor(x, what)
    return tensor if is_float(tensor.dtype) else astype(tensor, "float32")


def sqrt(x: Any) -> Tensor:
    """Square root; NaN below 0."""
    return _apply(SQRT, as_float(x, "sqrt"))


def exp(x: Any) -> Tensor:
    """e to the power of ``x``."""
    return _apply(EXP, as_float(x, "exp"))


def log(x: Any) -> Tensor:
    """Natural logarithm; -inf at 0, NaN below."""
    return _apply(LOG, as_float(x, "log"))


def log1p(x: Any) -> Tensor:
    """``log(1 + x)``, exact for small ``x``."""
    return _apply(LOG1P, as_float(x, "log1p"))


def expm1(x: Any) -> Tensor:
    """``exp(x) - 1``, exact for small ``x``."""
    return _apply(EXPM1, as_float(x, "expm1"))


def tanh(x: Any) -> Tensor:
    """Hyperbolic tangent."""
    return _apply(TANH, as_float(x, "tanh"))


def sigmoid(x: Any) -> Tensor:
    """Logistic function ``1 / (1 + exp(-x))``."""
    return _apply(SIGMOID, as_float(x, "sigmoid"))


def relu(x: Any) -> Tensor:
    """``max(x, 0)``; the derivative at 0 is 0."""
    return _apply(RELU, as_tensor(x, "relu"))


def less(x: Any, y: Any) -> Tensor:
    """``x < y``, broadcast; bool."""
    return _apply(LESS, *as_operands("less", x, y))


def less_equal(x: Any, y: Any) -> Tensor:
    """``x <= y``, broadcast; bool."""
    return _apply(LESS_EQUAL, *as_operands("less_equal", x, y))


def greater(x: Any, y: Any) -> Tensor:
    """``x > y``, broadcast; bool."""
    return _apply(GREATER, *as_operands("greater", x, y))


def greater_equal(x: Any, y: Any) -> Tensor:
    """``x >= y``, broadcast; bool."""
    return _apply(GREATER_EQUAL, *as_operands("greater_equal", x, y))


def equal(x: Any, y: Any) -> Tensor:
    """``x == y``, broadcast; bool. NaN equals nothing."""
    return _apply(EQUAL, *as_operands("equal", x, y))


def not_equal(x: Any, y: Any) -> Tensor:
    """``x != y``, broadcast; bool. NaN differs from everything."""
    return _apply(NOT_EQUAL, *as_operands("not_equal", x, y))


def logical_and(x: Any, y: Any) -> Tensor:
    """Whether both hold; bool operands, broadcast."""
    return _apply(LOGICAL_AND, *as_operands("logical_and", x, y))


def logical_or(x: Any, y: Any) -> Tensor:
    """Whether at least one holds; bool operands, broadcast."""
    return _apply(LOGICAL_OR, *as_operands("logical_or", x, y))


def logical_not(x: Any) -> Tensor:
    """Whether ``x`` does not hold; bool operand."""
    return _apply(LOGICAL_NOT, as_tensor(x, "logical_not"))


def where(condition: Any, x: Any, y: Any) -> Tensor:
    """``x`` where the bool ``condition`` holds, else ``y``; all three broadcast."""
    return _apply(WHERE, as_tensor(condition, "where"), *as_operands("where", x, y))


def astype(x: Any, dtype: DTypeLike) -> Tensor:
    """The values of ``x`` converted to ``dtype``; ``x`` itself when it has it already."""
    tensor, wanted = as_tensor(x, "astype"), as_dtype(dtype)
    if tensor.dtype == wanted:
        return tensor
    return make_node(ASTYPE, (tensor,), attrs_of(dtype=wanted)).outputs[0]


def stop_gradient(x: Any) -> Tensor:
    """``x`` as a value: no gradient flows through it (PyTorch's ``detach``)."""
    return make_node(STOP_GRADIENT, (as_tensor(x, "stop_gradient"),), NO_ATTRS).outputs[0]


def one_hot(indices: Any, extent: Any, dtype: DTypeLike = "float32") -> Tensor:
    """1 at each index along a new last axis of ``extent``, 0 elsewhere. A run with an index out of range raises
    ``IndexRangeError``.
    """
    attrs = attrs_of(extent=as_extent(extent, "one_hot"), dtype=as_dtype(dtype))
    return make_node(ONE_HOT, (as_tensor(indices, "one_hot"),), attrs).outputs[0]


def check_index(indices: Any, extent: Any) -> Tensor:
    """``indices`` unchanged; a run in which one is not within ``0 <= i < extent`` raises ``IndexRangeError``."""
    attrs = attrs_of(extent=as_extent(extent, "check_index"))
    return make_node(CHECK_INDEX, (as_tensor(indices, "check_index"),), attrs).outputs[0]
