"""How far rounding may move the values of a graph: measured, not guessed.

The graph is evaluated several times by the reference, and every result that was rounded is moved at random by more than
kernels and NumPy can differ in it (stochastic arithmetic, in the manner of J. Vignes, "Discrete stochastic arithmetic
for validating results of numerical software", Numerical Algorithms 37, 2004). The spread of an element over the trials
is what such errors, amplified by all that follows, can do to it; another evaluation of the same mathematics must lie
within FACTOR spreads. Elements on whose NaN, infinity, integer or truth the trials disagree say nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.dims import Symbol, evaluate, product
from graphc.node import Node, Tensor
from graphc.opdef import Kind
from passes.graph import Graph
from passes.primitives import primitives, rounds
from runtime.reference import evaluate_graph, evaluate_node

Array = np.ndarray[Any, Any]
AMPLITUDE = 16  # units in the last place; kernels and NumPy are both within about 4 of the truth
TRIALS = 4
MORE_TRIALS = 48  # before something is called wrong
FACTOR = 4
_SUMS = {Kind.REDUCE, Kind.MATMUL}
_MOVING = {Kind.LEAF, Kind.VIEW, Kind.RESHAPE, Kind.CONCAT, Kind.GATHER}
_CHOICES = {"maximum", "minimum"}
_OPAQUE = {Kind.COMPOSITE, Kind.ROUTINE}
_NEVER_UNDERFLOW = {"add", "sub"}  # a sum of floats that is 0 is exactly 0


@dataclass
class Range:
    """Where each element of a tensor may lie: around ``value`` where it is ``steady``, anywhere else.

    ``spread`` is None where no bit may differ.
    """

    value: Array
    steady: Array
    spread: Array | None

    def tolerance(self) -> Array:
        """The difference that is accepted of each element."""
        if self.spread is None:
            return np.zeros(self.value.shape)
        info = np.finfo(self.value.dtype)
        with np.errstate(all="ignore"):
            unit = float(info.eps) * np.abs(self.value.astype(np.float64)) + 4 * float(info.smallest_subnormal)
        return np.asarray(FACTOR * self.spread + unit)

    def wrong(self, found: Array) -> Array:
        """A mask of the elements of ``found`` that rounding cannot explain."""
        same = (found == self.value) | (_is_nan(found) & _is_nan(self.value))
        if self.spread is None:
            return np.asarray(self.steady & ~same)
        with np.errstate(all="ignore"):
            near = np.abs(found.astype(np.float64) - self.value.astype(np.float64)) <= self.tolerance()
        return np.asarray(self.steady & ~np.where(np.isfinite(self.value), near, same))

    def widen(self, trial: Array) -> None:
        """Take in what a trial gave."""
        if self.spread is None:
            self.steady &= trial == self.value
            return
        finite = np.isfinite(self.value)
        same = (trial == self.value) | (np.isnan(trial) & np.isnan(self.value))
        self.steady &= np.where(finite, np.isfinite(trial), same)
        with np.errstate(all="ignore"):
            self.spread = np.fmax(self.spread, np.abs(trial.astype(np.float64) - self.value.astype(np.float64)))


def measure(
    graph: Graph, extents: Mapping[Symbol, int], leaves: Mapping[Tensor, Array], trials: int = TRIALS
) -> dict[Tensor, Range]:
    """The range of every tensor of ``graph``, which has no gradient nodes; ``leaves`` are its feeds and parameters."""
    plain = dict(leaves)
    with np.errstate(all="ignore"):
        evaluate_graph(graph, extents, plain)
        found = {t: Range(v, np.ones(v.shape, bool), _no_spread(t, v)) for t, v in plain.items()}
        for trial in range(trials):
            moved = dict(leaves)
            evaluate_graph(graph, extents, moved, _Noise(extents, np.random.default_rng(trial)))
            for tensor, value in moved.items():
                found[tensor].widen(value)
    for node in graph.nodes:
        if node.outputs and not rounds(node) and all(found[t].spread is None for t in node.inputs):
            result = found[node.outputs[0]]
            result.spread = None if not np.any(result.spread) else result.spread
    return found


def _no_spread(tensor: Tensor, value: Array) -> Array | None:
    return np.zeros(value.shape) if tensor.dtype.kind == "f" else None


class _Noise:
    """Moves every rounded result at random, by up to AMPLITUDE units and what its own rounding may add."""

    def __init__(self, extents: Mapping[Symbol, int], rng: np.random.Generator) -> None:
        self._extents = extents
        self._rng = rng

    def __call__(self, node: Node, value: Array, inputs: Sequence[Array]) -> Array:
        if not value.size or value.dtype.kind != "f" or node.op.kind in _MOVING:
            return value
        return self._sign(node, self._rounded(node, value, inputs) if rounds(node) else value)

    def _sign(self, node: Node, value: Array) -> Array:
        """NaN has the sign that the machine gives it; so has a 0 of a sum, or of two zeros of which one is taken."""
        free = np.isnan(value)
        if node.op.kind is not Kind.SCALAR or _CHOICES & primitives(node).keys():
            free |= value == 0
        return np.where(free, np.copysign(value, self._uniform(value)), value).astype(value.dtype)

    def _rounded(self, node: Node, value: Array, inputs: Sequence[Array]) -> Array:
        if node.op.kind in _OPAQUE:  # rounded many times inside: its inputs move as well
            value = evaluate_node(node, self._extents, [self._moved(x) if x.dtype.kind == "f" else x for x in inputs])
        if node.op.kind in _SUMS:  # in another order, in which other parts of it may overflow
            value = evaluate_node(node, self._extents, self._shuffled(node, inputs))
        moved = self._moved(value)
        if node.op.kind in _SUMS:
            moved = moved + self._sum_error(node, value, inputs)
        elif node.op.kind is Kind.SCALAR and not primitives(node).keys() <= _NEVER_UNDERFLOW:
            moved = self._underflow(node, moved, inputs)
        return np.where(np.isfinite(value), moved, value).astype(value.dtype)

    def _uniform(self, like: Array) -> Array:
        return np.asarray(self._rng.uniform(-1, 1, like.shape))

    def _moved(self, value: Array) -> Array:
        """Every element but 0 moved by up to AMPLITUDE units in the last place, subnormal ones too."""
        info = np.finfo(value.dtype)
        direction = self._uniform(value) * AMPLITUDE
        small = np.rint(direction).astype(value.dtype) * info.smallest_subnormal
        change = (direction * (info.eps / 2)).astype(value.dtype) * value
        result = value + np.where(np.abs(value) < info.tiny * 2**12, small, change)
        return np.where((value == 0) | ~np.isfinite(value), value, result).astype(value.dtype)

    def _shuffled(self, node: Node, inputs: Sequence[Array]) -> list[Array]:
        """The operands with their terms, or factors, in another order."""
        first, *rest = inputs
        if node.op.kind is Kind.REDUCE:
            for axis in node.attrs["axis"]:
                first = np.take(first, self._rng.permutation(first.shape[axis]), axis)
            return [first, *rest]
        along = -2 if node.attrs.get("trans_a") else -1
        order = self._rng.permutation(first.shape[along])
        rest[0] = np.take(rest[0], order, -1 if node.attrs.get("trans_b") else -2)
        return [np.take(first, order, along), *rest]

    def _sum_error(self, node: Node, value: Array, inputs: Sequence[Array]) -> Array:
        """A sum of n terms is within ``n u sum(|x|)`` in whatever order it is made (N. Higham, "Accuracy and Stability
        of Numerical Algorithms", 2nd ed., 2002, section 4.2); a product of n factors within ``n u`` of itself.
        """
        if node.op.reduce not in (None, "add"):
            magnitude, terms = np.abs(value), inputs[0].size // max(value.size, 1)
        else:
            magnitude = np.abs(evaluate_node(node, self._extents, [np.abs(x) for x in inputs]))
            terms = int(evaluate(_terms(node), self._extents))
        unit = np.finfo(value.dtype).eps / 2
        change = np.asarray(self._uniform(value) * terms * unit * magnitude)
        return np.where(np.isfinite(change), change, 0).astype(value.dtype)

    def _underflow(self, node: Node, value: Array, inputs: Sequence[Array]) -> Array:
        """A 0 made of operands that are not 0 has underflowed: it stands for anything below the least subnormal."""
        whole = np.ones(value.shape, bool)
        for x in inputs:
            whole = whole & (x != 0)
        least = np.rint(self._uniform(value)).astype(value.dtype) * np.finfo(value.dtype).smallest_subnormal
        return np.where(whole & (value == 0), least, value)


def _terms(node: Node) -> Any:
    """How many terms each element of a sum or a matrix product has."""
    shape = node.inputs[0].shape
    if node.op.kind is Kind.REDUCE:
        return product(shape[a] for a in node.attrs["axis"])
    return shape[-2 if node.attrs.get("trans_a") else -1]


def _is_nan(array: Array) -> Array:
    return np.asarray(array != array)
