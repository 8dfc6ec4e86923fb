"""``Session(check_numerics=True)``: the first NaN or infinity of a run is an error that names the op and the line.

Before each run the graph is evaluated op by op by the reference, in its stable form, so that what is reported is an op
of the user's and not a kernel. An op is reported when it makes a NaN or an infinity of operands that have none:

- feeds and parameters are looked at first: one that is not finite is the cause itself;
- infinities and NaN that the user wrote down, in a constant or in the first value of a parameter, are meant, and so is
  what ops pass on of them: masks of -inf stay possible. A NaN made of infinities is reported;
- an op of the user's is reported even where a later ``where`` hides its value, because a gradient would not be hidden;
  what gradients and optimisers compute by themselves only where it reaches a fetched value or an update.

Then the compiled step runs, and what it gives is compared: where it is not finite and the reference is, the run fails
as well. A run that fails leaves the parameters and the run counter as they were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from graphc.dims import Symbol
from graphc.errors import NumericsError
from graphc.node import Node, Tensor
from graphc.opdef import Kind
from graphc.ops.leaf import PLACEHOLDER
from graphc.state import PARAMETER
from passes.gradient import expand_gradients
from passes.graph import Graph
from passes.stabilise import stabilise
from runtime.guarded import GuardedProgram
from runtime.reference import ReferenceProgram, evaluate_graph
from runtime.store import ParameterStore

if TYPE_CHECKING:
    from runtime.session import Program

Array = np.ndarray[Any, Any]
MEANT = "; an infinity that is meant is written as a constant, as in where(condition, x, float('inf'))"


class CheckedProgram(GuardedProgram):
    """A program whose runs are refused when they make a NaN or an infinity."""

    def __init__(self, inner: Program, graph: Graph, placeholders: Sequence[Tensor], store: ParameterStore) -> None:
        super().__init__(inner, graph, placeholders, store)
        if isinstance(inner, ReferenceProgram):  # evaluates the graph as it was written
            self._graph = expand_gradients(graph)
        else:
            self._graph = stabilise(expand_gradients(stabilise(graph)))

    def run_once(self, values: Mapping[Symbol, int], feeds: Sequence[Array]) -> list[Any]:
        """Outputs in order. ``NumericsError``, before anything has changed."""
        with np.errstate(all="ignore"):
            expected = self._examine(values, feeds)
            with self.restoring():
                results = self._inner.run(values, feeds)
                self._compare(results, expected)
        return results

    def _examine(self, values: Mapping[Symbol, int], feeds: Sequence[Array]) -> dict[Tensor, Array]:
        """The value of every tensor; raises at the first that is not finite and should be."""
        found = self.leaves(self._graph, feeds)
        for tensor in sorted(found, key=lambda t: t.node.op is PARAMETER):
            if not np.all(_finite(found[tensor])) and not _is_meant(tensor):
                _refuse_leaf(tensor, found[tensor])
        doubtful: list[tuple[Node, Array]] = []

        def look(node: Node, value: Array, inputs: Sequence[Array]) -> Array:
            made = _made_here(node, value, inputs)
            if np.any(made):
                if node.role == "forward":
                    self._refuse(node, value, inputs, made)
                doubtful.append((node, made))
            return value

        evaluate_graph(self._graph, values, found, look)
        for node, made in doubtful:
            if self._is_felt(node, found):
                self._refuse(node, found[node.outputs[0]], [found[t] for t in node.inputs], made)
        for assign in self._graph.updates:
            parameter, value = assign.inputs
            if not np.all(_finite(found[value])) and not _is_meant(parameter):
                _refuse_update(parameter, value, found[value])
        return found

    def _is_felt(self, node: Node, found: Mapping[Tensor, Array]) -> bool:
        """Whether the node's NaN or infinity reaches a fetched tensor or an update."""
        reached = set(node.outputs)
        for reader in self._graph.nodes:
            if reader.outputs and any(t in reached for t in reader.inputs):
                reached |= {t for t in reader.outputs if not np.all(_finite(found[t]))}
        ends = [*self._graph.outputs, *(a.inputs[1] for a in self._graph.updates)]
        return any(t in reached for t in ends)

    def _refuse(self, node: Node, value: Array, inputs: Sequence[Array], made: Array) -> NoReturn:
        origin = {"forward": "", "backward": ", in the gradient of that line", "update": ", in the update of that line"}
        written = [a.inputs[0].name for a in self._graph.updates if a.inputs[1].node is node]
        target = f", the new value of parameter {written[0]!r}" if written else ""
        place = first_place(made)
        lines = [
            f"{node.op.name} at {node.where}{origin.get(node.role, '')}, gives {_words(value)}",
            f"  result: {_shown(node.outputs[0], value)}{target}; first at {position(place)}",
            "  inputs:",
        ]
        lines += [
            f"    {_shown(t, x)}{_there(node, x, value, place)}" for t, x in zip(node.inputs, inputs, strict=True)
        ]
        lines.append(f"  nothing was updated{'' if np.any(np.isnan(value)) else MEANT}")
        raise NumericsError("\n".join(lines))

    def _compare(self, results: Sequence[Any], expected: Mapping[Tensor, Array]) -> None:
        pairs = [*zip(self._graph.outputs, results, strict=True)]
        pairs += [(a.inputs[1], self._store.array(a.inputs[0])) for a in self._graph.updates]
        for tensor, found in pairs:
            array = np.asarray(found)
            odd = ~_finite(array) & _finite(expected[tensor])
            if np.any(odd):
                place = first_place(odd)
                raise NumericsError(
                    f"the compiled step gives {_words(array)} for {tensor.describe()}, where NumPy gives finite "
                    f"values; first at {position(place)}: {array[place]!s}, not {expected[tensor][place]!s}\n  nothing "
                    f"was updated. Values so near the largest float overflow in one order of operations and not in "
                    f"another; where they are not so large, GRAPHC_DEBUG=passes says which pass is wrong"
                )


