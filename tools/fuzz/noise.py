"""How exact a result can be: measured, not guessed.

A graph is evaluated several times by the reference rules of its ops. What an op computes inexactly is moved at random
by up to AMPLITUDE units in the last place (stochastic arithmetic, in the manner of J. Vignes, "Discrete stochastic
arithmetic for validating results of numerical software", Numerical Algorithms 37, 2004), sums and products are taken
in another order, and zeros whose sign nothing decides get one at random. The spread of an output's element over these
trials is what rounding errors of that size, amplified by everything after them, can do to it: a result is accepted
within FACTOR spreads of the reference. Where the trials disagree about NaN, infinities, an integer or a truth value,
the element says nothing and is skipped; the skipped are counted.

What is made of fed values by moves and correctly rounded arithmetic alone does not move, and must agree to the bit.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphc.dims import Symbol
from graphc.errors import GraphcError
from graphc.expr import NumpyBuilder
from graphc.node import Node, Tensor
from graphc.opdef import Kind, Reference
from passes.decompose import decompose
from passes.graph import Graph
from runtime.reference import evaluate_node

Array = np.ndarray[Any, Any]
AMPLITUDE = 16  # units in the last place; kernels and NumPy are both within about 4 of the truth
TRIALS = 4
MORE_TRIALS = 48  # before something is called wrong
MOST_TRIALS = 400  # the same, where elements are few
FEW = 4096
FACTOR = 4

# How an op treats the accuracy of what it is given.
MOVES = "moves"  # elements are chosen or moved, or become others by a step: no rounding
ROUNDS = "rounds"  # correctly rounded: the same bits from the same bits
INEXACT = "inexact"  # within some units in the last place
COMBINES = "combines"  # many roundings inside, each of its operands' size

_MOVING = {
    "neg", "abs", "floor", "ceil", "round", "trunc", "maximum", "minimum", "and_", "or_", "xor", "bitand", "bitor",
    "bitxor", "shl", "shr", "copysign",
}  # fmt: skip
_ROUNDING = {"add", "sub", "mul", "div", "sqrt", "floordiv", "mod", "fmod"}
_NO_SIGN_OF_ZERO = {"maximum", "minimum"}
_WIDER = {np.dtype(np.float32): np.dtype(np.float64), np.dtype(np.float64): np.dtype(np.longdouble)}


class _Recorder(NumpyBuilder):
    """Notes the primitives with which an ``emit`` rule computes floats."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape, {})
        self.shape = shape
        self.used: set[str] = set()

    def note(self, name: str, x: Any) -> None:
        if self.dtype(x).kind == "f":
            self.used.add(name)

    def unary(self, name: str, x: Any) -> Any:
        self.note(name, x)
        return super().unary(name, x)

    def binary(self, name: str, x: Any, y: Any) -> Any:
        self.note(name, x)
        return super().binary(name, x, y)

    def fma(self, x: Any, y: Any, z: Any) -> Any:
        self.note("fma", x)
        return super().fma(x, y, z)

    def cast(self, x: Any, dtype: Any) -> Any:
        found = super().cast(x, dtype)
        self.note("sub", found)  # a conversion to float rounds, like arithmetic
        return found

    def extent(self, key: str) -> Any:
        return np.int64(1)


def primitives(node: Node) -> set[str]:
    """Names of the primitives with which a node's ``emit`` rule computes."""
    assert node.op.emit is not None
    recorder = _Recorder((1,) * node.outputs[0].ndim)
    operands = [np.ones(recorder.shape, t.dtype) for t in node.inputs]
    if node.op.kind is Kind.GATHER:
        operands = [np.ones((1,) * node.inputs[0].ndim, node.inputs[0].dtype), *(o * 0 for o in operands[1:])]
    with np.errstate(all="ignore"):
        node.op.emit(recorder, node.attrs, *operands)
    return recorder.used


