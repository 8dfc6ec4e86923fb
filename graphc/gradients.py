"""``gradients``: the request for derivatives, as a node like any other; and the paths that a gradient takes.

Nothing is derived here. The request is checked and becomes a ``gradient`` node, which ``passes/gradient.py`` expands.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, overload

from graphc.dtypes import is_float
from graphc.errors import GradientError
from graphc.node import Node, Tensor, TensorType, attrs_of, make_node
from graphc.opdef import Attrs, Domain, Inference, Kind, NotDifferentiable, OpDef, register
from graphc.ops.leaf import constant, ones_like, zeros_like


def _infer(c: Inference) -> tuple[TensorType, ...]:
    count = c.attrs["targets"]
    for y, g in zip(c.inputs[:count], c.inputs[count : 2 * count], strict=True):
        for axis, (wanted, found) in enumerate(zip(y.shape, g.shape, strict=True)):
            c.equal(wanted, found, f"extents of axis {axis} of y and its grad_ys")
    xs = c.inputs[2 * count :]
    return tuple(x.type for x in xs)


# Inputs: targets ys, as many cotangents, then the xs. One result per x.
GRADIENT = register(
    OpDef(
        "gradient", Kind.TRANSFORM, _infer, None,
        NotDifferentiable("it is expanded, innermost first, before it is differentiated"),
        domain=Domain(kinds=()), doc="Derivatives of the targets, weighted by the cotangents, for each x.",
    )
)  # fmt: skip


def _infer_custom(c: Inference) -> tuple[TensorType, ...]:
    parts = custom_parts(c.attrs, c.inputs)
    for x, cotangent in zip(parts.arguments, parts.cotangents, strict=True):
        if cotangent is not None:
            for axis, (wanted, found) in enumerate(zip(x.shape, cotangent.shape, strict=True)):
                c.equal(wanted, found, f"extents of axis {axis} of an argument and its cotangent")
    return tuple(t.type for t in parts.values)


# Inputs: the values that the user's function computes, its arguments, what the rule reads besides, and the cotangents
# that it gives. Those are written with ``rule_argument`` leaves in place of what only a sweep can know.
CUSTOM = register(
    OpDef(
        "custom_gradient", Kind.TRANSFORM, _infer_custom, None,
        NotDifferentiable("its derivative is the rule that the user gave, in its inputs"),
        domain=Domain(kinds=()), doc="Values of a function with a derivative of the user's own.",
    )
)  # fmt: skip


class CustomParts(NamedTuple):
    """Inputs of a ``custom_gradient`` node: ``cotangents`` has one for each argument, None where the rule gives
    none."""

    values: Sequence[Tensor]
    arguments: Sequence[Tensor]
    captured: Sequence[Tensor]
    cotangents: Sequence[Tensor | None]


def custom_parts(attrs: Attrs, inputs: Sequence[Tensor]) -> CustomParts:
    """The inputs of a ``custom_gradient`` node by what they are."""
    remaining = iter(inputs)
    values, arguments, captured = (
        tuple(itertools.islice(remaining, attrs[k])) for k in ("values", "arguments", "captured")
    )
    return CustomParts(values, arguments, captured, [next(remaining) if given else None for given in attrs["given"]])


def differentiable_inputs(node: Node) -> tuple[Tensor, ...]:
    """The inputs through which a gradient flows back from ``node``."""
    if node.op is GRADIENT:
        return tuple(x for x in node.inputs if is_float(x.dtype))
    if node.op is CUSTOM:
        parts = custom_parts(node.attrs, node.inputs)
        return tuple(x for x, g in zip(parts.arguments, parts.cotangents, strict=True) if g is not None)
    if isinstance(node.op.vjp, NotDifferentiable):
        return ()
    return tuple(x for x in node.inputs if is_float(x.dtype))


def upstream(ys: Iterable[Tensor]) -> Iterator[Tensor]:
    """Tensors from which a differentiable path leads to one of ``ys``: first those themselves. Some come twice.

    A gradient computes with the rules between its ys and its xs, so a path to a gradient may lead through a rule.
    """
    pending = [(y, False) for y in ys]
    seen: set[tuple[Node, bool]] = set()
    while pending:
        tensor, derived = pending.pop()
        yield tensor
        node = tensor.node
        if (node, derived) not in seen:
            seen.add((node, derived))
            inner = derived or node.op is GRADIENT
            pending += [(t, inner) for t in differentiable_inputs(node)]
            if derived and node.op is CUSTOM:
                pending += [(t, True) for t in custom_parts(node.attrs, node.inputs).cotangents if t is not None]


def reaches(ys: Iterable[Tensor], xs: Iterable[Tensor]) -> set[Tensor]:
    """Those of ``xs`` from which a differentiable path leads to one of ``ys``."""
    missing = set(xs)
    found: set[Tensor] = set()
    for tensor in upstream(ys):
        if not missing:
            break
        if tensor in missing:
            missing.remove(tensor)
            found.add(tensor)
    return found


def _cotangents(ys: Sequence[Tensor], grad_ys: Any, *, alone: bool) -> list[Tensor]:
    """One cotangent for each y; ``alone`` says that ys was one tensor, and so is grad_ys."""
    if grad_ys is None:
        for y in ys:
            if y.ndim:
                raise GradientError(
                    f"gradients: a gradient is created implicitly only for a scalar, and {y.describe()} has shape "
                    f"{y.type}; reduce it (.sum(), .mean()) or pass grad_ys= with its shape"
                )
        return [ones_like(y) for y in ys]
    several = isinstance(grad_ys, (list, tuple))
    if several and alone:
        several = len(grad_ys) == 1 and (grad_ys[0] is None or isinstance(grad_ys[0], Tensor))
    given = list(grad_ys) if several else [grad_ys]
    if len(given) != len(ys):
        raise GradientError(f"gradients: {len(ys)} ys need as many grad_ys, got {len(given)}")
    for place, g in enumerate(given):
        if g is None:
            raise GradientError(f"gradients: grad_ys[{place}] is None; write graphc.ones_like(y) to weight that y by 1")
    return [_cotangent(y, g) for y, g in zip(ys, given, strict=True)]


def _cotangent(y: Tensor, given: Any) -> Tensor:
    g = given.astype(y.dtype) if isinstance(given, Tensor) else constant(given, y.dtype)
    fits = g.ndim == y.ndim and all(
        a == b or not (isinstance(a, int) and isinstance(b, int)) for a, b in zip(g.shape, y.shape, strict=True)
    )
    if not fits:
        raise GradientError(f"gradients: grad_ys must have the shape of its y; got {g.describe()} for {y.describe()}")
    return g


def _tensors(given: Any, label: str) -> list[Tensor]:
    try:
        tensors = [given] if isinstance(given, Tensor) else list(given)
    except TypeError:
        tensors = [given]
    if not tensors:
        raise GradientError(f"gradients: {label} is empty")
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            raise GradientError(f"gradients: {label} must be tensors, got {type(tensor).__name__}")
        if not is_float(tensor.dtype):
            raise GradientError(
                f"gradients: {label} must be float, got {tensor.describe()}; convert with .astype('float32')"
            )
    return tensors


@overload
def gradients(ys: Any, xs: Tensor, grad_ys: Any = None, *, unreachable: str = "error") -> Tensor: ...
@overload
def gradients(ys: Any, xs: Sequence[Tensor], grad_ys: Any = None, *, unreachable: str = "error") -> list[Tensor]: ...


def gradients(
    ys: Any, xs: Tensor | Sequence[Tensor], grad_ys: Any = None, *, unreachable: str = "error"
) -> Tensor | list[Tensor]:
    """Derivatives of ``ys`` with respect to ``xs``: symbolic tensors, each of its x's shape and dtype.

    ``ys`` is a scalar tensor, or any tensors with ``grad_ys``, the cotangents that weight them (a vector-Jacobian
    product; several ys are summed). ``xs`` may be any tensors, intermediate ones too. A Tensor for a Tensor, a list
    for a list.

    Raises ``GradientError`` when a y is not a scalar and ``grad_ys`` is missing, when dtypes are not float, and when no
    differentiable path leads from an x to ys; ``unreachable="zero"`` gives zeros there instead.
    """
    single = isinstance(xs, Tensor)
    targets = _tensors(ys, "ys")
    sources = _tensors(xs, "xs")
    if unreachable not in ("error", "zero"):
        raise GradientError(f"gradients: unreachable must be 'error' or 'zero', got {unreachable!r}")
    cotangents = _cotangents(targets, grad_ys, alone=isinstance(ys, Tensor))
    reached = reaches(targets, sources)
    missing = [x for x in sources if x not in reached]
    if missing and unreachable == "error":
        names = "".join(f"\n    {x.describe()}" for x in missing)
        raise GradientError(
            f"gradients: no differentiable path leads to ys from:{names}\n"
            f"  stop_gradient, integer results, comparisons, and rules that give None end a path; "
            f"unreachable='zero' gives zeros instead"
        )
    node_xs = [x for x in sources if x in reached]
    results: dict[Tensor, Tensor] = {x: zeros_like(x) for x in missing}
    if node_xs:
        node = make_node(GRADIENT, (*targets, *cotangents, *node_xs), attrs_of(targets=len(targets)))
        results.update(zip(node_xs, node.outputs, strict=True))
    found = [results[x] for x in sources]
    return found[0] if single else found
