"""Every op that PyTorch has as well: values and gradients on the registry's samples.

What is moved or correctly rounded must have the same bits in values. Elsewhere the tolerance follows from the graph:
``fuzz.noise`` moves every inexact result by units in the last place and measures what becomes of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import differences as known
import numpy as np
import pytest
import torch
from fuzz.noise import Model, differences
from op_samples import Sample, dtype_sets, samples
from table import ABSENT, PEERS
from torch_graph import NoKernelError, run, to_torch

import graphc
from graphc.dims import evaluate
from graphc.node import Tensor
from graphc.opdef import OPS, NotDifferentiable, OpDef
from passes.gradient import expand_gradients
from passes.graph import Graph

Array = np.ndarray[Any, Any]
BOTH = [op for name, op in OPS.items() if name in PEERS and (op.domain.kinds or op.samples)]
CASES = [
    pytest.param(op, dtypes, id=f"{op.name}-{'-'.join(map(str, dtypes))}")
    for op in BOTH
    for dtypes in (dtype_sets(op) or [()])
]
FLOATS = [(op, d) for op in BOTH for d in dtype_sets(op) if not isinstance(op.vjp, NotDifferentiable)]
GRADIENTS = [
    pytest.param(op, d, id=f"{op.name}-{'-'.join(map(str, d))}") for op, d in FLOATS if any(t.kind == "f" for t in d)
]


Sessions = dict[str, graphc.Session]


@pytest.fixture(scope="module")
def sessions() -> Iterator[Sessions]:
    torch.set_num_threads(1)
    with graphc.Session(threads=1) as cpu, graphc.Session("reference") as reference:
        yield {"f": cpu, "other": reference}


def session_for(result: Tensor, sessions: Sessions) -> graphc.Session:
    """Floats come from the CPU. Of other dtypes its results have the reference's bits (tests/registry), and a kernel
    for each would take minutes to compile.
    """
    return sessions.get(result.dtype.kind, sessions["other"])


def test_every_op_is_in_the_table_or_absent_with_a_reason() -> None:
    assert set(OPS) == set(PEERS) | set(ABSENT)
    assert not set(PEERS) & set(ABSENT)
    assert all(len(why.split()) > 2 for why in ABSENT.values())


def test_known_differences_are_of_ops_that_exist() -> None:
    assert {*known.VALUES, *known.GRADIENTS} <= set(PEERS)


@pytest.mark.parametrize(("op", "dtypes"), CASES)
def test_values(op: OpDef, dtypes: tuple[np.dtype[Any], ...], sessions: Sessions) -> None:
    problems, compared, missing = [], 0, ""
    for sample in samples(op, dtypes):
        try:
            theirs = run(sample.result, tensors(sample), sample.values).detach().numpy()
        except NoKernelError as error:
            missing = str(error)
            continue
        mine = np.asarray(session_for(sample.result, sessions).run(sample.result, sample.feeds))
        compared += 1
        problems += compare([sample.result], sample, [mine], [theirs], known.VALUES.get(op.name), bits=True)
    if missing and not compared:
        pytest.skip(f"PyTorch: {missing}")
    assert compared
    assert not problems, f"{len(problems)} problems\n" + "\n".join(problems[:12])


@pytest.mark.parametrize(("op", "dtypes"), GRADIENTS)
def test_gradients(op: OpDef, dtypes: tuple[np.dtype[Any], ...], sessions: Sessions) -> None:
    """Of the weighted sum of the results, on the samples inside the op's domain."""
    problems, compared, missing = [], 0, ""
    for sample in samples(op, dtypes):
        if "special" in sample.label or " of " in sample.label or sample.result.dtype.kind != "f":
            continue
        wrt = [x for x in sample.inputs if x.dtype.kind == "f"]
        weights = np.random.default_rng(3).uniform(0.5, 1.5, shape_of(sample)).astype(sample.result.dtype)
        w = graphc.placeholder(sample.result.shape, dtype=sample.result.dtype)
        gradients = graphc.gradients([sample.result], wrt, [w], unreachable="zero")
        try:
            theirs = torch_gradients(sample, wrt, weights)
        except NoKernelError as error:
            missing = str(error)
            continue
        feeds = {**sample.feeds, w: weights}
        mine = [np.asarray(a) for a in sessions["f"].run(gradients, feeds)]
        whole = Sample(sample.label, sample.result, (*sample.inputs, w), (*sample.arrays, weights), sample.values)
        compared += 1
        problems += compare(gradients, whole, mine, theirs, known.GRADIENTS.get(op.name), bits=False)
    if not compared:
        pytest.skip(f"PyTorch: {missing}" if missing else "no sample has a float result")
    assert not problems, f"{len(problems)} problems\n" + "\n".join(problems[:12])


def tensors(sample: Sample, *, differentiable: bool = False) -> dict[Tensor, torch.Tensor]:
    return {x: to_torch(a, differentiable=differentiable) for x, a in sample.feeds.items()}


def shape_of(sample: Sample) -> tuple[int, ...]:
    return tuple(evaluate(e, sample.values) for e in sample.result.shape)


def torch_gradients(sample: Sample, wrt: Sequence[Tensor], weights: Array) -> list[Array]:
    given = tensors(sample, differentiable=True)
    result = run(sample.result, given, sample.values)
    inputs = [given[x] for x in wrt]
    try:
        found = torch.autograd.grad(result, inputs, to_torch(weights), allow_unused=True)
    except (NotImplementedError, RuntimeError) as error:
        if "not implemented" in str(error):
            raise NoKernelError(str(error)) from error
        raise
    return [
        np.zeros(x.shape, x.detach().numpy().dtype) if g is None else g.numpy()
        for g, x in zip(found, inputs, strict=True)
    ]


def compare(
    results: Sequence[Tensor], sample: Sample, mine: Sequence[Array], theirs: Sequence[Array],
    excused: known.Excuse | None, *, bits: bool,
) -> list[str]:  # fmt: skip
    """What differs from the reference by more than rounding explains, in graphc and in PyTorch."""
    model = Model(expand_gradients(Graph(tuple(results))), bits=bits)
    trials = model.measure(sample.values, sample.feeds, seed=0)
    found = [f"{sample.label}: graphc: {d}" for d in differences(mine, trials)]
    aligned = [np.asarray(a) for a in theirs]
    if not bits:
        aligned = [known.without_signs_of_zero(a, p) for a, p in zip(aligned, trials.plain, strict=True)]
    if excused is not None:
        aligned = [excused.apply(a, p, sample.arrays) for a, p in zip(aligned, trials.plain, strict=True)]
    return found + [f"{sample.label}: PyTorch: {d}" for d in differences(aligned, trials)]