def treatment(node: Node) -> tuple[str, bool]:
    """How exact a node is, and whether the sign of a zero among its results is anyone's choice."""
    if all(r.dtype.kind != "f" for r in node.results):
        return MOVES, False
    if node.op.kind in (Kind.SCALAR, Kind.GATHER):
        used = primitives(node)
        free = bool(used & _NO_SIGN_OF_ZERO)
        if used <= _MOVING:
            return MOVES, free
        return (ROUNDS if used <= _MOVING | _ROUNDING else INEXACT), free
    if node.op.kind is Kind.REDUCE and node.op.reduce in ("maximum", "minimum"):
        return MOVES, True
    if node.op.kind in (Kind.REDUCE, Kind.MATMUL, Kind.ROUTINE):
        return COMBINES, True
    return MOVES, False


@dataclass
class Tally:
    """Elements compared and skipped."""

    compared: int = 0
    skipped: int = 0


@dataclass
class Trials:
    """Values of outputs, and of new parameter values, in the reference and in each trial; which are exact."""

    plain: list[Array]
    exact: list[bool]
    special: bool  # whether something on the way, in the reference, is not finite
    moved: list[list[Array]] = field(default_factory=list)


@dataclass(frozen=True)
class Difference:
    """The first element of one result that cannot be explained by rounding, and how many there are."""

    place: int
    index: tuple[int, ...]
    found: Any
    expected: Any
    tolerance: float
    count: int
    size: int

    def __str__(self) -> str:
        many = f"{self.count} of {self.size} elements differ"
        allowed = f", with a tolerance of {self.tolerance:.3g}" if self.tolerance else ""
        return f"result {self.place}: {many}, first at {self.index}: {self.found!r}, not {self.expected!r}{allowed}"


def results_of(graph: Graph) -> list[Tensor]:
    """What is compared: outputs, then the values assigned to parameters."""
    return [*graph.outputs, *(a.inputs[1] for a in graph.updates)]


class Model:
    """A graph without gradient nodes, evaluated by its reference rules, exactly and with noise."""

    def __init__(self, graph: Graph, *, bits: bool = True) -> None:
        """``bits=False``: not even correctly rounded arithmetic need have the reference's bits, because whoever
        computed what is compared may have taken other formulas.
        """
        self.graph = graph = decompose(graph)  # so that what is rounded inside a composite op moves as well
        self.treated = {node: treatment(node) for node in graph.nodes if node.inputs and node.outputs}
        self.exact: set[Tensor] = set()
        for node in graph.nodes:
            kind = self.treated[node][0] if node in self.treated else MOVES
            if kind in ((MOVES, ROUNDS) if bits else (MOVES,)) and all(t in self.exact for t in node.inputs):
                self.exact.update(node.outputs)

    def measure(
        self, extents: Mapping[Symbol, int], known: Mapping[Tensor, Array], *, seed: int, trials: int = TRIALS
    ) -> Trials:
        """The reference's values and those of the trials; a trial that the data stops says nothing and is left out."""
        wanted = results_of(self.graph)
        values = self._evaluate(extents, known, None)
        special = any(v.dtype.kind == "f" and not np.all(np.isfinite(v)) for v in values.values())
        found = Trials([values[t] for t in wanted], [t in self.exact for t in wanted], special)
        for trial in range(trials):
            try:
                moved = self._evaluate(extents, known, np.random.default_rng([seed, trial]))
            except GraphcError:
                continue
            found.moved.append([moved[t] for t in wanted])
        return found

    def _evaluate(
        self, extents: Mapping[Symbol, int], known: Mapping[Tensor, Array], rng: np.random.Generator | None
    ) -> dict[Tensor, Array]:
        found: dict[Tensor, Array] = dict(known)
        for node in self.graph.nodes:
            if node.outputs and node.outputs[0] not in found:
                results = self._node(node, extents, [found[t] for t in node.inputs], rng)
                found.update(zip(node.outputs, results, strict=True))
        return found

    def _node(
        self, node: Node, extents: Mapping[Symbol, int], inputs: Sequence[Array], rng: np.random.Generator | None
    ) -> Sequence[Array]:
        kind, free_zero = self.treated.get(node, (MOVES, False))
        noisy = rng is not None and not all(t in self.exact for t in node.outputs)
        if rng is not None and noisy and kind == COMBINES:
            inputs = [moved(x, rng) for x in inputs]
        with np.errstate(all="ignore"):
            if rng is not None and noisy and may_be_reordered(node):
                made: Any = overflowing(node, extents, inputs, otherwise(node, extents, inputs, rng), rng)
            else:
                made = evaluate_node(node, extents, inputs)
        results = [np.asarray(r) for r in (made if isinstance(made, (list, tuple)) else [made])]
        if rng is None:
            return results
        if noisy and kind != MOVES:
            results = [moved(r, rng) for r in results]
        return [any_sign(r, rng, zeros=free_zero) for r in results]