# What counts.


def _finite(array: Array) -> Array:
    return np.isfinite(array) if array.dtype.kind == "f" else np.ones(array.shape, bool)


def _is_meant(tensor: Tensor) -> bool:
    """Whether the user wrote a NaN or an infinity into the parameter's first value."""
    initial = tensor.node.attrs.get("initial")
    return isinstance(initial, np.ndarray) and not np.all(_finite(initial))


def _made_here(node: Node, value: Array, inputs: Sequence[Array]) -> Array:
    """A mask of the elements that are NaN or infinite and did not get it from an operand. Only elementwise ops tell
    which elements they got it from; of others, one in an operand explains all of its kind.
    """
    if value.dtype.kind != "f" or node.op.kind is Kind.LEAF:
        return np.zeros(value.shape, bool)
    odd = ~np.isfinite(value)
    if not np.any(odd):
        return odd
    floats = [x for x in inputs if x.dtype.kind == "f"]
    had_nan, had_infinity = np.zeros(value.shape, bool), np.zeros(value.shape, bool)
    for x in floats:
        elementwise = node.op.kind is Kind.SCALAR
        had_nan |= np.isnan(x) if elementwise else bool(np.any(np.isnan(x)))
        had_infinity |= np.isinf(x) if elementwise else bool(np.any(np.isinf(x)))
    return np.asarray((np.isnan(value) & ~had_nan) | (np.isinf(value) & ~had_nan & ~had_infinity))


# Words.


def _refuse_leaf(tensor: Tensor, value: Array) -> NoReturn:
    if tensor.node.op is PLACEHOLDER:
        what, advice = "the feed of placeholder", "" if np.any(np.isnan(value)) else MEANT
    else:
        what, advice = "parameter", "; it was set or loaded so"
    raise NumericsError(
        f"{what} {tensor.name!r} ({tensor.node.where}) holds {_words(value)}\n"
        f"  value: {_shown(tensor, value)}; first at {position(first_place(~_finite(value)))}\n"
        f"  nothing was updated{advice}"
    )


def _refuse_update(parameter: Tensor, tensor: Tensor, value: Array) -> NoReturn:
    raise NumericsError(
        f"parameter {parameter.name!r} would be set to {_words(value)}, passed on from a constant\n"
        f"  value: {_shown(tensor, value)}; first at {position(first_place(~_finite(value)))}\n"
        f"  nothing was updated; a parameter that is meant to hold an infinity has one in its first value"
    )


def _words(array: Array) -> str:
    """``2 NaN and 1 -inf in 12 elements``."""
    counts = [("NaN", np.isnan(array)), ("+inf", np.isposinf(array)), ("-inf", np.isneginf(array))]
    found = [f"{np.count_nonzero(mask)} {name}" for name, mask in counts if np.any(mask)]
    return f"{' and '.join(found)} in {array.size} element{'s' if array.size != 1 else ''}"


def _range(array: Array) -> str:
    """``from -1.5 to 3, all finite``."""
    if not array.size:
        return "no elements"
    odd = ~_finite(array)
    kept = array[~odd]
    span = f"from {kept.min()!s} to {kept.max()!s}" if kept.size else "none finite"
    if array.ndim == 0 and kept.size:
        return f"value {array!s}"
    return f"{span}, all finite" if not np.any(odd) else f"{span}; {_words(array)}"


def _shown(tensor: Tensor, value: Array) -> str:
    shape = ", ".join(map(str, value.shape))
    name = f"{tensor.node.name}: " if tensor.node.name else ""
    return f"{name}{tensor.node.op.name} {value.dtype}[{shape}] ({tensor.node.where}), {_range(value)}"


def _there(node: Node, x: Array, value: Array, place: tuple[int, ...]) -> str:
    """The operand's element from which an elementwise op made the one at ``place``."""
    if node.op.kind is not Kind.SCALAR or x.ndim == 0:
        return ""
    return f"; there {np.broadcast_to(x, value.shape)[place]!s}"


def first_place(mask: Array) -> tuple[int, ...]:
    return tuple(int(i[0]) for i in np.nonzero(np.atleast_1d(mask)))[-mask.ndim :] if mask.ndim else ()


def position(place: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, place))}{',' if len(place) == 1 else ''})" if place else "its only element"
