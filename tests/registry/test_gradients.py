"""First and second derivatives of every op against central differences, in float64, on both devices.

With L = sum(w * y) for fixed weights w, a step h in one element gives D(h) = (L(x + h) - L(x - h)) / 2h, which differs
from the derivative by h**2 / 6 * |L'''| (truncation) and by eps * M / h (rounding, where M = 1 + sum|w * y|). With
h = eps**(1/3) both are of the order h**2. In the domains that ops state, third derivatives stay below some hundreds, so
the tolerance is 200 * h**2 * (M + |D|), about 7e-9 * (M + |D|). (eps is that of the result's dtype: a conversion to
float32 is checked with steps of 5e-3.)

Second derivatives are those of S = sum(v * dL/dx), by the same rule applied to the first derivatives of the graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from op_samples import Sample, builders, default, placeholders, shape_sets, spread

import graphc
from graphc.dims import Symbol, evaluate
from graphc.node import Tensor
from graphc.opdef import OPS, NotDifferentiable, OpDef

Array = np.ndarray[Any, Any]
FLOAT = np.dtype(np.float64)
# Enough for every branch of a rule: a scalar, a matrix, both ways to broadcast, axes of extent 1, 0 and a symbolic one.
SHAPES = {
    1: [((),), ((2, 3),), ((0, 2),), (("n", 2),)],
    2: [((), (3,)), ((2, 3), (2, 3)), ((3,), (2, 1)), ((2, 1), (1, 3)), (("n", 2), (2,))],
    3: [((2, 3), (2, 3), (2, 3)), ((2, 1), (3,), ()), ((3,), (), (2, 1))],
}
EXTENTS = {"n": 2, "m": 3}


def differentiable(op: OpDef) -> bool:
    return not isinstance(op.vjp, NotDifferentiable) and bool(op.domain.kinds)


@pytest.fixture(scope="module")
def sessions() -> Iterator[list[graphc.Session]]:
    with graphc.Session(device="reference") as reference, graphc.Session(device="cpu", threads=1) as cpu:
        yield [reference, cpu]


def float_samples(op: OpDef) -> Iterator[Sample]:
    """Samples in float64; inputs that cannot be float are integers or bools."""
    dtypes = tuple(FLOAT if "f" in kinds else default(kinds) for kinds in op.domain.kinds)
    rng = np.random.default_rng(7)
    domain = op.domain
    sets = shape_sets(op) if domain.shapes else SHAPES[len(dtypes)]
    for shapes in sets:
        if any(len(s) < domain.rank or (0 in s and not domain.empty) for s in shapes):
            continue
        for number, build in enumerate(builders(op)):
            inputs = placeholders(shapes, dtypes)
            result = build(*inputs)
            if result in set(inputs) or result.dtype.kind != "f":
                continue
            numbers = [tuple(EXTENTS[e] if isinstance(e, str) else e for e in s) for s in shapes]
            arrays = spread(op, rng, numbers, dtypes)
            values = {Symbol(k): v for k, v in EXTENTS.items()}
            yield Sample(f"{op.name} {number} {shapes}", result, inputs, arrays, values)


@pytest.mark.parametrize("op", [pytest.param(op, id=op.name) for op in OPS.values() if differentiable(op)])
def test_gradients(op: OpDef, sessions: list[graphc.Session]) -> None:
    problems: list[str] = []
    count = 0
    for sample in float_samples(op):
        count += 1
        problems += _check(sample, sessions)
    assert count
    assert not problems, "\n".join(problems[:12])


def _check(sample: Sample, sessions: list[graphc.Session]) -> list[str]:
    wrt = [x for x in sample.inputs if x.dtype == FLOAT]
    feeds = sample.feeds
    value, size = weighted([sample.result], 1, sample, feeds)
    first = graphc.gradients(value, wrt)
    slope, slope_size = weighted(first, 2, sample, feeds)
    second = graphc.gradients(slope, wrt, unreachable="zero")
    reference = sessions[0]
    step = float(np.finfo(sample.result.dtype).eps) ** (1 / 3)
    problems = []
    for order, target, scale, gradients in (("first", value, size, first), ("second", slope, slope_size, second)):
        magnitude = 1 + float(reference.run(scale, feeds))
        expected = [central_differences(reference, target, x, feeds, step) for x in wrt]
        for session in sessions:
            for x, found, numeric in zip(wrt, session.run(gradients, feeds), expected, strict=True):
                what = f"{sample.label}: {order} derivative for {x.name} on {session.device}"
                if np.shape(found) != numeric.shape or np.asarray(found).dtype != FLOAT:
                    problems.append(f"{what} has shape {np.shape(found)}, expected {numeric.shape}")
                elif not np.all(np.abs(found - numeric) <= 200 * step**2 * (magnitude + np.abs(numeric))):
                    problems.append(f"{what} is\n{found}\n  expected\n{numeric}")
    return problems


def weighted(parts: Sequence[Tensor], seed: int, sample: Sample, feeds: dict[Tensor, Array]) -> tuple[Tensor, Tensor]:
    """``sum(w * part)`` over all parts, and ``sum|w * part|``; the weights are placeholders, put into ``feeds``."""
    terms = []
    for number, part in enumerate(parts):
        w = graphc.placeholder(part.shape, dtype=FLOAT)
        shape = tuple(evaluate(e, sample.values) for e in part.shape)
        feeds[w] = np.random.default_rng(seed + number).uniform(0.5, 1.5, shape)
        terms.append(part * w)
    total, size = graphc.sum(terms[0]), graphc.sum(graphc.abs(terms[0]))
    for term in terms[1:]:
        total, size = total + graphc.sum(term), size + graphc.sum(graphc.abs(term))
    return total, size


def central_differences(
    session: graphc.Session, target: Tensor, x: Tensor, feeds: dict[Tensor, Array], step: float
) -> Array:
    """Derivative of the scalar ``target`` for each element of ``x``."""
    found = np.zeros(feeds[x].shape)
    for place in np.ndindex(found.shape):
        h = step * max(1.0, abs(feeds[x][place]))
        ends = []
        for sign in (1, -1):
            moved = feeds[x].copy()
            moved[place] += sign * h
            ends.append((float(session.run(target, {**feeds, x: moved})), moved[place]))
        found[place] = (ends[0][0] - ends[1][0]) / (ends[0][1] - ends[1][1])
    return found