def moved(array: Array, rng: np.random.Generator) -> Array:
    """Every element but 0 moved by up to AMPLITUDE units in the last place, subnormal ones too."""
    if array.dtype.kind != "f" or not array.size:
        return array
    unit = np.finfo(array.dtype).eps / 2
    direction = rng.uniform(-1, 1, array.shape) * AMPLITUDE
    least = np.finfo(array.dtype).smallest_subnormal
    small = np.rint(direction).astype(array.dtype) * least
    with np.errstate(all="ignore"):
        change = (direction * unit).astype(array.dtype) * array
        result = array + np.where(np.abs(array) < np.finfo(array.dtype).tiny * 2**12, small, change)
    return np.where((array == 0) | ~np.isfinite(array), array, result).astype(array.dtype)


def any_sign(array: Array, rng: np.random.Generator, *, zeros: bool) -> Array:
    """NaNs, and perhaps zeros, with a sign at random."""
    if array.dtype.kind != "f":
        return array
    free = np.isnan(array) | (array == 0) if zeros else np.isnan(array)
    return np.where(free & (rng.random(array.shape) < 0.5), -array, array) if free.any() else array


def otherwise(node: Node, extents: Mapping[Symbol, int], inputs: Sequence[Array], rng: np.random.Generator) -> Array:
    """A sum or product of floats as others may compute it: in another order, one term after the other, in parts that
    are put together at the end, or without intermediate rounding. So overflows on the way show that depend on it, and
    what rounds alike again and again: NumPy adds up in pairs, which hides it.
    """
    rule, form = node.op.reference, Reference(node, extents)
    assert rule is not None
    way = rng.integers(4)
    if way == 0:
        wide = [x.astype(_WIDER[x.dtype]) if x.dtype in _WIDER else x for x in inputs]
        return np.asarray(rule(form, *wide)).astype(node.results[0].dtype)
    if node.op.kind is Kind.MATMUL:
        x, y = inputs
        if way == 1 and x.shape[-1]:
            terms = (rule(form, x[..., [i]], y[..., [i], :]) for i in range(x.shape[-1]))
            return np.asarray(functools.reduce(np.add, terms))
        order = rng.permutation(x.shape[-1])
        return np.asarray(rule(form, x[..., order], y[..., order, :]))
    (x,) = inputs
    axes = node.attrs["axis"]
    combine = np.add if node.op.reduce == "add" else np.multiply
    if way == 1 and x.size:
        last = np.moveaxis(x, axes, range(-len(axes), 0))
        flat = last.reshape(*last.shape[: last.ndim - len(axes)], -1)
        return combine.accumulate(flat, -1)[..., -1].reshape(np.shape(rule(form, x)))
    for axis in axes:
        x = x.take(rng.permutation(x.shape[axis]), axis)
    longest = max(axes, key=lambda a: x.shape[a])
    if way == 2 or x.shape[longest] < 2:
        return np.asarray(rule(form, x))
    first, second = np.split(x, [int(rng.integers(1, x.shape[longest]))], longest)
    return np.asarray(combine(rule(form, first), rule(form, second)))


