"""Random programs through the exact passes: every bit of what they compute, as the references of the ops compute it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from fuzz.case import Case, holds
from fuzz.catalogue import entries
from fuzz.drawing import draw
from rewrite_checks import same_bits

from graphc.dims import Symbol
from graphc.errors import GraphcError
from graphc.node import Tensor
from passes.decompose import decompose
from passes.fold import fold_constants
from passes.gradient import expand_gradients
from passes.graph import Graph
from passes.rewriting import firings
from passes.simplify import simplify
from runtime.reference import evaluate_graph
from runtime.store import STATE

SEED = 20
PROGRAMS = 150
CATALOGUE = entries()


def leaves(case: Case, graph: Graph, run: int) -> dict[Tensor, Any]:
    found = {t: np.asarray(a, t.dtype) for t, a in case.runs[run].items()}
    for node in graph.nodes:
        if node.op in STATE:
            (tensor,) = node.outputs
            initial = case.values.get(tensor, node.attrs.get("initial"))
            known = isinstance(initial, np.ndarray)
            found[tensor] = initial if known else np.ones([int(e) for e in tensor.shape], tensor.dtype)
    return found


def results(graph: Graph, extents: Mapping[Symbol, int], known: Mapping[Tensor, Any]) -> list[Any] | str:
    """The outputs, or the error that their evaluation raises."""
    environment = dict(known)
    try:
        with np.errstate(all="ignore"):
            evaluate_graph(graph, extents, environment)
    except GraphcError as error:
        return type(error).__name__
    return [environment[t] for t in graph.outputs]


@pytest.mark.parametrize("first", range(0, PROGRAMS, 10))
def test_random_programs_keep_every_bit(first: int) -> None:
    """Simplified, after decomposition too; and with constants folded, which calls the same references."""
    with firings() as fired:
        for number in range(first, first + 10):
            case, _ = draw(SEED, number, CATALOGUE)
            plain = expand_gradients(case.graph)
            for run in (r for r in range(len(case.runs)) if holds(case, r)):
                extents, known = case.extents(run), leaves(case, plain, run)
                for before, rewrite in ((plain, simplify), (decompose(plain), simplify), (plain, fold_constants)):
                    check(results(before, extents, known), results(rewrite(before), extents, known), rewrite)
    assert fired


def check(expected: list[Any] | str, found: list[Any] | str, rewrite: Callable[[Graph], Graph]) -> None:
    if isinstance(expected, str) or isinstance(found, str):
        assert expected == found
        return
    for mine, theirs in zip(found, expected, strict=True):
        if rewrite is fold_constants and theirs.dtype.kind == "f":  # NumPy adds up a view in an order of its own
            np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
        else:
            same_bits(mine, theirs)
