"""Functions made of ops (reductions, products, losses, activations, norms) against PyTorch: values and gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import differences as known
import numpy as np
import pytest
import torch
from functions import ABSENT, FUNCTIONS, Pair
from fuzz.catalogue import entries
from fuzz.noise import Model, differences
from torch_graph import to_torch

import graphc
from passes.gradient import expand_gradients
from passes.graph import Graph

Array = np.ndarray[Any, Any]
PAIRS = [
    pytest.param(name, pair, id=f"{name}-{number}")
    for name, pairs in FUNCTIONS.items()
    for number, pair in enumerate(pairs)
]


@pytest.fixture(scope="module")
def session() -> Iterator[graphc.Session]:
    torch.set_num_threads(1)
    with graphc.Session(threads=1) as opened:
        yield opened


def test_every_function_is_in_the_table_or_absent_with_a_reason() -> None:
    public = {e.name for e in entries() if e.op is None}
    assert public <= set(FUNCTIONS) | set(ABSENT), public - set(FUNCTIONS) - set(ABSENT)
    assert not set(FUNCTIONS) & set(ABSENT)
    assert set(known.FUNCTIONS) <= set(FUNCTIONS)


@pytest.mark.filterwarnings("ignore:reduction. 'mean':UserWarning")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "pair"), PAIRS)
def test_function(name: str, pair: Pair, dtype: str, session: graphc.Session) -> None:
    rng = np.random.default_rng(11)
    arrays = [draw(rng, np.dtype(dtype)) for draw in pair.inputs]
    inputs = [graphc.placeholder(a.shape, dtype=a.dtype) for a in arrays]
    result = pair.mine(*inputs)
    given = [to_torch(a, differentiable=True) for a in arrays]
    theirs = pair.theirs(*given)
    outputs, found = [result], [theirs.detach().numpy()]
    feeds = dict(zip(inputs, arrays, strict=True))
    wrt = [i for i, x in enumerate(inputs) if x.dtype.kind == "f"]
    if result.dtype.kind == "f" and theirs.requires_grad:
        weights = rng.uniform(0.5, 1.5, tuple(int(e) for e in result.shape)).astype(result.dtype)
        w = graphc.placeholder(result.shape, dtype=result.dtype)
        feeds[w] = weights
        outputs += graphc.gradients([result], [inputs[i] for i in wrt], [w], unreachable="zero")
        gradients = torch.autograd.grad(theirs, [given[i] for i in wrt], to_torch(weights), allow_unused=True)
        found += [np.zeros_like(arrays[i]) if g is None else g.numpy() for i, g in zip(wrt, gradients, strict=True)]
    mine = [np.asarray(a) for a in session.run(outputs, feeds)]
    trials = Model(expand_gradients(Graph(tuple(outputs))), bits=False).measure({}, feeds, seed=0)
    problems = [f"graphc: {d}" for d in differences(mine, trials)]
    found = [known.without_signs_of_zero(a, p) for a, p in zip(found, trials.plain, strict=True)]
    excuse = known.FUNCTIONS.get(name)
    if excuse is not None:
        found = [excuse.apply(a, p, arrays) for a, p in zip(found, trials.plain, strict=True)]
    problems += [f"PyTorch: {d}" for d in differences(found, trials)]
    assert not problems, "\n".join(problems)
