"""``custom_gradient``: a function with a derivative of the user's own.

Its rule is traced when the function is called, with leaves in place of what only a sweep knows: the cotangents of the
values, and the values themselves as the rest of the graph sees them. ``passes/gradient.py`` puts those in.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from graphc.dtypes import is_float
from graphc.errors import GradientError
from graphc.gradients import CUSTOM, differentiable_inputs
from graphc.node import Node, Tensor, TensorType, attrs_of, make_node
from graphc.opdef import Domain, Inference, Kind, NotDifferentiable, OpDef, register
from graphc.ops.leaf import PLACEHOLDER
from graphc.state import PARAMETER
from graphc.where import derived_from


def _infer_argument(c: Inference) -> tuple[TensorType, ...]:
    return (TensorType(c.attrs["shape"], c.attrs["dtype"]),)


RULE_ARGUMENT = register(
    OpDef(
        "rule_argument", Kind.LEAF, _infer_argument, None, NotDifferentiable("a leaf has no inputs"),
        domain=Domain(kinds=()), doc="Stands for a cotangent or a value in the rule of a custom_gradient.",
    )
)  # fmt: skip


def custom_gradient(forward: Callable[..., Any], gradient: Callable[..., Any]) -> Callable[..., Any]:
    """``forward`` as a function whose derivative is ``gradient``.

        def straight_through(g, y, x):
            return g

        rounded = graphc.custom_gradient(graphc.round, straight_through)

    ``gradient(g, y, *arguments)`` is called whenever the new function is, and writes down the rule: ``y`` is what
    ``forward`` returned, a tensor or a tuple of them, and ``g`` its cotangent in the same form (None for a value that
    is not float). It returns one cotangent for each argument, of the argument's shape and dtype, in a tuple unless
    there is one argument alone; None stands for no gradient. Arguments that are no tensors reach both functions as
    they are, and so do keyword arguments, which can be no tensors.

    What nobody asks a gradient for is not computed, and neither is anything that only its rule needs. The rule is part
    of the graph, so that it is differentiated for second derivatives; ``y`` then has the derivative of the rule again.

    Raises ``GradientError`` for a cotangent that does not fit, and for a ``forward`` that depends on a parameter or a
    placeholder other than through its arguments: no gradient would reach it.
    """

    def function(*arguments: Any, **options: Any) -> Any:
        return _Call(forward, gradient, arguments, options).result()

    functools.update_wrapper(function, forward)
    return function


class _Call:
    """One use of the function."""

    def __init__(
        self, forward: Callable[..., Any], rule: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> None:
        self.forward, self.rule = forward, rule
        self.arguments, self.options = arguments, options
        self.what = f"custom_gradient of {_name(forward)}"
        for key, value in options.items():
            if isinstance(value, Tensor):
                raise self._error(
                    f"the keyword argument {key!r} is a tensor; give tensors by position, as cotangents are"
                )

    def result(self) -> Any:
        """What ``forward`` returned, in a node that knows the rule."""
        returned = self.forward(*self.arguments, **self.options)
        several = isinstance(returned, (tuple, list))
        values = tuple(returned) if several else (returned,)
        for value in values:
            if not isinstance(value, Tensor):
                raise self._error(f"the function must return a tensor or a tuple of tensors, got {_kind(value)}")
        self._check_closed(values)
        node = self._node(values, several)
        return node.outputs if several else node.outputs[0]

    def _check_closed(self, values: Sequence[Tensor]) -> None:
        """Raise if a gradient could flow past the arguments: it would be lost without a word."""
        pending = list(values)
        seen = {x for x in self.arguments if isinstance(x, Tensor)}
        while pending:
            tensor = pending.pop()
            if tensor in seen:
                continue
            seen.add(tensor)
            if tensor.node.op in (PLACEHOLDER, PARAMETER, RULE_ARGUMENT) and is_float(tensor.dtype):
                raise self._error(
                    f"the function depends on {tensor.describe()}\n  which is not among its arguments, so that no "
                    f"gradient would reach it; make it an argument, or use stop_gradient({tensor.name})"
                )
            pending += differentiable_inputs(tensor.node)

    def _node(self, values: Sequence[Tensor], several: bool) -> Node:
        with derived_from(None, "backward"):
            stand_ins = tuple(_stand_in(f"value of {_name(self.forward)}", v) for v in values)
            seeds = tuple(_stand_in("cotangent", v) if is_float(v.dtype) else None for v in values)
            g, y = (seeds, stand_ins) if several else (seeds[0], stand_ins[0])
            given = self._cotangents(self._returned(g, y))
        tensors = [x for x in self.arguments if isinstance(x, Tensor)]
        cotangents = [c for c in given if c is not None]
        captured = _captured(cotangents, tensors, stand_ins[0].node.serial)
        attrs = attrs_of(
            values=len(values), arguments=len(tensors), captured=len(captured),
            given=tuple(c is not None for c in given), seeds=seeds, stand_ins=stand_ins,
        )  # fmt: skip
        return make_node(CUSTOM, (*values, *tensors, *captured, *cotangents), attrs, _name(self.forward))

    def _returned(self, g: Any, y: Any) -> Sequence[Any]:
        """What the rule returns: one item for each argument."""
        try:
            inspect.signature(self.rule).bind(g, y, *self.arguments, **self.options)
        except TypeError as error:
            raise self._error(
                f"the rule {_name(self.rule)} is called as rule(g, y, *arguments), here with {len(self.arguments)} "
                f"arguments: {error}"
            ) from None
        except ValueError:
            pass  # no signature is known
        returned = self.rule(g, y, *self.arguments, **self.options)
        found = list(returned) if isinstance(returned, (tuple, list)) else [returned]
        if len(found) != len(self.arguments):
            raise self._error(
                f"the rule {_name(self.rule)} must return one cotangent (or None) for each of the "
                f"{len(self.arguments)} arguments, and returned {len(found)}"
            )
        return found

    def _cotangents(self, found: Sequence[Any]) -> list[Tensor | None]:
        """The cotangent of each argument that is a tensor."""
        for place, (x, cotangent) in enumerate(zip(self.arguments, found, strict=True)):
            if cotangent is not None:
                self._check(place, x, cotangent)
        return [c for x, c in zip(self.arguments, found, strict=True) if isinstance(x, Tensor)]

    def _check(self, place: int, x: Any, cotangent: Any) -> None:
        told = f"the rule {_name(self.rule)} gives argument {place} "
        if not isinstance(x, Tensor):
            raise self._error(f"{told}a cotangent, and that is {_kind(x)}, which has none: return None for it")
        if not isinstance(cotangent, Tensor):
            raise self._error(f"{told}{_kind(cotangent)}: return a tensor like it, or None\n    {x.describe()}")
        if not is_float(x.dtype):
            raise self._error(
                f"{told}a cotangent, and only float tensors have one: return None for it\n    {x.describe()}"
            )
        known = zip(cotangent.shape, x.shape, strict=False)
        fits = cotangent.ndim == x.ndim and all(
            a == b or not (isinstance(a, int) and isinstance(b, int)) for a, b in known
        )
        if not fits or cotangent.dtype != x.dtype:
            raise self._error(
                f"{told}{cotangent.type} where the argument is {x.type}; both must have one shape and dtype\n"
                f"    cotangent: {cotangent.describe()}\n    argument:  {x.describe()}"
            )

    def _error(self, message: str) -> GradientError:
        return GradientError(f"{self.what}: {message}")


def _stand_in(name: str, like: Tensor) -> Tensor:
    return make_node(RULE_ARGUMENT, (), attrs_of(shape=like.shape, dtype=like.dtype), name).outputs[0]


def _captured(cotangents: Sequence[Tensor], arguments: Sequence[Tensor], start: int) -> list[Tensor]:
    """What the rule reads besides arguments and stand-ins: tensors older than the node with the serial ``start``."""
    known = set(arguments)
    found: dict[Tensor, None] = {}
    seen: set[Node] = set()
    pending = list(cotangents)
    while pending:
        tensor = pending.pop()
        if tensor in known:
            continue
        if tensor.node.serial < start:
            found[tensor] = None
        elif tensor.node not in seen:
            seen.add(tensor.node)
            pending += tensor.node.inputs
    return list(found)


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", None) or type(function).__name__


def _kind(value: Any) -> str:
    return "None" if value is None else f"{type(value).__name__} {value!r}"
