"""Every op on every sample: CPU and ``emit`` equal the reference, and results have their inferred types."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from op_checks import allowance, difference, emitted
from op_samples import Sample, dtype_sets, samples

import graphc
from graphc.dims import evaluate
from graphc.opdef import OPS, Kind, OpDef

CASES = [
    pytest.param(op, dtypes, id=f"{op.name}-{'-'.join(map(str, dtypes))}")
    for op in OPS.values()
    if op.domain.kinds or op.samples
    for dtypes in (dtype_sets(op) or [()])
]


@pytest.fixture(scope="module")
def cpu() -> Iterator[graphc.Session]:
    with graphc.Session(device="cpu", threads=1) as session:
        yield session


@pytest.fixture(scope="module")
def reference() -> Iterator[graphc.Session]:
    with graphc.Session(device="reference") as session:
        yield session


@pytest.mark.parametrize(("op", "dtypes"), CASES)
def test_values(op: OpDef, dtypes: tuple[np.dtype[Any], ...], cpu: graphc.Session, reference: graphc.Session) -> None:
    problems: list[str | None] = []
    count = 0
    for sample in samples(op, dtypes):
        count += 1
        problems += _check(op, sample, cpu, reference)
    assert count, f"the domain of {op.name} gives no sample of {dtypes}"
    found = [p for p in problems if p]
    assert not found, f"{len(found)} problems\n" + "\n".join(found[:12])


def _check(op: OpDef, sample: Sample, cpu: graphc.Session, reference: graphc.Session) -> list[str | None]:
    expected = np.asarray(reference.run(sample.result, sample.feeds))
    node = sample.result.node
    shape = tuple(evaluate(e, sample.values) for e in sample.result.shape)
    inferred = f"{sample.result.dtype}{list(shape)}"
    result = f"{expected.dtype}{list(expected.shape)}"
    problems = [None if inferred == result else f"{sample.label}: inferred {inferred}, but the result is {result}"]
    inexact: list[str] = []
    summands: np.ndarray | float = 0.0
    # NumPy does not say which zero is the larger, and takes the one or the other by processor.
    signed = op.reduce not in ("maximum", "minimum")
    if op.emit is not None:
        operands = sample.arrays
        if op.kind is Kind.GATHER:  # its indices are computed from the placeholders
            operands = tuple(np.asarray(a) for a in reference.run(list(node.inputs), sample.feeds))
        value, recorder = emitted(node, operands, sample.values)
        inexact, summands, signed = recorder.inexact, recorder.summands, not recorder.extremum
        allowed = allowance(op, node, sample.arrays, expected, inexact, summands)
        problems.append(difference(sample.label, "emit", value, expected, allowed, signed_zeros=signed))
    allowed = allowance(op, node, sample.arrays, expected, inexact, summands)
    value = cpu.run(sample.result, sample.feeds)
    problems.append(difference(sample.label, "cpu", value, expected, allowed, signed_zeros=signed))
    return problems
