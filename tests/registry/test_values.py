"""Every op on every sample: the CPU equals the reference, ``emit`` equals the reference, results have their inferred types."""

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
    problems = [difference(sample.label, "infer", np.empty(shape, sample.result.dtype)[...], expected * 0, np.inf)]
    inexact: list[str] = []
    if op.kind is Kind.SCALAR:
        value, recorder = emitted(node, sample.arrays, sample.values)
        inexact = recorder.inexact
        allowed = allowance(op, node, sample.arrays, expected, inexact)
        problems.append(difference(sample.label, "emit", value, expected, allowed))
    allowed = allowance(op, node, sample.arrays, expected, inexact)
    problems.append(difference(sample.label, "cpu", cpu.run(sample.result, sample.feeds), expected, allowed))
    return problems