def overflowing(
    node: Node, extents: Mapping[Symbol, int], inputs: Sequence[Array], made: Array, rng: np.random.Generator
) -> Array:
    """``made``, with NaN or an infinity at random where finite terms overflow in one order or another: sums of both
    signs may then be anything.
    """
    if node.results[0].dtype.kind != "f" or (node.op.kind is Kind.REDUCE and node.op.reduce == "mul"):
        return made
    assert node.op.reference is not None
    sizes = [np.where(np.isfinite(x), np.abs(x), 0) for x in inputs]
    beyond = np.isinf(np.asarray(node.op.reference(Reference(node, extents), *sizes)))
    if not beyond.any():
        return made
    anything = np.array([np.nan, np.inf, -np.inf], made.dtype)[rng.integers(0, 3, made.shape)]
    return np.where(beyond, anything, made)


def may_be_reordered(node: Node) -> bool:
    """Whether a node adds up or multiplies terms in an order that is nobody's promise."""
    if node.op.kind is Kind.REDUCE:
        return node.op.reduce in ("add", "mul")
    return node.op.name == "matmul"


def differences(found: Sequence[Array], trials: Trials, tally: Tally | None = None) -> list[Difference]:
    """What cannot be explained by rounding, one entry for each result that is wrong."""
    problems = []
    for place, (array, plain) in enumerate(zip(found, trials.plain, strict=True)):
        moved_values = [np.asarray(m[place]) for m in trials.moved]
        exact = trials.exact[place]
        problem = _difference(place, np.asarray(array), np.asarray(plain), moved_values, exact, tally or Tally())
        if problem is not None:
            problems.append(problem)
    return problems


def _difference(
    place: int, found: Array, plain: Array, trials: Sequence[Array], exact: bool, tally: Tally
) -> Difference | None:
    if found.shape != plain.shape or found.dtype != plain.dtype:
        mine, theirs = (f"{a.dtype}{list(a.shape)}" for a in (found, plain))
        return Difference(place, (), mine, theirs, 0.0, 1, 1)
    tolerance = np.zeros(plain.shape)
    if plain.dtype.kind != "f":
        steady = np.full(plain.shape, bool(trials))
        for trial in trials:
            steady &= trial == plain
        bad = steady & (found != plain)
    else:
        steady, free_sign, tolerance = _tolerance(plain, trials, exact)
        with np.errstate(all="ignore"):
            gap = np.abs(found.astype(np.longdouble) - plain.astype(np.longdouble))
            near = np.isfinite(plain) & (gap <= tolerance)
        same = (found == plain) | (np.isnan(found) & np.isnan(plain)) | near
        wrong_sign = (found == 0) & (plain == 0) & (np.signbit(found) != np.signbit(plain)) & ~free_sign
        bad = steady & (~same | wrong_sign)
    tally.compared += int(np.sum(steady))
    tally.skipped += int(np.sum(~steady))
    if not np.any(bad):
        return None
    index = tuple(int(i[0]) for i in np.nonzero(bad)) if bad.ndim else ()
    return Difference(
        place, index, found[index], plain[index], float(tolerance[index]), int(np.sum(bad)), int(np.size(bad))
    )


def _tolerance(plain: Array, trials: Sequence[Array], exact: bool) -> tuple[Array, Array, Array]:
    """Where all trials agree on NaN and infinities, where a zero may have either sign, and how far from the reference
    an element may lie.
    """
    steady = np.full(plain.shape, bool(trials))
    free_sign = np.zeros(plain.shape, bool)
    spread = np.zeros(plain.shape, np.longdouble)
    wide = plain.astype(np.longdouble)
    finite = np.isfinite(plain)
    with np.errstate(all="ignore"):
        for trial in trials:
            same = (trial == plain) | (np.isnan(trial) & np.isnan(plain))
            steady &= np.where(finite, np.isfinite(trial), same)
            free_sign |= (trial == 0) & (np.signbit(plain) != np.signbit(trial)) | (trial != plain)
            spread = np.fmax(spread, np.abs(trial.astype(np.longdouble) - wide))
        info = np.finfo(plain.dtype)
        unit = info.eps * np.abs(wide) + 4 * float(info.smallest_subnormal)
        return steady, free_sign, np.where(spread > 0, FACTOR * spread + unit, 0 if exact else unit)
