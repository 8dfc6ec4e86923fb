"""How exact a result can be: measured, not guessed.

A graph is evaluated several times by the reference rules of its ops, and every inexact node's elements are moved at
random by up to AMPLITUDE units in the last place (stochastic arithmetic, in the manner of J. Vignes, "Discrete
stochastic arithmetic for validating results of numerical software", Numerical Algorithms 37, 2004). The spread of an
output's element over these trials is what rounding errors of that size, amplified by everything after them, can do
to it. A result is accepted within FACTOR spreads of the reference. Where the trials disagree about NaN, infinities, an
integer or a truth value, the element says nothing and is skipped; the skipped are counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphc.dims import Symbol
from graphc.node import Node, Tensor
from graphc.opdef import Kind, Reference
from passes.graph import Graph

Array = np.ndarray[Any, Any]
AMPLITUDE = 16  # units in the last place; kernels and NumPy are both within about 4 of the truth
TRIALS = 4
FACTOR = 4
# These only choose or move their inputs' elements, or change their sign.
EXACT = {
    "negative", "abs", "sign", "maximum", "minimum", "relu", "where", "stop_gradient", "max", "min", "arange",
    "constant", "extent", "placeholder", "parameter", "check_index", "one_hot",
}  # fmt: skip
_SHAPES = {Kind.VIEW, Kind.RESHAPE}
# The error of these comes from many roundings inside: their inputs move as well.
_MANY_ROUNDINGS = {Kind.REDUCE, Kind.MATMUL, Kind.COMPOSITE}


@dataclass
class Tally:
    """Elements compared and skipped, over all examples of a test."""

    compared: int = 0
    skipped: int = 0


@dataclass
class Trials:
    """Values of outputs (and of new parameter values) in the reference and in each trial."""

    plain: list[Array]
    moved: list[list[Array]] = field(default_factory=list)


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


def evaluate(
    graph: Graph, values: Mapping[Symbol, int], known: Mapping[Tensor, Array], rng: np.random.Generator | None
) -> list[Array]:
    """Outputs and update values by the reference rules, with noise if ``rng`` is given."""
    found: dict[Tensor, Array] = dict(known)
    for node in graph.nodes:
        if node.outputs and node.outputs[0] not in found:
            found[node.outputs[0]] = _node(node, values, [found[t] for t in node.inputs], rng)
    return [found[t] for t in (*graph.outputs, *(a.inputs[1] for a in graph.updates))]


def _node(node: Node, values: Mapping[Symbol, int], inputs: Sequence[Array], rng: np.random.Generator | None) -> Array:
    noisy = rng is not None and node.op.name not in EXACT and node.op.kind not in _SHAPES
    if noisy and node.op.kind in _MANY_ROUNDINGS:
        inputs = [moved(x, rng) for x in inputs]
    assert node.op.reference is not None
    with np.errstate(all="ignore"):
        result = np.asarray(node.op.reference(Reference(node, values), *inputs))
        return moved(result, rng) if noisy else result


def measure(graph: Graph, values: Mapping[Symbol, int], known: Mapping[Tensor, Array], seed: int) -> Trials:
    """The reference's values and those of the trials."""
    trials = Trials(evaluate(graph, values, known, None))
    for trial in range(TRIALS):
        trials.moved.append(evaluate(graph, values, known, np.random.default_rng([seed, trial])))
    return trials


def differences(found: Sequence[Array], trials: Trials, tally: Tally) -> list[str]:
    """What cannot be explained by rounding, one line for each result that is wrong."""
    lines = []
    for place, (array, plain) in enumerate(zip(found, trials.plain, strict=True)):
        wrong = _wrong(np.asarray(array), np.asarray(plain), [np.asarray(m[place]) for m in trials.moved], tally)
        if wrong:
            lines.append(f"result {place}: {wrong}")
    return lines


def _wrong(found: Array, plain: Array, trials: Sequence[Array], tally: Tally) -> str:
    if found.shape != plain.shape or found.dtype != plain.dtype:
        return f"{found.dtype}{found.shape} where the reference has {plain.dtype}{plain.shape}"
    if plain.dtype.kind != "f":
        steady = np.all([t == plain for t in trials], axis=0)
        bad = steady & (found != plain)
    else:
        steady, tolerance = _tolerance(plain, trials)
        finite = np.isfinite(plain)
        with np.errstate(all="ignore"):
            error = np.abs(found.astype(np.float64) - plain.astype(np.float64))
            near = error <= tolerance
        same = (found == plain) | (np.isnan(found) & np.isnan(plain))
        bad = steady & ~np.where(finite, near, same)
    tally.compared += int(np.sum(steady))
    tally.skipped += int(np.sum(~steady))
    if not np.any(bad):
        return ""
    where = tuple(int(i[0]) for i in np.nonzero(np.atleast_1d(bad)))
    at = np.atleast_1d
    return f"{int(bad.sum())} of {bad.size} differ, first at {where}: {at(found)[where]!r}, not {at(plain)[where]!r}"


def _tolerance(plain: Array, trials: Sequence[Array]) -> tuple[Array, Array]:
    """Where all trials agree on NaN and infinities, and how far from the reference an element may lie there."""
    steady = np.ones(plain.shape, bool)
    spread = np.zeros(plain.shape)
    wide = plain.astype(np.float64)
    with np.errstate(all="ignore"):
        for trial in trials:
            same_kind = np.where(
                np.isfinite(plain), np.isfinite(trial), (trial == plain) | (np.isnan(trial) & np.isnan(plain))
            )
            steady &= same_kind
            spread = np.fmax(spread, np.abs(trial.astype(np.float64) - wide))
        # An element whose error has the size of its value says nothing about its sign or its pattern downstream.
        unit = np.finfo(plain.dtype).eps * np.abs(wide) + 4 * float(np.finfo(plain.dtype).smallest_subnormal)
    return steady, FACTOR * spread + unit
